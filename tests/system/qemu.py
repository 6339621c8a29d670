"""Boots an ISO in QEMU, headless, and reads its serial console line by line.

    with boot(iso, firmware="uefi") as machine:
        machine.wait_for(r"live login: root", timeout=120)

QEMU ends with the `with` block, or with the thread that entered it, however that ends. An exception that leaves the block
carries the end of the console as a note. Emulation only: a /dev/kvm that opens need not be able to boot a kernel.
"""

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

OVMF = "/usr/share/ovmf/OVMF.fd"
ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-9;?=%]*[A-Za-z]|[()%].|.)|[\x00-\x08\x0b-\x1f]")


class Machine:
    """A running QEMU: what its serial console has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.started = time.monotonic()
        self.lines: list[str] = []
        self._seen = 0  # lines that earlier waits have passed
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """The first line, after that of the wait before, in which `pattern` is found; `timeout` in seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines[self._seen :]:
                    self._seen += 1
                    if found := re.search(pattern, line):
                        return found
                if self._ended:
                    raise AssertionError(f"QEMU ended before a line with {pattern!r}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line with {pattern!r} within {timeout} s")

    def send(self, text: str) -> None:
        """Types on the serial console."""
        stdin = self._pipe(self.process.stdin)
        stdin.write(text.encode())
        stdin.flush()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self._pipe(self.process.stdin).close()
        self._pipe(self.process.stdout).close()

    def end_of_console(self, lines: int = 40) -> str:
        return "\n".join(["end of the serial console:", *self.lines[-lines:]])

    def _read(self) -> None:
        for raw in self._pipe(self.process.stdout):
            line = ESCAPE_SEQUENCE.sub("", raw.decode(errors="replace")).rstrip()
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


@contextmanager
def boot(
    iso: Path,
    *,
    firmware: Literal["bios", "uefi"] = "bios",
    medium: Literal["cdrom", "disk"] = "cdrom",
    memory: int = 1024,
) -> Iterator[Machine]:
    """A machine with `memory` MiB, two processors and no network that boots `iso`."""
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-m", str(memory), "-smp", "2"]
    command += ["-nic", "none", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    command += ["-no-reboot"]
    command += ["-bios", OVMF] if firmware == "uefi" else []
    interface = "ide,media=cdrom" if medium == "cdrom" else "virtio"
    command += ["-drive", f"file={iso},format=raw,readonly=on,if={interface}"]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],  # dies with us, even when we are killed
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    machine = Machine(process)
    try:
        yield machine
    except BaseException as error:
        error.add_note(machine.end_of_console())
        raise
    finally:
        machine.stop()

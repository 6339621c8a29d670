"""Boots an ISO in QEMU, headless, and reads its serial console line by line.

    with boot(iso, firmware="uefi") as machine:
        machine.wait_for(r"live login: root", timeout=120)

QEMU ends with the `with` block, or with the thread that entered it, however that ends. An exception
that leaves the block carries the end of the console as a note. Emulation only: a /dev/kvm that can
be opened need not be able to boot a kernel.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

OVMF = "/usr/share/ovmf/OVMF.fd"
# MiB of translated code. With the default, up to 1 GiB, the translations of the initramfs are still
# there when the system gets its memory, and QEMU takes 0.1 s to clear each such page: 20 s in all.
TRANSLATIONS = 128
ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-9;?=%]*[A-Za-z]|[()%].|.)|[\x00-\x08\x0b-\x1f]")


class Machine:
    """A running QEMU: what its serial console has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._keyboard, self._console = process.stdin, process.stdout
        self.started = time.monotonic()
        self.lines: list[str] = []
        self._unfinished = ""  # what was printed of the next line
        self._seen = 0  # lines that earlier waits have passed
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """The first line in which `pattern` is found, after that of the wait before.

        `timeout` in seconds; without such a line, or when QEMU ends, an AssertionError.
        """
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

    def prompts(self, pattern: str, timeout: float) -> None:
        """Wait until the line that is not finished matches: whoever printed it waits for an answer.
        `timeout` in seconds.
        """
        with self._changed:
            asked = self._changed.wait_for(
                lambda: self._ended or re.search(pattern, self._unfinished), timeout
            )
        assert asked, f"no prompt {pattern!r} within {timeout} s"

    def type(self, line: str) -> None:
        """On the serial console, with the return key."""
        self._keyboard.write(f"{line}\r".encode())
        self._keyboard.flush()

    def switched_off(self, timeout: float) -> None:
        """Wait until the machine has switched itself off; `timeout` in seconds."""
        assert self.process.wait(timeout) == 0

    def age(self) -> float:
        """Seconds since the machine was switched on."""
        return time.monotonic() - self.started

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self._keyboard.close()
        self._console.close()

    def end_of_console(self, lines: int = 40) -> str:
        return "\n".join(["end of the serial console:", *self.lines[-lines:]])

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._console.fileno(), 1 << 16):
            *whole, rest = (rest + data).split(b"\n")
            with self._changed:
                self.lines += map(_readable, whole)
                self._unfinished = _readable(rest)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _readable(raw: bytes) -> str:
    return ESCAPE_SEQUENCE.sub("", raw.decode(errors="replace")).rstrip()


@contextmanager
def boot(
    iso: Path,
    *,
    firmware: Literal["bios", "uefi"] = "bios",
    medium: Literal["cdrom", "disk"] = "cdrom",
    memory: int = 1024,
    processors: int = 2,
    disk: Path | None = None,
    cards: int = 0,
    writable: bool = False,
) -> Iterator[Machine]:
    """A machine with `memory` MiB that boots `iso`. `disk`: another one, that can be written to;
    `cards`: network cards, all on one hub inside QEMU that leads nowhere. `writable`: so is `iso`.
    """
    command = ["qemu-system-x86_64", "-accel", f"tcg,thread=multi,tb-size={TRANSLATIONS}"]
    command += ["-m", str(memory), "-smp", str(processors), "-no-reboot"]
    for number in range(cards):
        command += ["-netdev", f"hubport,id=card{number},hubid=0"]
        card = f"virtio-net-pci,netdev=card{number},mac=52:54:00:00:00:{number:02x}"
        command += ["-device", card]
    command += [] if cards else ["-nic", "none"]
    command += ["-display", "none", "-monitor", "none", "-serial", "stdio"]
    command += ["-bios", OVMF] if firmware == "uefi" else []
    interface = "ide,media=cdrom" if medium == "cdrom" else "virtio"
    access = "cache=unsafe" if writable else "readonly=on"
    command += ["-drive", f"file={iso},format=raw,{access},if={interface}"]
    command += ["-drive", f"file={disk},format=raw,cache=unsafe,if=virtio"] if disk else []
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

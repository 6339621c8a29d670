"""Plays a plan in a thread: the text of each command is a script of its own.

It writes the files that the supervisor would (`node/workfolder.py`), so that nothing outside can
tell the two apart. Lines that it knows, each from its first column on; all other lines do nothing,
so that any build runs::

    sleep SECONDS     print TEXT     exit CODE     hang
    bytes N           N random bytes of output
    artifact N        the result: N random bytes; a build without this line has one of 1 KiB
    break             the container ends with 1, before the build does: no exit record
    engine-fault      the engine loses the container: who waits for it hears that the engine is down
"""

import contextlib
import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from node.engines.base import ContainerSpec, Exit
from node.plan import NEVER_RAN, Plan, PlannedCommand, Step, format_exit, format_progress

_LINE = re.compile(
    r"(sleep) +([0-9]{1,9}(?:\.[0-9]*)?)\s*"
    r"|(bytes|artifact|exit) +([0-9]{1,15})\s*"
    r"|(hang|break|engine-fault)\s*"
    r"|(print)(?: (.*))?"
)
_PIECE = 1 << 20
_RESULT = "image.iso"
_KILLED = 137


class _Killed(Exception):
    """The container is to end now."""


class _Broken(Exception):
    """The container is to end by itself, now."""


class _Lost(Exception):
    """The engine is to fail."""


class _Exited(Exception):
    """The script said so."""

    def __init__(self, code: int) -> None:
        self.code = code


class Player:
    """One container: a thread that does as the plan says.

    `tell(event, player, code)` is called when nothing is written any more, but before `ended` is
    set: with "end" where the play came to its end by itself, else with "kill".
    """

    def __init__(
        self,
        spec: ContainerSpec,
        plan: Plan,
        out: Path,
        tell: Callable[[str, "Player", int], None],
    ) -> None:
        self.id = secrets.token_hex(32)
        self.spec = spec
        self.killed = threading.Event()
        self.ended = threading.Event()
        self.exit = _exit(_KILLED)
        self.fault = ""  # what those hear who wait for it
        self._tell = tell
        self._plan = plan
        self._out = out
        self._steps: list[Step] = []
        self._stopped = ""  # why no further step is run
        self._full = False  # this step's output went over the log's limit

    def start(self) -> None:
        """Begin; `ended` is set when nothing is written any more."""
        threading.Thread(target=self._run, name=f"dummy {self.spec.name}", daemon=True).start()

    def usage(self) -> int:
        """Bytes of the files that it has written."""
        size = 0
        with contextlib.suppress(FileNotFoundError):  # the folder is being removed
            for file in self._out.iterdir():
                with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
                    size += file.lstat().st_size
        return size

    def _run(self) -> None:
        event = "kill"
        try:
            with (self._out / "log").open("ab", buffering=0) as self._log:
                self._play()
            event, self.exit = "end", _exit(0)
        except _Killed:
            pass
        except _Lost:
            self.fault = "the engine lost the container"
        except _Broken:
            event, self.exit = "end", _exit(1)
        except OSError as error:
            event, self.exit = "end", _exit(1, str(error))
        finally:
            try:
                self._tell(event, self, self.exit.code)
            finally:
                self.ended.set()

    def _play(self) -> None:
        for command in self._plan.commands:
            self._step(partial(self._command, command))
        if self._plan.find_iso:
            self._step(self._find_result)
        found = (self._out / "result").exists()
        self._put("exit", format_exit(_RESULT if found else None))

    def _step(self, act: Callable[[], int]) -> None:
        step = Step(len(self._steps), self._log.tell())
        self._steps.append(step)
        self._put("progress", format_progress(self._steps))
        self._full = False
        if self._stopped:
            self._say(f"not run: {self._stopped}")
            code = NEVER_RAN
        else:
            code = act()
        if code and not self._plan.keep_going and not self._stopped:
            self._stopped = f"command {step.index + 1} ended with {code}"
        self._steps[-1] = Step(step.index, step.start, self._log.tell(), code)
        self._put("progress", format_progress(self._steps))

    def _command(self, command: PlannedCommand) -> int:
        if command.failure:
            self._say(f"not run: {command.failure}")
            return NEVER_RAN
        try:
            for line in command.text.decode("utf-8", "replace").splitlines():
                self._line(line)
        except _Exited as exited:
            return exited.code
        return 0

    def _line(self, line: str) -> None:
        """Do what a line of the script says, if it says anything to us."""
        self._check()
        known = _LINE.fullmatch(line)
        match [word for word in known.groups() if word] if known else []:
            case ["sleep", seconds]:
                self._pause(float(seconds))
            case ["hang"]:
                self._pause(None)
            case ["break"]:
                raise _Broken
            case ["engine-fault"]:
                raise _Lost
            case ["print", *text]:
                self._output("".join(text).encode() + b"\n")
            case ["bytes", count]:
                for piece in self._pieces(int(count)):
                    self._output(piece)
            case ["artifact", count]:
                self._make_result(int(count))
            case ["exit", code]:
                raise _Exited(int(code) & 255)

    def _find_result(self) -> int:
        result = self._out / "result"
        if not result.exists():
            self._make_result(1024)
        self._say(f"the image is /toiso/{_RESULT}, {result.stat().st_size} bytes")
        return 0

    def _make_result(self, count: int) -> None:
        if self._plan.find_iso:
            with (self._out / "result").open("wb", buffering=0) as file:
                for piece in self._pieces(count):
                    file.write(piece)

    def _pieces(self, count: int) -> Iterator[bytes]:
        """Random bytes, drawn from a random key: os.urandom is many times slower."""
        key = secrets.token_bytes(32)
        for start in range(0, count, _PIECE):
            self._check()
            source = hashlib.shake_128(key + start.to_bytes(8, "big"))
            yield source.digest(min(_PIECE, count - start))

    def _output(self, data: bytes) -> None:
        """Append to the log, no further than its limit."""
        room = max(0, self._plan.log_limit - self._log.tell())
        self._log.write(data[:room])
        if len(data) > room and not self._full:
            self._full = True
            self._log.write(b"\n")
            self._say(f"the log has reached its limit of {self._plan.log_limit} bytes")

    def _say(self, words: str) -> None:
        self._log.write(f"[imagepool: {words}]\n".encode("utf-8", "replace"))

    def _pause(self, seconds: float | None) -> None:
        self.killed.wait(seconds)
        self._check()

    def _check(self) -> None:
        if self.killed.is_set():
            raise _Killed

    def _put(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all."""
        self._check()
        part = self._out / f".{name}"
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        part.write_bytes(data)
        part.replace(self._out / name)


def _exit(code: int, words: str = "") -> Exit:
    return Exit(code, words, out_of_memory=False, watched=True)

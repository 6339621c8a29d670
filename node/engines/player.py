"""Plays a plan in a thread: the text of each command is a script of its own.

It writes the files that the supervisor would (`node/files/workfolder.py`), so that nothing outside
can tell the two apart. Lines that it knows, each from its first column on; all other lines do
nothing, so that any build runs::

    sleep SECONDS     print TEXT     exit CODE     hang
    bytes N           N random bytes of output
    artifact N        the result: N random bytes; a build without this line has one of 1 KiB
    file PATH N       a file of N random bytes, below /outbox/ or for the paths of the output; in a
                      build without this line all of these find something
    warn TEXT         on standard error, which is in the log also where the output is a stream
    await NAME        until there is a file of this name in the folder that a container sees as OUT
    break             the container ends with 1, before the build does: no exit record
    engine-fault      the engine loses the container: who waits for it hears that the engine is down
"""

import contextlib
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from node.core.plan import (
    NEVER_RAN,
    OUT,
    Plan,
    PlannedCommand,
    Step,
    format_exit,
    format_progress,
)
from node.engines.base import ContainerSpec, Exit
from node.engines.results import RESULT, Results

_LINE = re.compile(
    r"(sleep) +([0-9]{1,9}(?:\.[0-9]*)?)\s*"
    r"|(bytes|artifact|exit) +([0-9]{1,15})\s*"
    r"|(file) +(/[^ ]*) +([0-9]{1,15})\s*"
    r"|(await) +([A-Za-z0-9]+)\s*"
    r"|(hang|break|engine-fault)\s*"
    r"|(print|warn)(?: (.*))?"
)
_LOOK = 0.01  # seconds between looks for what is awaited
_PIPE_CLOSED = 141  # how a command ends whose reader is gone
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
        folders: Mapping[str, Path],
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
        self._results = Results(plan, folders, self._pause)
        self._out = folders[OUT]
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
        if self._plan.paths:
            self._step(self._find_files)
        self._put("exit", format_exit(RESULT if self._results.found else None))

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
            with self._streaming():
                for line in command.text.decode("utf-8", "replace").splitlines():
                    self._line(line)
        except _Exited as exited:
            return exited.code
        except BrokenPipeError:
            return _PIPE_CLOSED
        return 0

    def _streaming(self) -> contextlib.AbstractContextManager[None]:
        """Where this is the last command, and the plan says so, its output is the result."""
        if self._plan.stream and len(self._steps) == len(self._plan.commands):
            return self._results.streaming()
        return contextlib.nullcontext()

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
            case ["await", name]:
                while not (self._out / name).exists():
                    self._pause(_LOOK)
            case ["print", *text]:
                self._output("".join(text).encode() + b"\n")
            case ["warn", *text]:
                self._log_output("".join(text).encode() + b"\n")
            case ["exit", code]:
                raise _Exited(int(code) & 255)
            case other:
                self._make(other)

    def _make(self, words: list[str]) -> None:
        match words:
            case ["bytes", count]:
                for piece in self._results.pieces(int(count)):
                    self._output(piece)
            case ["file", path, count]:
                self._results.file(path, int(count))
            case ["artifact", count]:
                self._results.image(int(count))

    def _find_result(self) -> int:
        self._say(f"the image is /toiso/{RESULT}, {self._results.find_image()} bytes")
        return 0

    def _find_files(self) -> int:
        missing = self._results.find_files(self._put)
        for path in missing:
            self._say(f"no regular file matches {path}")
        return 1 if missing else 0

    def _output(self, data: bytes) -> None:
        """To the stream, or to the log."""
        if not self._results.write(data):
            self._log_output(data)

    def _log_output(self, data: bytes) -> None:
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

"""Processes of a test: what they print is kept with the moment it was read, they are always
ended and reaped, and what they said is shown where a test fails.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Container, Mapping, Sequence
from typing import IO

from msgspec import Struct

from tests import leaks

_END = 10.0
"""Seconds that a process has to end after SIGTERM."""
_SHOWN = 60
"""Lines of a process shown where a test fails."""


class Line(Struct, frozen=True):
    """Something that a process printed."""

    at: float  # monotonic seconds
    text: str


class Process:
    """A child process. `ends`: the exit status it must have after SIGTERM; None: any."""

    def __init__(
        self,
        title: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        without: Container[str] = (),
        ends: int | None = 0,
    ) -> None:
        """`environment`: variables beside this process's; `without`: not passed on."""
        self.title = title
        self._ends = ends
        self._lines: list[Line] = []
        self._more = threading.Condition()
        self._open = 2  # pipes that are not at their end
        self._asked_to_end = False
        self._reaped = False
        self.started = time.monotonic()
        self._child = subprocess.Popen(
            arguments,
            env={
                **{name: value for name, value in os.environ.items() if name not in without},
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,), name=title, daemon=True)
            for pipe in (self._child.stdout, self._child.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def line(self, pattern: str, seconds: float = 30.0) -> tuple[re.Match[str], float]:
        """The first line, of either output, that matches the whole pattern, and when it came."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._more:
            while True:
                for line in self._lines[seen:]:
                    if match := re.fullmatch(pattern, line.text):
                        return match, line.at
                seen = len(self._lines)
                left = deadline - time.monotonic()
                assert self._open, f"{self.title} ended and never said {pattern!r}\n{self.words()}"
                assert left > 0, f"{self.title} did not say {pattern!r} in time\n{self.words()}"
                self._more.wait(left)

    def words(self) -> str:
        """The end of what it printed."""
        return "\n".join(f"    {line.text}" for line in self._lines[-_SHOWN:])

    def ask_to_end(self) -> float:
        """SIGTERM; the moment of it."""
        self._asked_to_end = True
        self._child.terminate()
        self._child.send_signal(signal.SIGCONT)  # one that is stopped hears it too
        return time.monotonic()

    def stop(self) -> float:
        """SIGSTOP; the moment of it."""
        self._child.send_signal(signal.SIGSTOP)
        return time.monotonic()

    def cont(self) -> float:
        """SIGCONT; the moment of it."""
        self._child.send_signal(signal.SIGCONT)
        return time.monotonic()

    def ended(self, code: int, seconds: float = _END) -> float:
        """Wait for its end, with this exit status; the moment of it."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.title} did not end\n{self.words()}") from None
        at = time.monotonic()
        self._ends = code
        self.end()
        return at

    def kill(self) -> float:
        """SIGKILL; the moment of it."""
        at = time.monotonic()
        self._child.kill()
        self._ends = None
        self._reap(_END)
        return at

    def end(self) -> None:
        """SIGTERM, unless it ended already; it must end in time and well. May be called twice."""
        if self._reaped:
            return
        if not self._asked_to_end and self._child.poll() is None:
            self.ask_to_end()
        try:
            self._reap(_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._reap(_END)
            raise AssertionError(f"{self.title} did not end\n{self.words()}") from None
        finally:
            print(f"--- {self.title}: exit status {self._child.returncode}\n{self.words()}")
        code, complaints = self._child.returncode, self._complaints()
        assert self._ends in (None, code), f"{self.title} ended with {code}\n{self.words()}"
        assert not complaints, f"{self.title} complained: {complaints}\n{self.words()}"

    def _complaints(self) -> list[str]:
        """Lines that a program of ours prints for bugs only."""
        bug = re.compile(r"Traceback|Unclosed|never awaited|was never retrieved|.* ERROR ")
        return [line.text for line in self._lines if bug.match(line.text)]

    def _reap(self, seconds: float) -> None:
        self._child.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        self._reaped = True

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for text in pipe:
                self._note(Line(time.monotonic(), text.rstrip("\n")))
        with self._more:
            self._open -= 1
            self._more.notify_all()

    def _note(self, line: Line) -> None:
        leaks.wrote(line.text, self.title)
        with self._more:
            self._lines.append(line)
            self._more.notify_all()

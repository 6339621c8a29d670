"""The command line as people run it: a process of its own, in a pipe or on a terminal."""

import asyncio
import contextlib
import os
import re
import signal
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests import leaks

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "imagepool")
_LIMIT = 60.0  # seconds that a command may take
_OURS = ("IMAGEPOOL_", "NO_COLOR", "BASE_IMAGE")


class Ran(Struct, frozen=True):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return msgspec.json.decode(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output as a JSON document in each line."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


async def imagepool(*arguments: str, url: str = "", stdin: bytes = b"", **how: Any) -> Ran:
    """Run a command in a pipe. `how`: `cwd`, and `environment` beside a clean one."""
    async with started(*arguments, url=url, **how) as process:
        async with asyncio.timeout(_LIMIT):
            out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *arguments: str,
    url: str = "",
    environment: Mapping[str, str] = {},
    cwd: Path | None = None,
    **streams: Any,
) -> AsyncIterator[Process]:
    """A command that runs, and is ended with the context."""
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *arguments),
        env=clean({**({"IMAGEPOOL_URL": url} if url else {}), **environment}),
        cwd=cwd,
        # Whoever runs the tests in the background may have had it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **streams},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def clean(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would be a setting, and with more."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "PYTHONPATH": leaks.python_path(ROOT), **more}


class Terminal:
    """What is seen on a pseudo-terminal: bytes, as they come."""

    def __init__(self, process: Process, master: int) -> None:
        self.process = process
        self.seen = b""
        self._master = master

    async def until(self, pattern: str) -> None:
        """Wait until this was printed."""
        async with asyncio.timeout(_LIMIT):
            while not re.search(pattern.encode(), self.seen):
                assert await self._more(), f"it ended before {pattern!r}: {self.seen!r}"

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        async with asyncio.timeout(_LIMIT):
            while await self._more():
                pass
            return await self.process.wait()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    async def _more(self) -> bool:
        piece = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            piece = await asyncio.to_thread(os.read, self._master, 1 << 16)
        self.seen += piece
        return bool(piece)


@asynccontextmanager
async def on_a_terminal(
    *arguments: str, url: str = "", columns: int = 80, **how: Any
) -> AsyncIterator[Terminal]:
    """A command whose input and outputs are a terminal so wide."""
    master, slave = os.openpty()
    try:
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        how["environment"] = {"TERM": "xterm-256color", **how.get("environment", {})}
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        async with started(*arguments, url=url, **how, **streams) as process:
            os.close(slave)
            slave = -1
            terminal = Terminal(process, master)
            yield terminal
            leaks.wrote(terminal.seen, " ".join(arguments[:1]))
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)

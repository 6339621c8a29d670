"""The served log of an attempt: the node's own file, outside every mount, appended by one thread
and read by many.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from protocol.errors import NotFound
from protocol.service import OpenLog
from protocol.watch import Watch

_PIECE = 256 << 10


class ServedLog:
    """One attempt's log. `append` may be called from any thread; all else from the event loop."""

    def __init__(self, path: Path, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.attempt = attempt
        self.ended = False
        self._grown = Watch()
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> None:
        """Add bytes and wake the readers."""
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]
        self._loop.call_soon_threadsafe(self._grown.touch)

    def say(self, line: str) -> None:
        """A line of the node's own. Raises OSError."""
        self.append(_own(line))

    def say_last(self, line: str) -> None:
        """The last line, once: a node that was killed behind it says it again. On a full disk it is
        not said.
        """
        words = _own(line)
        with contextlib.suppress(OSError):
            if self.read(max(0, self.size - len(words)), len(words)) != words:
                self.append(words)

    def end(self) -> None:
        """No more comes; readers that follow finish. The file is opened anew for each later
        read.
        """
        self.ended = True
        os.close(self._descriptor)
        self._grown.touch()

    def read(self, offset: int, limit: int) -> bytes:
        """Bytes from an offset; empty at the end. Raises NotFound where the log is not kept any
        more.
        """
        if not self.ended:
            return os.pread(self._descriptor, limit, offset)
        try:
            with self.path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), limit, offset)
        except OSError as error:
            raise NotFound("the log is not kept any more", field="id") from error

    async def growth(self, beyond: int) -> None:
        """Wait until the log is longer than that, or ended."""
        while self.size <= beyond and not self.ended:
            await self._grown.wait(self._grown.count, None)

    def open(self, offset: int, limit: int | None, follow: bool) -> OpenLog:
        """A reader from an offset."""
        start = min(offset, self.size)
        return OpenLog(self.attempt, start, LogStream(self, start, limit, follow))


def ended_log(path: Path, attempt: int) -> ServedLog:
    """The log of an attempt that ended in an earlier life of the node."""
    served = ServedLog(path, attempt)
    served.end()
    return served


def _own(line: str) -> bytes:
    return f"[imagepool: {line}]\n".encode("utf-8", "replace")


class LogStream:
    """One reader's way through a log."""

    def __init__(self, log: ServedLog, start: int, limit: int | None, follow: bool) -> None:
        self._log = log
        self._offset = start
        end = log.size if not follow else None
        self._end = (
            end if limit is None else min(start + limit, end if end is not None else 1 << 62)
        )
        self._follow = follow
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._closed and (self._end is None or self._offset < self._end):
            room = _PIECE if self._end is None else min(_PIECE, self._end - self._offset)
            if data := self._log.read(self._offset, room):
                self._offset += len(data)
                yield data
            elif not self._follow or self._log.ended:
                return
            else:
                await self._log.growth(self._offset)

    async def close(self) -> None:
        """Stop reading."""
        self._closed = True

"""The served log of an attempt: the node's own file, outside every mount, appended by one thread
and read by many. What a reader is far behind with the system sends him; the rest is read.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from node.core.masking import Mask
from protocol.concurrency.watch import Watch
from protocol.errors import NotFound, Unavailable
from protocol.ports.service import OpenLog
from protocol.transfer.splice import SMALLEST, Source

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
        self._mask = Mask(())

    def hide(self, mask: Mask) -> None:
        """What the node itself says here from now on is without these secrets; what is appended is
        its appender's matter.
        """
        self._mask = mask

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
        self.append(_own(self._mask.text(line)))

    def say_last(self, line: str) -> None:
        """The last line, once: a node that was killed behind it says it again. On a full disk it is
        not said.
        """
        words = _own(self._mask.text(line))
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
        descriptor = self.duplicate()
        try:
            return os.pread(descriptor, limit, offset)
        finally:
            os.close(descriptor)

    def duplicate(self) -> int:
        """A descriptor to read from, which the caller closes. Raises NotFound as `read` does."""
        if not self.ended:
            return os.dup(self._descriptor)
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound("the log is not kept any more", field="id") from error

    async def growth(self, beyond: int) -> None:
        """Wait until the log is longer than that, or ended."""
        while self.size <= beyond and not self.ended:
            await self._grown.wait(self._grown.count, None)

    def open(self, offset: int, limit: int | None, follow: bool) -> OpenLog:
        """A reader from an offset. Raises NotFound where the log is not kept any more."""
        os.close(self.duplicate())
        start = min(offset, self.size)
        end = None if follow and not self.ended else self.size
        if limit is not None:
            end = start + limit if end is None else min(start + limit, end)
        length = None if follow and not self.ended else (end or 0) - start
        return OpenLog(self.attempt, start, LogStream(self, start, end), length)


def ended_log(path: Path, attempt: int) -> ServedLog:
    """The log of an attempt that ended in an earlier life of the node."""
    served = ServedLog(path, attempt)
    served.end()
    return served


def _own(line: str) -> bytes:
    return f"[imagepool: {line}]\n".encode("utf-8", "replace")


class LogStream:
    """One reader's way through a log, to `end`, or to wherever the log ends."""

    def __init__(self, log: ServedLog, start: int, end: int | None) -> None:
        self._log = log
        self._offset = start
        self._end = end
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while length := await self._length():
            yield self._piece(length)

    async def parts(self) -> AsyncIterator[bytes | Source]:
        """See PartedStream."""
        while length := await self._length():
            yield self._piece(length) if length < SMALLEST else self._source(length)

    async def _length(self) -> int:
        """Bytes that are there for this reader, as soon as there are some; 0: that was all."""
        while not self._closed and self._offset != self._end:
            ended, size = self._log.ended, self._log.size
            end = size if self._end is None else min(size, self._end)
            if end > self._offset or ended:
                return max(0, end - self._offset)
            await self._log.growth(self._offset)
        return 0

    def _piece(self, length: int) -> bytes:
        try:
            data = self._log.read(self._offset, min(length, _PIECE))
        except NotFound as error:
            raise Unavailable(error.detail) from error
        if not data:
            raise Unavailable("the log is shorter than it was")
        self._offset += len(data)
        return data

    def _source(self, length: int) -> Source:
        try:
            source = Source(b"", self._log.duplicate(), self._offset, length)
        except NotFound as error:
            raise Unavailable(error.detail) from error
        self._offset += length
        return source

    async def close(self) -> None:
        """Stop reading."""
        self._closed = True

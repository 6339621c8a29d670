"""Byte streams that need little behind them - nothing, a file, another stream - and those that come
in parts of two kinds.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from msgspec.structs import replace

from protocol.errors import Unavailable
from protocol.ports.service import ByteStream, OpenLog
from protocol.transfer.check import Check
from protocol.transfer.splice import SMALLEST, DirectStream, Source

_PIECE = 1 << 20


@runtime_checkable
class PartedStream(Protocol):
    """A `ByteStream` of which some parts need not be read: `protocol/api/parts.py` lets the system
    move them. Either its parts are taken or its pieces, not both.
    """

    def parts(self) -> AsyncIterator[bytes | Source]:
        """The parts, in order; each is done with before the next is asked for. Raises Unavailable
        where the source breaks off before its end.
        """


class NoBytes:
    """A stream that is over before it begins."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        nothing: tuple[bytes, ...] = ()
        for piece in nothing:
            yield piece

    async def close(self) -> None:
        """Nothing to let go of."""


class FileStream:
    """A range of a file, piece by piece, read in a thread."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor = descriptor
        self._offset = start
        self._end = end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._offset < self._end:
            room = min(_PIECE, self._end - self._offset)
            data = await asyncio.to_thread(os.pread, self._descriptor, room, self._offset)
            if not data:
                raise Unavailable("the file is shorter than it was")
            self._offset += len(data)
            yield data

    def direct(self) -> Source | None:
        """The range itself, to be sent by the system."""
        length = self._end - self._offset
        if length < SMALLEST:
            return None
        return Source(b"", os.dup(self._descriptor), self._offset, length)

    async def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class CheckedStream:
    """The whole of what has marks, from where it might have been changed on its way: Unavailable in
    place of the first block that was.
    """

    def __init__(self, stream: ByteStream, check: Check) -> None:
        self._stream = stream
        self._check = check

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            if right := self._check.take(piece):
                yield right

    def direct(self) -> Source | None:
        """What is here of it, as far as it is right, and the rest, which will be looked at."""
        source = self._stream.direct() if isinstance(self._stream, DirectStream) else None
        if source is None:
            return None
        try:
            ahead = self._check.take(source.ahead)
        except Unavailable:
            source.close()
            raise
        return replace(source, ahead=ahead, check=self._check)

    async def close(self) -> None:
        """Let go of the source."""
        await self._stream.close()


class Slice:
    """The bytes `start` to `end` of a stream that must have `size` bytes."""

    def __init__(self, stream: ByteStream, start: int, end: int, size: int) -> None:
        self._stream = stream
        self._start = start
        self._end = end
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = 0
        async for piece in self._stream:
            wanted = piece[max(0, self._start - position) : max(0, self._end - position)]
            position += len(piece)
            if wanted:
                yield wanted
            if position >= self._end < self._size:
                return
            if position > self._size:
                break
        if position != self._size:
            raise Unavailable(f"the source has {position} bytes, and had {self._size}")

    async def close(self) -> None:
        """Let go of the source."""
        await self._stream.close()


def no_log(attempt: int) -> OpenLog:
    """The log of an attempt that has not begun."""
    return OpenLog(attempt, 0, NoBytes(), 0)

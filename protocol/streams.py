"""Byte streams that need nothing behind them, and those that come in parts of two kinds."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from protocol.service import OpenLog
from protocol.splice import Source


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


def no_log(attempt: int) -> OpenLog:
    """The log of an attempt that has not begun."""
    return OpenLog(attempt, 0, NoBytes(), 0)

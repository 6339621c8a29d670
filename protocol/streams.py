"""Byte streams that need nothing behind them."""

from collections.abc import AsyncIterator

from protocol.service import OpenLog


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
    return OpenLog(attempt, 0, NoBytes())

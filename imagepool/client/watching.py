"""A build and its log at the same time, as one sequence of events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from imagepool.client.events import Changed, Event, LogPiece
from protocol.model.build import Build, State

_AHEAD = 16
"""Events that may wait for who watches; then the log is not read on."""
_HOLD = 30.0
"""Seconds that a question may be held while nothing changes."""


async def events(
    build: Build,
    getting: Callable[[int | None, float], Awaitable[Build]],
    log: AsyncGenerator[LogPiece, None],
    stopped: Callable[[], None],
) -> AsyncGenerator[Event, None]:
    """What happens, until the build has stopped and its log was read: the last event is the
    stopped build. Where the log's end cannot be had, that is raised behind it.

    `stopped` is called when the build has stopped and its log goes on.
    """
    queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue(_AHEAD)
    latest = build

    async def changes() -> None:
        nonlocal latest
        while latest.state is not State.STOPPED:
            await queue.put(Changed(latest))
            latest = await getting(latest.revision, _HOLD)
        stopped()

    async def pieces() -> None:
        async with aclosing(log) as reading:
            async for piece in reading:
                await queue.put(piece)

    feeding = [asyncio.create_task(_ended(work(), queue)) for work in (changes, pieces)]
    error: Exception | None = None
    try:
        left = len(feeding)
        while left:
            event = await queue.get()
            if isinstance(event, Changed | LogPiece):
                yield event
                continue
            left -= 1
            error = error or event
            if error is not None and latest.state is not State.STOPPED:
                raise error
        yield Changed(latest)
        if error is not None:
            raise error
    finally:
        for feeder in feeding:
            feeder.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)


async def _ended(work: Awaitable[None], queue: "asyncio.Queue[Event | Exception | None]") -> None:
    """Do the work, and say how it went when it is over."""
    try:
        await work
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)

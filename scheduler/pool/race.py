"""Asking the same at several addresses, of which nobody knows which one is in reach."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def first_answer(
    asks: Sequence[Callable[[], Awaitable[T]]], head_start: float
) -> tuple[int, T]:
    """Which of them answered first, and what. Each is asked `head_start` seconds after the one
    before, or as soon as all before have failed; whoever is late is cancelled. Where all fail, what
    the first one raised is raised.
    """
    asking: list[asyncio.Future[T]] = []
    try:
        for ask in asks:
            asking.append(asyncio.ensure_future(ask()))
            patience = None if len(asking) == len(asks) else head_start
            while running := [one for one in asking if not one.done()]:
                done, _ = await asyncio.wait(
                    running, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                for one in done:
                    if one.exception() is None:
                        return asking.index(one), one.result()
                if not done:
                    break
        return 0, asking[0].result()
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

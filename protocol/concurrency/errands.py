"""Work that is begun and not waited for: what fails is logged, and done again by whoever finds that
it was not done.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from protocol.errors import PoolError

log = logging.getLogger(__name__)


class Errands:
    """For use on one event loop."""

    def __init__(self, complaint: str) -> None:
        """`complaint`: the words before the reason, where one could not be done."""
        self._complaint = complaint
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin it; a function, so that what is ended before it began leaves nothing behind."""
        task = asyncio.create_task(self._done(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for all of them."""
        await asyncio.gather(*self._tasks)

    async def cancel(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _done(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except PoolError as error:
            log.info("%s: %s", self._complaint, error.detail)

"""How a build is ended from outside - by its user, a time limit, or the node - wherever it is: what
is awaited is given up, what blocks in a thread is interrupted.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from node.engines.errors import Interrupt
from node.records import Stop
from protocol.model.lifecycle import Event

T = TypeVar("T")

LET_GO = 30.0
"""Seconds that something may take to end when it is told to."""


class Stopped(Exception):
    """The build is ended from outside."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.cause)
        self.stop = stop


class Stopping:
    """Of one attempt. Made and used on the event loop, but for `interrupt`."""

    def __init__(self) -> None:
        self.interrupt = Interrupt()  # whatever takes long in a thread is to give up
        self._stop: asyncio.Future[Stopped] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        """Whether it is ended."""
        return self._stop.done()

    def stop(self, event: Event, cause: str) -> None:
        """End it; the first reason counts."""
        if not self._stop.done():
            self._stop.set_result(Stopped(Stop(event, cause)))
            self.interrupt.set()

    def check(self) -> None:
        """Raises Stopped where it is ended."""
        if self._stop.done():
            raise self._stop.result()

    async def unless(self, work: Awaitable[T]) -> T:
        """The work's value. Raises Stopped as soon as the build is ended and the work has given
        up.
        """
        task = asyncio.ensure_future(work)
        task.add_done_callback(heeded)
        either: set[asyncio.Future[Any]] = {task, self._stop}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the node leaves
            await _given_up(task)
            raise
        if self._stop.done():
            await _given_up(task)
            raise self._stop.result()
        return task.result()


async def _given_up(task: "asyncio.Future[Any]") -> None:
    """Cancel it, and wait until it has let go of what it does."""
    task.cancel()
    await asyncio.wait({task}, timeout=LET_GO)


def heeded(task: "asyncio.Future[Any]") -> None:
    """Somebody looked at how this ended, so that no complaint is logged."""
    if not task.cancelled():
        task.exception()

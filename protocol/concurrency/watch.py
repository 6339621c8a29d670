"""Waiting for a change without polling: a counter, and everybody who waits for it to move."""

import asyncio


class Watch:
    """A counter that grows with each change; waiters are woken at once. For use on one event
    loop.
    """

    def __init__(self, *sources: "Watch") -> None:
        """`sources`: watches whose changes are changes of this one too."""
        self.count = 0
        self._followers: list[Watch] = []
        for source in sources:
            source._followers.append(self)
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiters

    def touch(self) -> None:
        """Something changed: wake everybody."""
        self.count += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for follower in self._followers:
            follower.touch()

    async def wait(self, seen: int, seconds: float | None) -> bool:
        """Wait while the counter is still `seen`; False where the time was over first."""
        if self.count != seen:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:  # not wait_for: in Python 3.11 it loses a cancellation that comes with the result
            done, _ = await asyncio.wait({waiter}, timeout=seconds)
        finally:
            self._waiters.discard(waiter)
        return bool(done)

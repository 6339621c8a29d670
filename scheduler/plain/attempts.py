"""What is kept of attempts on plain nodes: in memory for reading, in the store for good."""

from functools import partial

from protocol.concurrency.errands import Errands
from scheduler.core.plain import PlainAttempt
from scheduler.stores.base import Store


class PlainAttempts:
    """Every attempt that a plain node was given, by build and number. For use on the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = {attempt.key: attempt for attempt in store.plain_attempts()}
        self._errands = Errands("an attempt on a plain node was not written down")

    def on(self, node: str) -> tuple[PlainAttempt, ...]:
        """Those of this node, in the order in which they were given."""
        return tuple(attempt for attempt in self._kept.values() if attempt.node == node)

    def get(self, key: tuple[str, int]) -> PlainAttempt | None:
        """The newest value; None: it is not kept any more."""
        return self._kept.get(key)

    def of(self, build: str, number: int | None, node: str) -> PlainAttempt | None:
        """The attempt of that number that the node has of the build; None: the newest one."""
        found = [
            attempt
            for attempt in self.on(node)
            if attempt.build == build and number in (None, attempt.attempt)
        ]
        return max(found, key=lambda attempt: attempt.attempt, default=None)

    async def add(self, attempt: PlainAttempt) -> None:
        """A new one; it is on disk when this returns. Raises Unavailable: then it is not kept."""
        await self._store.put_plain(attempt)
        self._kept[attempt.key] = attempt

    def put(self, attempt: PlainAttempt) -> PlainAttempt:
        """What is known of one that is kept, from now on; it is written as soon as may be."""
        if attempt.key in self._kept:
            self._kept[attempt.key] = attempt
            self._errands.do(partial(self._store.put_plain, attempt))
        return attempt

    def forget(self, attempt: PlainAttempt) -> None:
        """Drop it."""
        if self._kept.pop(attempt.key, None) is not None:
            self._errands.do(partial(self._store.forget_plain, attempt.key))

    def forget_build(self, build: str) -> None:
        """Drop all of a build that the store has forgotten."""
        for attempt in tuple(self._kept.values()):
            if attempt.build == build:
                self.forget(attempt)

    async def close(self) -> None:
        """Let what is being written be written."""
        await self._errands.finish()

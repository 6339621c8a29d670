"""What the scheduler asks of a store: its builds and the nodes that it knows, kept for good.

To add a store: a module beside this one, a line in `scheduler/stores/__init__.py`, a line in
`tests/scheduler/test_stores.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from protocol.errors import Conflict
from protocol.model.record import Record
from scheduler.core.known import KnownNode
from scheduler.core.plain import PlainAttempt


class Stale(Conflict):
    """Another one wrote this build meanwhile: read it again."""

    def __init__(self, build_id: str) -> None:
        super().__init__(f"build {build_id} was written by another, or is gone", field="revision")
        self.build_id = build_id


class Store(Protocol):
    """Builds and nodes. What a coroutine did is on disk when it returns; each raises Unavailable
    where the store cannot be written, and then did nothing. `records`, `nodes` and `plain_attempts`
    are blocking, for the start.
    """

    id: str
    """Random; made with the store. A copy that was restored has another."""
    fresh: bool
    """It was made, or restored from a copy, and nobody has said `settle` since: nodes may know more
    than it does.
    """

    def records(self) -> Iterable[Record]:
        """Every build, oldest first. Raises Conflict where the store is damaged."""
        ...

    async def put(self, records: Sequence[Record]) -> None:
        """Write all of these, or none. Each record's `revision` is the new one: the store must hold
        the one before it, or with revision 1 not hold the build at all. A build's request is
        written with revision 1 and never again.

        Raises Stale, or Invalid where a value cannot be written down.
        """
        ...

    async def forget(self, ids: Sequence[str]) -> None:
        """Drop these builds, and their attempts on plain nodes; those that are not there are no
        error.
        """
        ...

    def nodes(self) -> Iterable[KnownNode]:
        """Every node that is remembered. Raises Conflict where the store is damaged."""
        ...

    async def put_node(self, node: KnownNode) -> None:
        """Remember the node, in place of what was remembered of it."""
        ...

    async def forget_node(self, id: str) -> None:
        """Drop a node; one that is not there is no error."""
        ...

    def plain_attempts(self) -> Iterable[PlainAttempt]:
        """Every attempt on a plain node, in the order of their keys. Raises Conflict where the
        store is damaged.
        """
        ...

    async def put_plain(self, attempt: PlainAttempt) -> None:
        """Keep the attempt, in place of what was kept under its key."""
        ...

    async def forget_plain(self, key: tuple[str, int]) -> None:
        """Drop an attempt on a plain node; one that is not there is no error."""
        ...

    async def settle(self) -> None:
        """It knows what the nodes know: it is fresh no more, at the next opening neither."""
        ...

    async def check(self) -> None:
        """Write something of no consequence, to see whether that is possible. It takes as long as
        the disk does.
        """
        ...

    async def erase(self) -> None:
        """Nothing that was deleted or overwritten before can be found in any file, such as secrets
        of builds that have stopped; where another process reads it now, the next call sees to that.
        Raises Conflict where the store is damaged.
        """
        ...

    async def close(self) -> None:
        """Write what was given, and let go of the store."""
        ...

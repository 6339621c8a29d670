"""A store that keeps nothing: for tests, and to measure what keeping costs."""

import secrets
from collections.abc import Sequence

from protocol.errors import Unavailable
from protocol.model.record import Record
from scheduler.core.known import KnownNode
from scheduler.core.plain import PlainAttempt
from scheduler.stores.base import Stale


class MemoryStore:
    """A `Store` that is gone when the program ends."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.fresh = True
        self._records: dict[str, Record] = {}
        self._nodes: dict[str, KnownNode] = {}
        self._plain: dict[tuple[str, int], PlainAttempt] = {}
        self._closed = False

    def records(self) -> tuple[Record, ...]:
        """As `Store`."""
        return tuple(self._records[key] for key in sorted(self._records))

    async def put(self, records: Sequence[Record]) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        changed: dict[str, Record] = {}
        for record in records:
            key = record.build.id
            held = changed.get(key) or self._records.get(key)
            if record.revision != (held.revision + 1 if held is not None else 1):
                raise Stale(key)
            changed[key] = record
        self._records |= changed

    async def forget(self, ids: Sequence[str]) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        for key in ids:
            self._records.pop(key, None)
        self._plain = {key: one for key, one in self._plain.items() if one.build not in ids}

    def nodes(self) -> tuple[KnownNode, ...]:
        """As `Store`."""
        return tuple(self._nodes.values())

    async def put_node(self, node: KnownNode) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        self._nodes[node.id] = node

    async def forget_node(self, id: str) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        self._nodes.pop(id, None)

    def plain_attempts(self) -> tuple[PlainAttempt, ...]:
        """As `Store`."""
        return tuple(self._plain[key] for key in sorted(self._plain))

    async def put_plain(self, attempt: PlainAttempt) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        self._plain[attempt.key] = attempt

    async def forget_plain(self, key: tuple[str, int]) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        self._plain.pop(key, None)

    async def settle(self) -> None:
        """As `Store`."""
        self._refuse_when_closed()
        self.fresh = False

    async def check(self) -> None:
        """As `Store`."""
        self._refuse_when_closed()

    async def erase(self) -> None:
        """As `Store`."""
        self._refuse_when_closed()

    async def close(self) -> None:
        """As `Store`."""
        self._closed = True

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")

"""The nodes that the scheduler remembers over its restarts: where they were, and which are
cordoned.
"""

import time
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from protocol.concurrency.errands import Errands
from protocol.errors import NotFound, PoolError
from protocol.model.messages import Report
from scheduler.core.known import REVOKED, KnownNode
from scheduler.stores.base import Store

_TOLD = ("name", "role", "urls", "found", "seen", "kind")  # what it says itself, or is seen
_REFRESH = 600.0  # seconds after which it is written anew that a node still answers


class Known:
    """Every node that ever answered, by id, kept in the store.

    What is so is so here first. Whoever writes takes it from here when it is the write's turn: an
    older view never comes after a newer one, so that a node that says something else of itself at
    every moment does not undo what an admin says of it.
    """

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        """`changed` is called when a cordon was set or lifted."""
        self._store = store
        self._changed = changed
        self._nodes = {node.id: node for node in store.nodes()}
        self._errands = Errands("a node was not written down, which the next change does")

    def all(self) -> tuple[KnownNode, ...]:
        """Those that are remembered."""
        return tuple(self._nodes.values())

    def of(self, node: str) -> KnownNode | None:
        """What is remembered of the node of this id."""
        return self._nodes.get(node)

    def heard(self, report: Report, url: str, found: tuple[str, ...]) -> None:
        """A node answered there."""
        before = self._nodes.get(report.id)
        now = time.time()
        node = KnownNode(report.id, report.name, report.role, (url,), found, now, kind=report.kind)
        if before is not None:
            node = replace(before, **{name: getattr(node, name) for name in _TOLD})
        if before is None or replace(before, seen=now) != node or now - before.seen > _REFRESH:
            self._nodes[report.id] = node
            self._errands.do(partial(self._write, node.id))

    def left(self, node: str) -> None:
        """A node said goodbye: its address is of no use any more; an admin's word stays."""
        known = self._nodes.get(node)
        if known is not None and not known.kept:
            del self._nodes[node]
            self._errands.do(partial(self._write, node))
        elif known is not None and known.urls:
            self._nodes[node] = replace(known, urls=())
            self._errands.do(partial(self._write, node))

    async def cordon(self, name: str, reason: str | None) -> KnownNode:
        """Keep new builds from the node of this id or name, or with None allow them again; it is on
        disk when this returns. Raises NotFound, Unavailable.
        """
        return await self.change(name, cordoned=reason, draining=False)

    async def change(self, name: str, **fields: object) -> KnownNode:
        """An admin's word on the node of this id or name; it is on disk when this returns. Raises
        NotFound, Unavailable.
        """
        node = replace(self.named(name), **fields)
        await self.put(node)
        return node

    async def put(self, node: KnownNode) -> None:
        """Remember it like this; it is on disk when this returns. Raises Unavailable: then nothing
        of it is so.
        """
        before = self._nodes.get(node.id)
        self._nodes[node.id] = node
        try:
            await self._store.put_node(node)
        except PoolError:
            self._take_back(node.id, before)
            raise
        self._changed()

    def _take_back(self, node: str, before: KnownNode | None) -> None:
        """What was said could not be written; what was heard meanwhile stays."""
        if before is None:
            self._nodes.pop(node, None)
            return
        heard = {name: getattr(self._nodes.get(node, before), name) for name in _TOLD}
        self._nodes[node] = replace(before, **heard)

    async def forget(self, node: str) -> None:
        """Drop all that is remembered of the node of this id, but that it was put out of the pool:
        it may have a certificate still. Raises Unavailable.
        """
        known = self._nodes.get(node)
        if known is not None and known.admission == REVOKED:
            bare = KnownNode(node, known.name, known.role, (), (), known.seen)
            reason = known.admission_reason
            await self.put(replace(bare, admission=REVOKED, admission_reason=reason))
            return
        await self._store.forget_node(node)
        self._nodes.pop(node, None)
        self._changed()

    async def _write(self, node: str) -> None:
        """What is remembered of it when this begins."""
        known = self._nodes.get(node)
        if known is None:
            await self._store.forget_node(node)
        else:
            await self._store.put_node(known)

    def named(self, name: str) -> KnownNode:
        """The node of this id, or of this name where there is one of it: nodes call themselves what
        they like, also by another's id. Raises NotFound.
        """
        if name in self._nodes:
            return self._nodes[name]
        found = [node for node in self._nodes.values() if name == node.name]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFound(
                f"{len(found)} nodes are called {name[:64]!r}", field="node", expected="an id"
            )
        raise NotFound(f"there is no node {name[:64]!r}", field="node", expected="an id or name")

    async def close(self) -> None:
        """Let what is being written be written."""
        await self._errands.finish()

"""Attempts of builds: what our record of them becomes, and what that says of their nodes.

Decisions are in `scheduler/core/steps.py`.
"""

import logging
import time
from collections import defaultdict

from msgspec.structs import replace

from protocol.model.build import Build, NodeReference, Result, Stage
from protocol.model.messages import Forwarded
from scheduler.core import steps
from scheduler.ledger import Ledger
from scheduler.pool.poller import Pool

log = logging.getLogger(__name__)

_OWN = (Result.SUCCEEDED, Result.FAILED, Result.TIMED_OUT)
"""Results that say that the node did its part."""


class Attempts:
    """Changes records; never speaks to a node."""

    def __init__(self, pool: Pool, ledger: Ledger, limit: int) -> None:
        """`limit`: attempts of a build of our own, in all."""
        self.ledger = ledger
        self.in_vain: defaultdict[str, set[str]] = defaultdict(set)
        """Build -> nodes that lost an attempt of it by no fault of their own; also of one that has
        stopped: the scheduler above may place it here again.
        """
        self._pool = pool
        self._limit = limit

    def place(self, build: Build, node: NodeReference, priority: int) -> Build:
        """A node was chosen."""
        cause = f"{node.name} ({node.id}), priority {priority}"
        return self.ledger.put(steps.placed(build, node, time.time(), cause))

    def declined(self, build: Build, cause: str) -> None:
        """Its node certainly did not take it: back to the queue, the attempt is not used up."""
        now = self.ledger.get(build.id)
        self._changed(now, steps.declined(now, build.attempt, time.time(), cause))

    def failed(self, build: Build, cause: str) -> None:
        """Its node failed the attempt before it began: the next one, or the end."""
        if build.node is not None:
            self._node_failed(build, cause)
        self.given_up(build, cause)

    def given_up(self, build: Build, cause: str) -> None:
        """The attempt came to nothing by the pool's fault: the next one, or the end."""
        now = self.ledger.get(build.id)
        self._changed(
            now, steps.failed(now, build.attempt, time.time(), cause, self._limit_of(now))
        )

    def lost(self, build: Build, cause: str) -> None:
        """There can be no further attempt: the end."""
        now = self.ledger.get(build.id)
        self._changed(now, steps.failed(now, now.attempt, time.time(), cause, now.attempt))

    def refused(self, build: Build, cause: str) -> None:
        """No node can ever do it: the end."""
        now = self.ledger.get(build.id)
        self._changed(now, steps.refused(now, build.attempt, time.time(), cause))

    def cancelled(self, build: Build, cause: str) -> Build:
        """Our record of a build that is ended here."""
        self._changed(build, steps.cancelled(build, time.time(), cause))
        return self.ledger.get(build.id)

    def superseded(self, build: Build, cause: str) -> Build:
        """Our record of a build of which the scheduler above has begun another attempt."""
        self._changed(build, steps.superseded(build, time.time(), cause))
        return self.ledger.get(build.id)

    def follow(self, reported: Build, node: str, *, leaving: bool = False) -> None:
        """This node's word on an attempt of ours; one that is not the record's attempt, or not on
        the record's node, says nothing. `leaving`: it shuts down, and what it gives up for that
        says nothing of it.

        An attempt that came to nothing by no fault of the node is not held against it; the build
        goes elsewhere first, since the fault may be in the node's surroundings.
        """
        record = self.ledger.get(reported.id)
        if record.node is None or record.node.id != node:
            return
        news = steps.followed(record, reported, time.time(), self._limit_of(record))
        if self._changed(record, news) and reported.stage is Stage.STOPPED and record.node:
            if reported.result in _OWN:
                self._node_did_well(record.node.id)
            elif reported.result is Result.LOST and reported.excused:
                self.in_vain[record.id].add(record.node.id)
            elif reported.result is Result.LOST and not leaving:
                self._node_failed(record, reported.reason)

    def found_again(self, reported: Build, node: NodeReference) -> None:
        """An attempt of a build that waits, or a later one than we know of, is on that node."""
        record = self.ledger.get(reported.id)
        self._changed(record, steps.found_again(record, reported.attempt, node, time.time()))

    async def adopt(self, reported: Build, whole: Forwarded, node: NodeReference) -> None:
        """A build of ours that our store does not have. Raises Unavailable."""
        log.info("adopting %s from %s", reported.id, node.name, extra={"build": reported.id})
        await self.ledger.add(steps.adopted(reported, whole, node, time.time()))

    def forget(self, build: Build) -> None:
        """Nothing need be remembered of a build that has stopped."""
        self.in_vain.pop(build.id, None)

    def _limit_of(self, build: Build) -> int:
        """Attempts of the build, in all. Of one that a scheduler above gave us this attempt is its
        attempt: that scheduler makes the next one, here or elsewhere, and its viewers hear of it.
        """
        return self._limit if self.ledger.forward_of(build.id) is None else build.attempt

    def _changed(self, before: Build, after: Build) -> bool:
        if _shown(after) == _shown(before):
            return False
        self.ledger.put(after)
        return True

    def _node_failed(self, build: Build, cause: str) -> None:
        self._pool.held_back.failed(build, cause)
        self._pool.changed.touch()

    def _node_did_well(self, node: str) -> None:
        if self._pool.held_back.did_well(node):
            self._pool.changed.touch()


def _shown(build: Build) -> Build:
    return replace(build, revision=0)

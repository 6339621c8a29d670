"""Attempts of builds: what our record of them becomes, and what that says of their nodes.

Decisions are in `scheduler/core/steps.py` and `scheduler/core/quarantine.py`.
"""

import logging
import time

from msgspec.structs import replace

from protocol.lifecycle import Event
from protocol.messages import Forwarded
from protocol.model import Build, NodeReference, Result, Stage
from scheduler.core import steps
from scheduler.core.quarantine import Health, Rule, after_failure, after_success
from scheduler.ledger import Ledger
from scheduler.poller import Pool

log = logging.getLogger(__name__)

_OWN = (Result.SUCCEEDED, Result.FAILED, Result.TIMED_OUT)
"""Results that say that the node did its part."""


class Attempts:
    """Changes records; never speaks to a node."""

    def __init__(self, pool: Pool, ledger: Ledger, limit: int, rule: Rule) -> None:
        """`limit`: attempts of a build, in all."""
        self.ledger = ledger
        self._pool = pool
        self._limit = limit
        self._rule = rule

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
        self._changed(now, steps.failed(now, build.attempt, time.time(), cause, self._limit))

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
        """
        record = self.ledger.get(reported.id)
        if record.node is None or record.node.id != node:
            return
        news = steps.followed(record, reported, time.time(), self._limit)
        if self._changed(record, news) and reported.stage is Stage.STOPPED and record.node:
            if reported.result in _OWN:
                self._node_did_well(record.node.id)
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

    def _changed(self, before: Build, after: Build) -> bool:
        if _shown(after) == _shown(before):
            return False
        self.ledger.put(after)
        return True

    def _node_failed(self, build: Build, cause: str) -> None:
        assert build.node is not None
        node, now = build.node.id, time.monotonic()
        places = [step.at for step in build.history if step.event == Event.PLACE.value]
        placed = now - (time.time() - places[-1]) if places else None
        before = self._pool.health.get(node, Health())
        self._pool.health[node] = after_failure(before, now, cause, self._rule, placed)
        self._pool.changed.touch()

    def _node_did_well(self, node: str) -> None:
        if node in self._pool.health:
            self._pool.health[node] = after_success(self._pool.health[node])
            self._pool.changed.touch()


def _shown(build: Build) -> Build:
    return replace(build, revision=0)

"""The roster as people see it, and registration: what page and API show of the pool beyond
builds.
"""

import logging
import time

from protocol.messages import Registration, Roster, RosterEntry
from protocol.model import State
from scheduler.core.roster import Entry, Standing
from scheduler.discovery import Discovery
from scheduler.dispatch import Dispatcher

log = logging.getLogger(__name__)


class Listing:
    """The port through which the web page and the API see the pool."""

    def __init__(self, name: str, dispatcher: Dispatcher, discovery: Discovery) -> None:
        self._name = name
        self._dispatcher = dispatcher
        self._discovery = discovery

    def roster(self) -> Roster:
        """Every node, the favoured ones first, then what never answered."""
        entries = [self._entry(entry) for entry in self._dispatcher.pool.entries()]
        entries.sort(key=lambda e: (e.priority is None, -(e.priority or 0), e.name, e.url))
        running = sum(1 for build in self._dispatcher.ledger.board if build.state is State.RUNNING)
        return Roster(self._name, tuple(entries), self._dispatcher.ledger.waiting, running)

    def register(self, registration: Registration) -> None:
        """A node makes itself known. Raises Invalid."""
        self._discovery.register(registration)

    async def cordon(self, node: str, reason: str | None) -> None:
        """Keep new builds from a node; None: allow them again. Raises NotFound, Unavailable."""
        known = await self._dispatcher.pool.known.cordon(node, reason)
        words = "uncordoned" if reason is None else f"cordoned: {reason}"
        log.info("%s (%s) is %s", known.name, known.id, words, extra={"node": known.id})

    def _entry(self, entry: Entry) -> RosterEntry:
        standing = self._dispatcher.pool.standing(entry)
        report = entry.report
        if report is None:
            return self._unheard(entry, standing)
        failing = entry.error and standing.state in ("ready", "busy")
        return RosterEntry(
            url=entry.url,
            found=entry.found,
            state=standing.state,
            reason=f"the last poll failed: {entry.error}" if failing else standing.reason,
            id=report.id,
            name=report.name,
            role=report.role,
            version=report.version,
            architecture=report.architecture,
            stated_priority=report.priority,
            priority=self._dispatcher.priority(report),
            slots=report.slots,
            used=report.used,
            builds=tuple(sorted(self._dispatcher.ledger.on_node(report.id))),
            labels=report.labels,
            images=report.images,
            last_seen=time.monotonic() - (entry.answered or 0.0),
            latency=entry.latency,
            clock=entry.clock,
            kind=report.kind,
            lacks=report.lacks,
        )

    def _unheard(self, entry: Entry, standing: Standing) -> RosterEntry:
        """A node that has not answered since we started: what is remembered of it."""
        known = self._dispatcher.pool.known.of(entry.program)
        return RosterEntry(
            url=entry.url,
            found=entry.found,
            state=standing.state,
            reason=standing.reason,
            id=entry.program,
            name=known.name if known is not None else "",
            role=known.role if known is not None else "",
            builds=tuple(sorted(self._dispatcher.ledger.on_node(entry.program))),
            kind=known.kind if known is not None else "",
        )

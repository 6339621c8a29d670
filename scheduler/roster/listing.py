"""The roster as people see it, and registration: what page and API show of the pool beyond
builds.
"""

import logging
import time

from protocol.errors import Conflict, NotFound
from protocol.model.build import State
from protocol.model.messages import LabelsWord, PriorityWord, Registration, Roster, RosterEntry
from scheduler.core.known import KnownNode
from scheduler.core.roster import Entry, Standing
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.pool.discovery import Discovery

log = logging.getLogger(__name__)

_AWAY = ("silent", "lost", "unanswered")


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

    def register(self, registration: Registration, member: str = "") -> None:
        """A node makes itself known. Raises Invalid, Denied."""
        self._discovery.register(registration, member)

    async def cordon(self, node: str, reason: str | None) -> None:
        """Keep new builds from a node; None: allow them again. Raises NotFound, Unavailable."""
        known = await self._dispatcher.pool.known.cordon(node, reason)
        _log_word(known, "uncordoned" if reason is None else f"cordoned: {reason}")

    def node(self, name: str) -> RosterEntry:
        """The node of this id, or of this name where there is one of it. Raises NotFound."""
        found = [entry for entry in self.roster().nodes if name in (entry.id, entry.name)]
        found = [entry for entry in found if entry.id == name] or found
        if len(found) == 1:
            return found[0]
        raise NotFound(
            f"{len(found)} nodes are called {name[:64]!r}" if found else f"no node {name[:64]!r}",
            field="node",
            expected="an id" if found else "an id or name on the roster",
        )

    async def drain(self, node: str, reason: str) -> None:
        """Cordon it, to be empty. Raises NotFound, Unavailable."""
        known = await self._dispatcher.pool.known.change(node, cordoned=reason, draining=True)
        _log_word(known, f"to be drained: {reason}")

    async def set_priority(self, node: str, word: PriorityWord | None) -> None:
        """The admin's word on its priority; None: its own counts. Raises NotFound, Unavailable."""
        word = word or PriorityWord()
        known = await self._dispatcher.pool.known.change(
            node, priority=word.priority, priority_cap=word.cap
        )
        _log_word(known, f"of priority {word.priority}, capped at {word.cap}")

    async def set_labels(self, node: str, word: LabelsWord | None) -> None:
        """The admin's labels; None: its own count alone. Raises NotFound, Unavailable."""
        word = word or LabelsWord()
        known = await self._dispatcher.pool.known.change(
            node, labels=tuple(sorted({*word.labels})), own_labels=not word.replace
        )
        _log_word(known, f"labelled {', '.join(word.labels) or 'by itself'}")

    async def forget(self, node: str) -> None:
        """Drop a node from the roster and from memory. Raises NotFound, Conflict where it has
        builds or answers, Unavailable.
        """
        pool, ledger = self._dispatcher.pool, self._dispatcher.ledger
        known = pool.known.named(node)
        if builds := ledger.on_node(known.id):
            raise Conflict(f"{len(builds)} builds are on it", field="node", expected="none")
        for entry in pool.entries():
            away = pool.standing(entry).state in _AWAY and "settings" not in entry.found
            if entry.program == known.id and not away:
                raise Conflict(
                    "it would be found again: it answers, or the settings name it",
                    field="node",
                    expected="a node that is silent or lost",
                )
        await pool.known.forget(known.id)
        pool.forget(known.id)
        _log_word(known, "forgotten")

    def _entry(self, entry: Entry) -> RosterEntry:
        standing = self._dispatcher.pool.standing(entry)
        report = entry.report
        if report is None:
            return self._unheard(entry, standing)
        known = self._dispatcher.pool.known.of(report.id)
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
            priority=self._dispatcher.prospects.priority(report),
            slots=report.slots,
            used=report.used,
            builds=tuple(sorted(self._dispatcher.ledger.on_node(report.id))),
            labels=known.labelled(report.labels) if known is not None else report.labels,
            stated_labels=report.labels,
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


def _log_word(known: KnownNode, words: str) -> None:
    log.info("%s (%s) is %s", known.name, known.id, words, extra={"node": known.id})

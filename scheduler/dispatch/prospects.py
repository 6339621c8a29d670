"""What awaits builds: the nodes as placement sees them, the order of the queue, why a build waits
and for how long it is likely to. Looks only; what comes of it is
`scheduler/dispatch/dispatcher.py`'s.
"""

import time
from collections.abc import Iterable, Sequence
from heapq import nlargest

from msgspec.structs import replace

from protocol.model.build import Build, Stage
from protocol.model.messages import Refusal, Report
from protocol.model.request import Needs
from scheduler.config import SchedulerSettings
from scheduler.core.estimate import estimate
from scheduler.core.placement import Candidate, Choice, best, choose, suits, why_none
from scheduler.core.plain import beyond
from scheduler.core.queue import Turns, in_order
from scheduler.core.roster import Entry, effective_priority
from scheduler.dispatch.attempts import Attempts
from scheduler.dispatch.forwarding import Forwarder
from scheduler.ledger import Ledger
from scheduler.pool.poller import Pool

_RECENT = 50  # ended builds that tell how long one takes
_IN_USE = ("ready", "busy")  # states of nodes that builds run on

Kind = tuple[Needs, bool]
"""What decides which nodes could have a build: its needs, and whether a plain node is enough."""


def kind_of(build: Build) -> Kind:
    """Builds of the same kind find the same nodes, as far as these have not refused one."""
    return build.request.guidance.needs, not beyond(build.request)


class Prospects:
    """For use on the event loop."""

    def __init__(
        self,
        settings: SchedulerSettings,
        pool: Pool,
        ledger: Ledger,
        attempts: Attempts,
        forwarder: Forwarder,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._ledger = ledger
        self._attempts = attempts
        self._forwarder = forwarder
        self._used: dict[str, float] = {}  # node -> when it last got a build

    # Nodes

    def candidates(self) -> tuple[Candidate, ...]:
        """The nodes as placement sees them."""
        found = tuple(
            self._candidate(entry, entry.report)
            for entry in self._pool.entries()
            if entry.report is not None
        )
        others = any(node.state in _IN_USE and not node.probation for node in found)
        found = tuple(replace(node, others=others) if node.probation else node for node in found)
        return self._hopeful(found) if self._attempts.in_vain else found

    def used(self, node: str) -> None:
        """It got a build just now."""
        self._used[node] = time.monotonic()

    def priority(self, report: Report) -> int:
        """The priority that placement goes by."""
        settings, known = self._settings, self._pool.known.of(report.id)
        return effective_priority(report, settings.priority_cap, settings.priorities, known)

    def _candidate(self, entry: Entry, report: Report) -> Candidate:
        standing = self._pool.standing(entry)
        shown = {build.id for build in report.builds}
        ours = self._ledger.on_node(report.id)
        known = self._pool.known.of(report.id)
        if known is not None:
            report = replace(report, labels=known.labelled(report.labels))
        return Candidate(
            key=entry.key,
            report=report,
            state=standing.state,
            reason=standing.lasting,
            priority=self.priority(report),
            ours=len(ours),
            coming=len(ours - shown),
            full=self._forwarder.is_full(report),
            error=entry.error,
            last_used=self._used.get(report.id, 0.0),
            refused=self._forwarder.never_takes(report.id),
            probation=self._pool.held_back.on_probation(report.id),
        )

    def _hopeful(self, nodes: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """The nodes, with the builds that they lost by no fault of their own and that another one
        could have, which has not.
        """
        in_vain = {}
        for key, lost in self._attempts.in_vain.items():
            build = self._ledger.get(key)
            if build.stage is Stage.STOPPED:
                continue
            others = (node for node in nodes if node.report.id not in lost)
            if any(node.state in _IN_USE and suits(node, build) for node in others):
                in_vain[key] = lost
        return tuple(
            replace(node, in_vain=frozenset(k for k, lost in in_vain.items() if here in lost))
            if any((here := node.report.id) in lost for lost in in_vain.values())
            else node
            for node in nodes
        )

    # One build

    def choice(self, build: Build) -> Choice:
        """Which node it would get now, and why not the others."""
        choice = choose(build, self.candidates())
        return replace(choice, refusals=(*choice.refusals, *self._unheard()))

    def why_none(self, build: Build, nodes: Sequence[Candidate]) -> str:
        """Why a build that all of these refuse waits, in a sentence."""
        return why_none(build, nodes, self._unheard())

    def _unheard(self) -> tuple[Refusal, ...]:
        """Nodes that have not answered since we started are no candidates, and no secret."""
        unheard = []
        for entry in self._pool.entries():
            known = self._pool.known.of(entry.program) if entry.report is None else None
            if known is not None:
                standing = self._pool.standing(entry)
                words = f"it is {standing.state}: {standing.lasting}"
                unheard.append(Refusal(known.id, known.name, words))
        return tuple(unheard)

    def why_still(self, build: Build) -> str:
        """What keeps a build that was placed from going on; empty where nothing is known to."""
        if build.node is None or build.stage is Stage.STOPPED:
            return ""
        for entry in self._pool.entries(departed=True):
            standing = self._pool.standing(entry)
            if entry.program == build.node.id and standing.state in ("silent", "lost"):
                return f"its node {build.node.name} is {standing.state}: {standing.reason}"
        return ""

    # The queue

    def in_order(self) -> Turns:
        """The builds that wait, the next one first."""
        return self._ordered(self._ledger.waiting_builds())

    def ahead_of(self, build: Build) -> list[Build]:
        """The builds that come before it in the queue; of one that is not made yet, those that
        would.
        """
        waiting = self._ledger.waiting_builds()
        if build.id not in self._ledger:
            waiting = (*waiting, build)
        ahead = []
        for other in self._ordered(waiting):
            if other.id == build.id:
                break
            ahead.append(other)
        return ahead

    def _ordered(self, builds: tuple[Build, ...]) -> Turns:
        return in_order(builds, self._ledger.shares(), time.time())

    def estimate(self, build: Build, ahead: Iterable[Build]) -> float | None:
        """Seconds until a build that waits behind these is likely to begin; None: nobody can say,
        as where no node can run it. Builds that none of its nodes can run are not in its way.
        """
        nodes = self.candidates()
        fit = [node for node in nodes if node.state in _IN_USE and suits(node, build)]
        picky = {key for node in fit for key in node.refused}
        in_the_way: dict[tuple[Kind, str], bool] = {}
        place = 1
        for other in ahead:
            like = (kind_of(other), other.id if other.id in picky else "")
            if like not in in_the_way:
                in_the_way[like] = any(suits(node, other) for node in fit)
            place += in_the_way[like]
        free = sum(node.free for node in fit if best(build, (node,)) is not None)
        return self._estimate(place, fit, free)

    def next_start(self) -> float | None:
        """Seconds until any waiting build is likely to begin; None: nobody can say."""
        nodes = [node for node in self.candidates() if node.state in _IN_USE]
        return self._estimate(1, nodes, sum(node.free for node in nodes))

    def _estimate(self, place: int, nodes: Iterable[Candidate], free: int) -> float | None:
        """`free`: slots of these nodes that a build could have now. Those that others' builds use,
        or that a node does not give just now, are not waited for: nobody knows how long.
        """
        ended = (
            (build.stopped, build.stopped - build.started)
            for build in self._ledger.board
            if build.started is not None and build.stopped is not None
        )
        durations = [length for _, length in nlargest(_RECENT, ended)]
        now = time.time()
        running = [
            self._ledger.get(key) for node in nodes for key in self._ledger.on_node(node.report.id)
        ]
        ages = [now - (build.started or now) for build in running]
        return estimate(place, durations, len(ages) + free, ages)

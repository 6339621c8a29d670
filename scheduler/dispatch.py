"""Gives waiting builds to nodes, and takes builds back from nodes that are lost. Decisions are in
`scheduler/core/`.
"""

import asyncio
import logging
import time
from heapq import nlargest

from msgspec.structs import replace

from protocol.blob_folder import BlobFolder
from protocol.errors import Unavailable
from protocol.messages import Refusal, Report
from protocol.model import Build, NodeReference, Stage
from protocol.request import Needs
from protocol.service import Caller
from scheduler.attempts import Attempts
from scheduler.config import SchedulerSettings
from scheduler.core.estimate import estimate
from scheduler.core.placement import Candidate, Choice, choose, in_words
from scheduler.core.plain import beyond
from scheduler.core.quarantine import Health, Rule, on_probation
from scheduler.core.queue import Turns, in_order
from scheduler.core.roster import Entry, effective_priority
from scheduler.following import Follower
from scheduler.forwarding import Forwarder
from scheduler.ledger import Ledger
from scheduler.poller import Pool
from scheduler.sources import Sources

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds after which silence is looked at though nothing happened
_GAP = 2.0  # seconds that a tick may be late before it was we who stood still
_REASON_AGE = 5.0  # seconds after which a waiting build's reason is written anew
_RECENT = 50  # ended builds that tell how long one takes
_NO_SECRETS = (
    "its attempt was lost, and its secrets with an earlier store of this scheduler: it cannot be"
    " placed anew"
)
_IN_USE = ("ready", "busy")  # states of nodes that builds run on
_REASONED = 100  # builds at the head of the queue whose reasons are kept up to date


class Dispatcher:
    """The queue and the way out of it. For use on the event loop."""

    def __init__(
        self, caller: Caller, settings: SchedulerSettings, ledger: Ledger, blobs: BlobFolder
    ) -> None:
        """`caller`: this scheduler, as nodes know it."""
        self.caller = caller
        self.ledger = ledger
        self.pool = Pool(caller, settings, ledger.store)
        rule = Rule(settings.quarantine_after, settings.quarantine, settings.quarantine_limit)
        self.attempts = Attempts(self.pool, ledger, settings.attempts, rule)
        self.sources = Sources(caller, self.pool, ledger, blobs)
        self._forwarder = Forwarder(caller, self.pool, self.attempts, self.sources)
        self.follower = Follower(caller, self.pool, self.attempts, self._forwarder)
        self.pool.on_report = self.follower.on_report
        self.pool.on_node = ledger.on_node
        self.recovered = asyncio.Event()  # every node that was found said what it has of us
        self._settings = settings
        self._explained = -_REASON_AGE  # when builds that wait without a free slot were told why
        self._used: dict[str, float] = {}  # node -> when it last got a build
        self._reasoned: dict[str, float] = {}  # build -> when its reason was written

    async def run(self, *, recover: bool) -> None:
        """Place builds whenever something changed. `recover`: the store is new and we are not, so
        nodes are asked first what they have of us.
        """
        started = ticked = time.monotonic()
        if not recover:
            self.recovered.set()
        while True:
            seen = self.pool.changed.count
            now = time.monotonic()
            if now - ticked > _TICK + _GAP:
                log.warning("this scheduler stood still for %.0f s", now - ticked)
                self.pool.count_anew()
            ticked = now
            try:
                if self._is_recovered(now - started):
                    await self._settle()
                    self._give_up_lost()
                    self._place_waiting()
                self.pool.sweep(self.ledger.nodes_in_use())
            except Exception:
                log.exception("placing builds")
            await self.pool.changed.wait(seen, _TICK)

    async def close(self) -> None:
        """Stop forwarding and polling."""
        await self._forwarder.close()
        await self.follower.close()
        await self.pool.close()

    def _is_recovered(self, elapsed: float) -> bool:
        """Whether builds may be placed."""
        if self.recovered.is_set():
            return True
        settings = self._settings
        heard = all(
            entry.answered is not None and entry.report is not None and not entry.report.more
            for entry in self.pool.entries()
        )
        heard = heard and elapsed > settings.recover_least and not self.follower.adopting
        if heard or elapsed > settings.recover_most:
            log.info("the store is new; nodes told of %d builds of ours", len(self.ledger.board))
            self.recovered.set()
        return self.recovered.is_set()

    async def _settle(self) -> None:
        """Note that nodes have been asked; until that is on disk, the next start asks them too."""
        if self.ledger.store.fresh:
            try:
                await self.ledger.store.settle()
            except Unavailable as error:
                log.warning("the store cannot be written: %s", error.detail)

    # What there is

    def queue(self) -> list[Build]:
        """The builds that wait, the next one first."""
        return list(self._in_order(self.ledger.waiting_builds()))

    def _in_order(self, builds: tuple[Build, ...]) -> Turns:
        return in_order(builds, self.ledger.shares(), time.time())

    def place_in_queue(self, build: Build) -> int | None:
        """From 1; None where it does not wait. A build that is not made yet would have that."""
        waiting = self.ledger.waiting_builds()
        if build.id not in self.ledger:
            waiting = (*waiting, build)
        for place, other in enumerate(self._in_order(waiting), 1):
            if other.id == build.id:
                return place
        return None

    def estimate(self, place: int) -> float | None:
        """Seconds until the build in that place of the queue is likely to begin; None: no idea."""
        now = time.time()
        ended, ages = [], []
        for build in self.ledger.board:
            if build.started is not None and build.stopped is not None:
                ended.append((build.stopped, build.stopped - build.started))
            elif build.stage not in (Stage.QUEUED, Stage.STOPPED):
                ages.append(now - (build.started or now))
        durations = [length for _, length in nlargest(_RECENT, ended)]
        slots = sum(node.report.slots for node in self.candidates() if node.state in _IN_USE)
        return estimate(place, durations, slots, ages)

    def choice(self, build: Build) -> Choice:
        """Which node it would get now, and why not the others."""
        return self._with_unheard(choose(build, self.candidates()))

    def _with_unheard(self, choice: Choice) -> Choice:
        """Nodes that have not answered since we started are no candidates, and no secret."""
        unheard = []
        for entry in self.pool.entries():
            known = self.pool.known.of(entry.program) if entry.report is None else None
            if known is not None:
                standing = self.pool.standing(entry)
                words = f"it is {standing.state}: {standing.reason}"
                unheard.append(Refusal(known.id, known.name, words))
        return Choice(choice.node, (*choice.refusals, *unheard)) if unheard else choice

    def why_still(self, build: Build) -> str:
        """What keeps a build that was placed from going on; empty where nothing is known to."""
        if build.node is None or build.stage is Stage.STOPPED:
            return ""
        for entry in self.pool.entries(departed=True):
            standing = self.pool.standing(entry)
            if entry.program == build.node.id and standing.state in ("silent", "lost"):
                return f"its node {build.node.name} is {standing.state}: {standing.reason}"
        return ""

    def candidates(self) -> tuple[Candidate, ...]:
        """The nodes as placement sees them."""
        found = [
            self._candidate(entry, entry.report)
            for entry in self.pool.entries()
            if entry.report is not None
        ]
        others = any(node.state in _IN_USE and not node.probation for node in found)
        return tuple(replace(node, others=others) if node.probation else node for node in found)

    def priority(self, report: Report) -> int:
        """The priority that placement goes by."""
        settings, known = self._settings, self.pool.known.of(report.id)
        return effective_priority(report, settings.priority_cap, settings.priorities, known)

    def _candidate(self, entry: Entry, report: Report) -> Candidate:
        standing = self.pool.standing(entry)
        shown = {build.id for build in report.builds}
        ours = self.ledger.on_node(report.id)
        health = self.pool.health.get(report.id, Health())
        known = self.pool.known.of(report.id)
        if known is not None:
            report = replace(report, labels=known.labelled(report.labels))
        return Candidate(
            key=entry.key,
            report=report,
            state=standing.state,
            reason=standing.reason,
            priority=self.priority(report),
            ours=len(ours),
            coming=len(ours - shown),
            full=self._forwarder.is_full(report),
            error=entry.error,
            last_used=self._used.get(report.id, 0.0),
            refused=self._forwarder.never_takes(report.id),
            probation=on_probation(health, time.monotonic()),
        )

    # Placing

    def _place_waiting(self) -> None:
        """Give each build in turn its node. What has the same needs as a build that found none
        finds none either; once no slot is free, only the first builds are told why they wait.
        """
        if not self.ledger.waiting:
            return
        hopeless: set[tuple[Needs, bool]] = set()
        candidates = {node.key: node for node in self.candidates()}
        now = time.monotonic()
        if not any(node.free for node in candidates.values()):
            if now - self._explained < _REASON_AGE:
                return
            self._explained = now
        turns = self._in_order(self.ledger.waiting_builds())
        for number, build in enumerate(turns):
            if number >= _REASONED and not any(node.free for node in candidates.values()):
                return
            if self.ledger.lacks_secrets(build):
                turns.passed_over()
                self.attempts.lost(build, _NO_SECRETS)
                continue
            needs = (build.request.guidance.needs, not beyond(build.request))
            if needs in hopeless and number >= _REASONED:
                turns.passed_over()
                continue
            choice = choose(build, candidates.values())
            if (node := choice.node) is not None:
                if words := self.sources.why_not(build):
                    turns.passed_over()
                    self._note_why(build, words)
                    continue
                self._place(build, node)
                more = {"ours": node.ours + 1, "coming": node.coming + 1}
                candidates[node.key] = replace(node, last_used=time.monotonic(), **more)
            else:
                hopeless.add(needs)
                turns.passed_over()
                self._note_why(build, in_words(self._with_unheard(choice)))

    def _place(self, build: Build, node: Candidate) -> None:
        """Commit attempt and node to the record, then forward."""
        reference = NodeReference(node.report.id, node.report.name)
        placed = self.attempts.place(build, reference, node.priority)
        self._reasoned.pop(build.id, None)
        self._used[reference.id] = time.monotonic()
        self._forwarder.send(placed, first=True)

    def _note_why(self, build: Build, words: str) -> None:
        now = time.monotonic()
        if now - self._reasoned.get(build.id, -_REASON_AGE) < _REASON_AGE:
            return
        self._reasoned[build.id] = now
        if words != build.reason:
            self.ledger.put(replace(build, reason=words, revision=build.revision + 1))

    def _give_up_lost(self) -> None:
        """Attempts on lost nodes are superseded, when another node takes the build now."""
        for node in self.pool.lost(self.ledger.nodes_in_use()):
            for key in self.ledger.on_node(node):
                build = self.ledger.get(key)
                if self.ledger.lacks_secrets(build):
                    self.attempts.lost(build, _NO_SECRETS)
                elif (other := self.choice(build).node) is not None:
                    self.attempts.given_up(build, "its node was lost")
                    build = self.ledger.get(key)
                    if build.stage is Stage.QUEUED:
                        self._place(build, other)

    async def cancel(self, build_id: str, cause: str) -> None:
        """End a build that has not stopped, whatever its node says; the node is told. Raises
        NotFound, Unavailable.
        """
        build = self.ledger.get(build_id)
        if build.stage is not Stage.STOPPED:
            self.follower.tell_cancelled(self.attempts.cancelled(build, cause))
        await self.ledger.saved(build_id)

    async def forget(self, build_id: str) -> None:
        """Drop a build that has stopped, and all that is remembered of it. Raises Unavailable."""
        build = self.ledger.get(build_id)
        assert build.stage is Stage.STOPPED
        await self.ledger.forget(build_id)
        self.pool.plain.forget_build(build_id)
        self._reasoned.pop(build_id, None)
        self._forwarder.forget(build)
        self.sources.forget(build)

"""Gives waiting builds to nodes, and keeps our record true to what nodes report. Decisions are
in `scheduler/core/`.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from protocol.errors import Busy, PoolError, Unavailable, Unreachable
from protocol.lifecycle import Event, advance, may
from protocol.messages import Acknowledgement, Report
from protocol.model import Build, Forward, NodeReference, Stage
from protocol.service import Caller, Role
from scheduler.config import SchedulerSettings
from scheduler.core import retry
from scheduler.core.follow import followed
from scheduler.core.placement import Candidate, Choice, choose, in_words
from scheduler.core.reconcile import Acknowledge, Action, Cancel, Follow, Resend, reconcile
from scheduler.core.roster import Entry, effective_priority
from scheduler.ledger import Ledger
from scheduler.poller import Pool

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds after which silence is looked at though nothing happened
_REASON_AGE = 5.0  # seconds after which a waiting build's reason is written anew


class Dispatcher:
    """The queue and the way out of it. For use on the event loop."""

    def __init__(self, me: str, settings: SchedulerSettings, ledger: Ledger) -> None:
        self.me = me
        self.ledger = ledger
        self.pool = Pool(me, settings, self.on_report)
        self._settings = settings
        self._caller = Caller(owner="", role=Role.PROGRAM, program=me)
        self._on_the_way: set[str] = set()  # builds whose forward is not answered yet
        self._full: dict[str, str] = {}  # node that had no room -> token of its report then
        self._refused: defaultdict[str, set[str]] = defaultdict(set)  # node -> builds never taken
        self._used: dict[str, float] = {}  # node -> when it last got a build
        self._reasoned: dict[str, float] = {}  # build -> when its reason was written
        self._tasks: set[asyncio.Task[None]] = set()

    # The queue

    def enqueue(self, build: Build) -> None:
        """A new build, or one whose attempt was lost."""
        self.ledger.put(build)
        self.pool.changed.touch()

    def place_in_queue(self, build_id: str) -> int | None:
        """From 1; None where it does not wait."""
        ids = [build.id for build in self.ledger.queue(time.time())]
        return ids.index(build_id) + 1 if build_id in ids else None

    def choice(self, build: Build) -> Choice:
        """Which node it would get now, and why not the others."""
        return choose(build, self.candidates())

    async def run(self) -> None:
        """Place builds whenever something changed."""
        while True:
            seen = self.pool.changed.count
            try:
                self._give_up_lost()
                self._place_waiting()
                self.pool.sweep(self.ledger.nodes_in_use())
            except Exception:
                log.exception("placing builds")
            await self.pool.changed.wait(seen, _TICK)

    async def close(self) -> None:
        """Stop forwarding and polling."""
        for task in self._tasks:
            task.cancel()
        await self.pool.close()

    def candidates(self) -> tuple[Candidate, ...]:
        """The nodes as placement sees them."""
        return tuple(
            self._candidate(entry, entry.report)
            for entry in self.pool.entries()
            if entry.report is not None
        )

    def priority(self, report: Report) -> int:
        """The priority that placement goes by."""
        return effective_priority(report, self._settings.priority_cap, self._settings.priorities)

    def _candidate(self, entry: Entry, report: Report) -> Candidate:
        standing = self.pool.standing(entry)
        shown = {build.id for build in report.builds}
        if self._full.get(report.id) not in (None, report.token):
            del self._full[report.id]
        return Candidate(
            key=entry.key,
            report=report,
            state=standing.state,
            reason=standing.reason,
            priority=self.priority(report),
            coming=len(self.ledger.on_node(report.id) - shown),
            full=report.id in self._full,
            error=entry.error,
            last_used=self._used.get(report.id, 0.0),
            refused=frozenset(self._refused[report.id]),
        )

    # Placing

    def _place_waiting(self) -> None:
        for build in self.ledger.queue(time.time()):
            choice = self.choice(build)
            if choice.node is None:
                self._note_why(build, choice)
            else:
                self._place(build, choice.node)

    def _place(self, build: Build, node: Candidate) -> None:
        """Commit attempt and node to the record, then forward."""
        reference = NodeReference(node.report.id, node.report.name)
        cause = f"{node.report.name} ({node.report.id}), priority {node.priority}"
        placed = advance(build, Event.PLACE, time.time(), cause)
        placed = self.ledger.put(
            replace(placed, node=reference, attempt=build.attempt + 1, reason="")
        )
        self._used[reference.id] = time.monotonic()
        self._send(placed)

    def _send(self, build: Build) -> None:
        if build.id not in self._on_the_way:
            self._on_the_way.add(build.id)
            self._do(self._forward(build))

    async def _forward(self, build: Build) -> None:
        """Ask the node to take the attempt; its answer is news like any other."""
        assert build.node is not None
        above = self.ledger.forwards.get(build.id)
        forward = Forward(
            id=build.id,
            origin=self.me,
            attempt=build.attempt,
            owner=build.owner,
            path=(*(above.path if above else ()), self.me),
        )
        try:
            client = self.pool.client(build.node.id)
            if client is None:
                raise Unreachable("it is not in the pool any more")
            reported = await client.submit(self._caller, build.request, forward)
        except Busy as error:
            self._had_no_room(build, error)
        except Unreachable as error:
            self.pool.disbelieve(build.node.id, error.detail)
            self._declined(build, error.detail)
        except Unavailable as error:  # it may have heard us: its next report decides
            self.pool.disbelieve(build.node.id, error.detail)
        except PoolError as error:
            self._refused[build.node.id].add(build.id)
            self._declined(build, error.detail)
        else:
            self.follow(reported)
        finally:
            self._on_the_way.discard(build.id)
            self.pool.changed.touch()

    def _had_no_room(self, build: Build, error: Busy) -> None:
        """The node turned busy since its report: it is passed over until it reports anew."""
        assert build.node is not None
        for entry in self.pool.entries():
            if entry.report is not None and entry.report.id == build.node.id:
                self._full[build.node.id] = entry.report.token
        self._declined(build, error.detail)

    def _declined(self, build: Build, cause: str) -> None:
        """Back to the queue; the attempt is not used up."""
        now = self.ledger.get(build.id)
        if now.attempt == build.attempt and may(now, Event.DECLINE):
            declined = advance(now, Event.DECLINE, time.time(), cause)
            self.ledger.put(replace(declined, attempt=build.attempt - 1))

    def _note_why(self, build: Build, choice: Choice) -> None:
        now = time.monotonic()
        if now - self._reasoned.get(build.id, -_REASON_AGE) < _REASON_AGE:
            return
        self._reasoned[build.id] = now
        if (words := in_words(choice)) != build.reason:
            self.ledger.put(replace(build, reason=words, revision=build.revision + 1))

    # Following

    def on_report(self, report: Report) -> None:
        """A node said how it is: bring our record and the node together."""
        wanted = [
            self.ledger.get(key)
            for key in self.ledger.on_node(report.id)
            if key not in self._on_the_way
        ]
        known = {
            build.id: self.ledger.get(build.id)
            for build in report.builds
            if build.id in self.ledger
        }
        if report.leaving:
            wanted = [build for build in wanted if build.id in {b.id for b in report.builds}]
        for action in reconcile(wanted, known, report):
            self._perform(action, report.id)

    def _perform(self, action: Action, node: str) -> None:
        match action:
            case Follow(reported=reported):
                self.follow(reported)
                if reported.stage is Stage.STOPPED:
                    self._tell(node, acknowledge=((reported.id, reported.attempt),))
            case Resend(build=build):
                self._send(build)
            case Cancel(build_id=build_id):
                self._tell(node, cancel=build_id)
            case Acknowledge(attempts=attempts):
                self._tell(node, acknowledge=attempts)

    def follow(self, reported: Build) -> None:
        """A node's word on an attempt of ours; one that is not the record's attempt says
        nothing.
        """
        record = self.ledger.get(reported.id)
        if record.attempt != reported.attempt or record.stage is Stage.STOPPED:
            return
        news = followed(record, reported, time.time(), self._settings.attempts)
        if _shown(news) != _shown(record):
            self.ledger.put(news)

    def _give_up_lost(self) -> None:
        """Attempts on lost nodes are superseded, when another node takes the build now."""
        lost = {
            entry.report.id
            for entry in self.pool.entries(departed=True)
            if entry.report is not None and self.pool.standing(entry).state == "lost"
        }
        for node in lost:
            for key in self.ledger.on_node(node):
                build = self.ledger.get(key)
                if self.choice(build).node is not None:
                    event = retry.after_loss(build.attempt, self._settings.attempts)
                    self.ledger.put(advance(build, event, time.time(), "its node was lost"))

    def cancelled(self, build: Build, cause: str) -> Build:
        """Our record of a build that is ended here; the node is told by the next report, if not
        before.
        """
        return self.ledger.put(advance(build, Event.CANCEL, time.time(), cause))

    def forget(self, build_id: str) -> None:
        """Drop a build that has stopped, and all that is remembered of it."""
        self.ledger.forget(build_id)
        self._reasoned.pop(build_id, None)
        for refused in self._refused.values():
            refused.discard(build_id)

    def _tell(
        self, node: str, *, cancel: str = "", acknowledge: tuple[tuple[str, int], ...] = ()
    ) -> None:
        """Say it once; if it is not heard, the next report asks for it again."""
        self._do(self._told(node, cancel, acknowledge))

    async def _told(self, node: str, cancel: str, done: tuple[tuple[str, int], ...]) -> None:
        client = self.pool.client(node)
        try:
            if client is not None and cancel:
                await client.cancel(self._caller, cancel)
            if client is not None and done:
                await client.acknowledge(self._caller, Acknowledgement(done))
        except PoolError as error:
            log.info("%s was not told: %s", node, error.detail)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _shown(build: Build) -> Build:
    return replace(build, revision=0)

"""Gives waiting builds to nodes, and takes builds back from nodes that are lost. Decisions are in
`scheduler/core/`.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from protocol.builds.quotas import Limits, Quotas
from protocol.errors import Unavailable
from protocol.model.build import Build, NodeReference, Stage
from protocol.ports.service import Caller
from protocol.storage.blob_folder import BlobFolder
from protocol.trust.seal import Seal
from scheduler.config import SchedulerSettings
from scheduler.core.placement import Candidate, best
from scheduler.dispatch.attempts import Attempts
from scheduler.dispatch.following import Follower
from scheduler.dispatch.forwarding import Forwarder
from scheduler.dispatch.prospects import Kind, Prospects, kind_of
from scheduler.dispatch.sources import Sources
from scheduler.ledger import Ledger
from scheduler.pool.poller import Pool
from scheduler.pool.proof import Pass

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds after which silence is looked at though nothing happened
_GAP = 2.0  # seconds that a tick may be late before it was we who stood still
_REASON_AGE = 5.0  # seconds after which a waiting build's reason is written anew
_NO_SECRETS = (
    "its attempt was lost, and its secrets with an earlier store of this scheduler: it cannot be"
    " placed anew"
)
_REASONED = 100  # builds at the head of the queue whose reasons are kept up to date


class Dispatcher:
    """The queue and the way out of it. For use on the event loop."""

    def __init__(
        self,
        caller: Caller,
        settings: SchedulerSettings,
        ledger: Ledger,
        blobs: BlobFolder,
        seal: Seal,
        own: Pass | None = None,
    ) -> None:
        """`caller`: this scheduler, as nodes know it; `own`: the pool that it keeps."""
        self.caller = caller
        self.ledger = ledger
        limits = Limits(settings.owner_waiting, settings.owner_running, settings.owner_size)
        self.quotas = Quotas(limits, ledger.board.tally)
        self.pool = Pool(caller, settings, ledger.store, own)
        self.attempts = Attempts(self.pool, ledger, settings.attempts)
        self.sources = Sources(caller, self.pool, ledger, blobs)
        self._forwarder = Forwarder(caller, self.pool, self.attempts, self.sources, seal)
        self.follower = Follower(caller, self.pool, self.attempts, self._forwarder, seal)
        self.prospects = Prospects(settings, self.pool, ledger, self.attempts, self._forwarder)
        self.pool.on_report = self.follower.on_report
        self.pool.on_node = ledger.on_node
        self.recovered = asyncio.Event()  # every node that was found said what it has of us
        self._settings = settings
        self._explained = -_REASON_AGE  # when builds that wait without a free slot were told why
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

    # Placing

    def _place_waiting(self) -> None:
        """Give each build in turn its node. What has the same needs as a build that found none
        finds none either; once no slot is free, only the first builds are told why they wait.
        """
        if not self.ledger.waiting:
            return
        hopeless: set[Kind] = set()
        candidates = {node.key: node for node in self.prospects.candidates()}
        now = time.monotonic()
        if not any(node.free for node in candidates.values()):
            if now - self._explained < _REASON_AGE:
                return
            self._explained = now
        turns = self.prospects.in_order()
        for number, build in enumerate(turns):
            if number >= _REASONED and not any(node.free for node in candidates.values()):
                return
            if self.ledger.lacks_secrets(build):
                turns.passed_over()
                self.attempts.lost(build, _NO_SECRETS)
                continue
            if self.quotas.why_not(build.owner):
                turns.passed_over()
                self._note_why(build, partial(self.quotas.why_not, build.owner))
                continue
            kind = kind_of(build)
            if kind in hopeless and number >= _REASONED:
                turns.passed_over()
                continue
            node = best(build, candidates.values())
            if node is None:
                if not any(node.singles_out(build) for node in candidates.values()):
                    hopeless.add(kind)
                turns.passed_over()
                self._note_why(
                    build, partial(self.prospects.why_none, build, tuple(candidates.values()))
                )
            elif self.sources.why_not(build):
                turns.passed_over()
                self._note_why(build, partial(self.sources.why_not, build))
            else:
                self._place(build, node)
                more = {"ours": node.ours + 1, "coming": node.coming + 1}
                candidates[node.key] = replace(node, last_used=time.monotonic(), **more)

    def _place(self, build: Build, node: Candidate) -> None:
        """Commit attempt and node to the record, then forward."""
        reference = NodeReference(node.report.id, node.report.name)
        placed = self.attempts.place(build, reference, node.priority)
        self._reasoned.pop(build.id, None)
        self.prospects.used(reference.id)
        self._forwarder.send(placed, first=True)

    def _note_why(self, build: Build, why: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - self._reasoned.get(build.id, -_REASON_AGE) < _REASON_AGE:
            return
        self._reasoned[build.id] = now
        if (words := why()) != build.reason:
            self.ledger.put(replace(build, reason=words, revision=build.revision + 1))

    def _give_up_lost(self) -> None:
        """Attempts on lost nodes are superseded, when another node takes the build now."""
        for node in self.pool.lost(self.ledger.nodes_in_use()):
            for key in self.ledger.on_node(node):
                build = self.ledger.get(key)
                if self.ledger.lacks_secrets(build):
                    self.attempts.lost(build, _NO_SECRETS)
                elif (other := best(build, self.prospects.candidates())) is not None:
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
        self.attempts.forget(build)
        self.sources.forget(build)

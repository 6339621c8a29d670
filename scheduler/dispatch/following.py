"""Brings our record and a node together, each time the node reports. What follows from a report is
decided in `scheduler/core/reconcile.py`; here it is done.
"""

from functools import partial

from msgspec.structs import replace

from protocol.concurrency.errands import Errands
from protocol.errors import PoolError
from protocol.model.build import Build, NodeReference, Result, Stage
from protocol.model.messages import Acknowledgement, Forwarded, Report
from protocol.model.request import Forward
from protocol.ports.service import Caller
from protocol.trust.seal import Seal
from scheduler.core.placement import was_on
from scheduler.core.plain import PLAIN
from scheduler.core.reconcile import (
    Acknowledge,
    Action,
    Adopt,
    Cancel,
    Follow,
    Resend,
    reconcile,
)
from scheduler.dispatch.attempts import Attempts
from scheduler.dispatch.forwarding import Forwarder
from scheduler.pool.poller import Pool


class Follower:
    """Hears every report."""

    def __init__(
        self, caller: Caller, pool: Pool, attempts: Attempts, forwarder: Forwarder, seal: Seal
    ) -> None:
        """`caller`: this scheduler, as nodes know it."""
        self._seal = seal
        self._caller = caller
        self._pool = pool
        self._attempts = attempts
        self._ledger = attempts.ledger
        self._forwarder = forwarder
        self._adopting: set[str] = set()
        self._errands = Errands("a node was not told, or did not answer")

    def on_report(self, report: Report) -> None:
        """A node said how it is. What it says of attempts that it was not sent does not count."""
        invented = [there.id for there in report.builds if not self._was_sent(there, report)]
        words = f"it reports build {invented[0]}, which was not sent to it" if invented else ""
        self._pool.held_back.distrust(report.id, words)
        builds = tuple(there for there in report.builds if there.id not in invented)
        report = replace(report, builds=builds)
        shown = {build.id for build in report.builds}
        wanted = [
            self._ledger.get(key)
            for key in self._ledger.on_node(report.id)
            if key not in self._forwarder.on_the_way and (key in shown or not report.leaving)
        ]
        known = {key: self._ledger.get(key) for key in shown if key in self._ledger}
        done: list[tuple[str, int]] = []
        for action in reconcile(wanted, known, report):
            done += self._perform(action, report)
        unlike = self._pinned_otherwise(report)
        for key in unlike:
            self._errands.do(partial(self._pin, report.id, key))
        if done := [attempt for attempt in done if attempt[0] not in unlike]:
            self._errands.do(partial(self._acknowledged, report.id, tuple(done)))

    def _pinned_otherwise(self, report: Report) -> frozenset[str]:
        """Builds that the node keeps for another time than we say; it hears of that, and goes on
        reporting them until it has. A plain node hears of nothing.
        """
        if report.kind == PLAIN:
            return frozenset()
        return frozenset(
            there.id
            for there in report.builds
            if there.id in self._ledger
            and there.pinned is not (record := self._ledger.get(there.id)).pinned
            and record.node is not None
            and record.node.id == report.id
        )

    def tell_cancelled(self, build: Build) -> None:
        """End its attempt on its node; where that is not heard, the next report asks again."""
        if build.node is not None:
            self._errands.do(partial(self._cancel, build.node.id, build.id, build.attempt))

    async def close(self) -> None:
        """Stop what is under way."""
        await self._errands.cancel()

    def _perform(self, action: Action, report: Report) -> tuple[tuple[str, int], ...]:
        """The attempts that the node may be told are on record."""
        match action:
            case Follow(reported=reported):
                self._attempts.follow(reported, report.id, leaving=report.leaving)
                if reported.stage is Stage.STOPPED or reported.id in report.wholes:
                    return ((reported.id, reported.attempt),)
            case Resend(build=build):
                self._forwarder.send(build)
            case Cancel(build_id=build_id, attempt=attempt):
                self._errands.do(partial(self._cancel, report.id, build_id, attempt))
            case Acknowledge(attempts=attempts):
                return attempts
            case Adopt(reported=reported):
                self._adopt(reported, report)
        return ()

    # Adopting

    def _was_sent(self, reported: Build, report: Report) -> bool:
        """Whether this attempt was given to that node by us: it has the forward with our seal, or
        our record of the build says so. A record that is behind is of another store than the
        attempt, to which the node shows what it was sent.
        """
        whole = report.wholes.get(reported.id)
        if whole is not None:
            same = (whole.forward.id, whole.forward.attempt) == (reported.id, reported.attempt)
            return same and self._seal.holds(whole, report.id)
        if reported.id not in self._ledger:
            return reported.id in self._ledger.deleted or not self._pool.proves
        record = self._ledger.get(reported.id)
        if record.node is not None and reported.attempt == record.attempt:
            return record.node.id == report.id
        return reported.attempt <= record.attempt and was_on(record, report.id)

    def _adopt(self, reported: Build, report: Report) -> None:
        node = NodeReference(report.id, report.name)
        if reported.id in self._ledger:
            self._attempts.found_again(reported, node)
            self._attempts.follow(reported, report.id, leaving=report.leaving)
        elif reported.id not in self._adopting and reported.id not in self._ledger.deleted:
            self._adopting.add(reported.id)
            whole = report.wholes.get(reported.id)
            self._errands.do(partial(self._adopted, reported, whole, node))

    async def _adopted(self, reported: Build, whole: Forwarded | None, node: NodeReference) -> None:
        """Put it on record, then take its node's word; what followed comes with the next report."""
        try:
            await self._attempts.adopt(reported, whole or await self._asked(reported, node), node)
            self._attempts.follow(reported, node.id)
            await self._acknowledged(node.id, ((reported.id, reported.attempt),))
        finally:
            self._adopting.discard(reported.id)
            self._pool.changed.touch()

    async def _asked(self, reported: Build, node: NodeReference) -> Forwarded:
        """The whole of a build that its node believes we know: our store has lost what it once
        had.
        """
        client = self._pool.client(node.id)
        if client is None:
            raise PoolError(f"{node.name} is not in the pool any more")
        build = await client.get(self._caller, reported.id)
        forward = Forward(
            build.id, build.origin, max(1, build.attempt), owner=build.owner, key=build.key
        )
        return Forwarded(build.request, forward)

    @property
    def adopting(self) -> bool:
        """Whether builds are being adopted now."""
        return bool(self._adopting)

    # Telling nodes: once; if it is not heard, the next report asks for it again

    async def _acknowledged(self, node: str, attempts: tuple[tuple[str, int], ...]) -> None:
        """These are on record here, on disk: the node need not tell them again."""
        for build_id, _ in attempts:
            await self._ledger.saved(build_id)
        if client := self._pool.client(node):
            done = Acknowledgement(attempts, self._caller.store)
            await client.acknowledge(self._caller, done)

    async def _pin(self, node: str, build_id: str) -> None:
        if client := self._pool.client(node):
            await client.pin(self._caller, build_id, self._ledger.get(build_id).pinned)

    async def _cancel(self, node: str, build_id: str, attempt: int) -> None:
        await self._ledger.saved(build_id)
        if client := self._pool.client(node):
            ended = self._ledger.get(build_id).result
            superseded = ended is not Result.CANCELLED
            await client.cancel(self._caller, build_id, attempt, superseded=superseded)

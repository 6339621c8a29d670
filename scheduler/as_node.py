"""The scheduler as a node of another scheduler: what it states of itself and its nodes together."""

import time
from collections.abc import Iterator

from msgspec.structs import replace

from protocol import VERSION
from protocol.model.messages import API_VERSION, Report
from protocol.model.record import Record, Reported
from protocol.ports.service import Caller
from protocol.program.identity import Identity
from scheduler.core.plain import LACKS, PLAIN
from scheduler.dispatch.dispatcher import Dispatcher


class AsNode:
    """Reports on the whole pool as if it were one machine."""

    def __init__(self, me: Identity, name: str, dispatcher: Dispatcher) -> None:
        self.leaving = False
        self._me = me
        self.name = name
        self._dispatcher = dispatcher
        self._prospects = dispatcher.prospects

    def why_busy(self) -> str:
        """Why no build is taken now; empty where one is."""
        if self.leaving:
            return "it is shutting down"
        if not self._prospects.candidates():
            return "it has no nodes"
        return "" if self._free() > 0 else "none of its nodes is ready with a free slot"

    def placed_by(self, caller: Caller) -> Iterator[Record]:
        """The builds that this scheduler above us placed here, as it knows them."""
        if caller.program in ("", self._me.id):
            return
        ledger = self._dispatcher.ledger
        for build in ledger.board:
            if build.origin == caller.program:
                yield replace(ledger.record(build.id), build=ledger.as_asked(build))

    def report(self, token: str, told: Reported) -> Report:
        """The summed slots of its nodes and the best priority of those that are ready; what of all
        else they have in common, or at most; plain nodes, which say nothing of it, do not count.
        """
        nodes = [node for node in self._prospects.candidates() if node.state in ("ready", "busy")]
        ready = [node for node in nodes if node.state == "ready" and not node.error]
        slots = sum(node.report.slots for node in nodes)
        described = [node for node in nodes if node.report.kind != PLAIN] or nodes
        kind = PLAIN if nodes and all(node.report.kind == PLAIN for node in nodes) else ""
        reason = self.why_busy()
        return Report(
            id=self._me.id,
            boot=self._me.boot,
            name=self.name,
            role="scheduler",
            version=VERSION,
            api=API_VERSION,
            architecture=_common([node.report.architecture for node in described]),
            status="busy" if reason else "ready",
            reason=reason,
            priority=max((node.priority for node in ready or nodes), default=0),
            token=token,
            slots=slots,
            used=max(0, slots - self._free()),
            labels=_shared([node.report.labels for node in described]),
            images=_shared([node.report.images for node in described]),
            cpus=max((node.report.cpus for node in nodes), default=0),
            memory=max((node.report.memory for node in nodes), default=0),
            disk_free=max((node.report.disk_free for node in nodes), default=0),
            leaving=self.leaving,
            below=self._dispatcher.pool.below(),
            builds=told.builds,
            wholes=told.wholes,
            more=told.more,
            clock=time.time(),
            kind=kind,
            lacks=LACKS if kind else (),
        )

    def _free(self) -> int:
        """Slots that a new build could have now, those that wait already counted."""
        free = sum(
            node.free
            for node in self._prospects.candidates()
            if node.state == "ready" and not node.error and not node.full
        )
        return 0 if self.leaving else free - self._dispatcher.ledger.waiting


def _common(values: list[str]) -> str:
    """The one value that all share; empty where they differ."""
    return values[0] if len(set(values)) == 1 else ""


def _shared(values: list[tuple[str, ...]]) -> tuple[str, ...]:
    """What all have."""
    return tuple(sorted(set.intersection(*map(set, values)))) if values else ()

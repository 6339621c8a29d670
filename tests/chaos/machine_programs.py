"""Node and scheduler as they are, on the machines, stores and network of the test: what takes the
place of their clocks, lots, files, sockets and engines.
"""

import asyncio
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace

from node import ledger as node_ledger
from node import parts as node_parts
from node.config import NodeSettings
from node.parts import Node
from node.records import Kept
from protocol.errors import PoolError
from protocol.model.messages import Report
from protocol.model.record import Record
from protocol.program.identity import Identity
from scheduler import app as scheduler_app
from scheduler.app import Scheduler
from scheduler.config import SchedulerSettings
from scheduler.core.known import KnownNode
from scheduler.core.plain import PlainAttempt
from scheduler.stores.base import Stale
from tests.chaos import machine_engine as engine
from tests.chaos.machine_loop import LIFE, Clock, Draws, Life, StillLoop
from tests.chaos.machine_network import Wire

NODE = NodeSettings(slots=1, disk_reserve=0, drain_limit=0, engine="dummy", clean_every=7)
SCHEDULER = SchedulerSettings(
    unproven="anywhere",
    hold=2,
    patience=1,
    retry=1,
    silent_after=4,
    lost_after=8,
    forget_after=30,
    recover_least=1,
    recover_most=10,
    quarantine_after=1000,
    keep=1e9,
)
_PROGRAMS = ("node.", "scheduler.")

StandIn = tuple[Any, str, Any]
"""Module, name, and what takes the place of what has it."""


def stand_ins(
    loop: StillLoop, machines: dict[str, engine.Machine], wire: type[Wire]
) -> list[StandIn]:
    """Everything that would reach out of the process."""
    boot = BootFile()
    boot.machines = machines
    instead = {**_SIMPLE, "time": Clock(loop), "secrets": Draws(), "HttpService": wire}
    return [
        *((module, name, instead[name]) for module, name in _places()),
        (node_ledger, "_BOOT", boot),
        (node_parts, "ENGINES", {"dummy": engine.MachineEngine}),
        (node_parts, "health_of", lambda *_: None),
        (scheduler_app, "health_of", lambda *_: None),
    ]


@cache
def _places() -> tuple[tuple[Any, str], ...]:
    """Where the programs have by name what is replaced."""
    names = {*_SIMPLE, "time", "secrets", "HttpService"}
    ours = [module for name, module in sys.modules.items() if name.startswith(_PROGRAMS)]
    return tuple((module, name) for module in ours for name in names if hasattr(module, name))


class BootFile:
    """Where the node reads the boot id of its machine."""

    machines: dict[str, engine.Machine]

    def exists(self) -> bool:
        """See Path."""
        return True

    def read_text(self) -> str:
        """See Path."""
        return str(self.machines[LIFE.get().program].boots)


class NoMetrics:
    """`Metrics` that counts nothing."""

    def __init__(self, program: object) -> None:
        pass

    def changed(self, before: object, after: object) -> None:
        """See Metrics."""

    def answered(self, *facts: object) -> None:
        """See Metrics."""

    async def watch_loop(self) -> None:
        """See Metrics."""


class MachineRecords:
    """`Records` on a machine's disk."""

    def __init__(self, folder: engine.Place, on_full: object) -> None:
        self._kept = folder.machine.records
        self._life = LIFE.get()

    def load(self) -> tuple[Kept, ...]:
        """See Records."""
        return tuple(self._kept[key] for key in sorted(self._kept))

    async def save(self, kept: Kept) -> None:
        """See Records."""
        await self._life.write(lambda: self._kept.__setitem__(kept.record.build.id, kept))

    async def forget(self, ids: Iterable[str]) -> None:
        """See Records."""
        keys = tuple(ids)
        await self._life.write(lambda: [self._kept.pop(key, None) for key in keys])

    async def images(self) -> dict[str, float]:
        """See Records."""
        return {}

    async def erase(self) -> None:
        """See Records."""

    async def close(self) -> None:
        """See Records."""


class StoreFile:
    """A scheduler's store as it lies on disk."""

    def __init__(self, key: str) -> None:
        self.id = key
        self.settled = False
        self.records: dict[str, Record] = {}
        self.nodes: dict[str, KnownNode] = {}

    def copy(self, key: str) -> "StoreFile":
        """A restored backup has another id, and is not settled."""
        other = StoreFile(key)
        other.records, other.nodes = dict(self.records), dict(self.nodes)
        return other


class MachineStore:
    """`Store` on a file of the test."""

    def __init__(self, file: StoreFile, life: Life, on_put: Callable[[Record], None]) -> None:
        self.file = file
        self.id = file.id
        self.fresh = not file.settled
        self._on_put = on_put
        self._life = life

    def records(self) -> tuple[Record, ...]:
        """See Store."""
        return tuple(self.file.records[key] for key in sorted(self.file.records))

    async def put(self, records: Sequence[Record]) -> None:
        """See Store."""
        await self._life.write(lambda: self._put(tuple(records)))

    def _put(self, records: tuple[Record, ...]) -> None:
        for record in records:
            before = self.file.records.get(record.build.id)
            if record.revision != (before.revision if before else 0) + 1:
                raise Stale(record.build.id)
        for record in records:
            self._on_put(record)
            self.file.records[record.build.id] = record

    async def forget(self, ids: Sequence[str]) -> None:
        """See Store."""
        await self._life.write(lambda: [self.file.records.pop(key, None) for key in ids])

    def nodes(self) -> tuple[KnownNode, ...]:
        """See Store."""
        return tuple(self.file.nodes.values())

    async def put_node(self, node: KnownNode) -> None:
        """See Store."""
        await self._life.write(lambda: self.file.nodes.__setitem__(node.id, node))

    async def forget_node(self, node: str) -> None:
        """See Store."""
        await self._life.write(lambda: self.file.nodes.pop(node, None))

    def plain_attempts(self) -> tuple[PlainAttempt, ...]:
        """See Store: there are no plain nodes in this world."""
        return ()

    async def put_plain(self, attempt: PlainAttempt) -> None:
        """See Store."""
        raise AssertionError("there are no plain nodes in this world")

    async def forget_plain(self, key: tuple[str, int]) -> None:
        """See Store."""
        raise AssertionError("there are no plain nodes in this world")

    async def check(self) -> None:
        """See Store."""

    async def erase(self) -> None:
        """See Store."""

    async def settle(self) -> None:
        """See Store."""
        await self._life.write(lambda: setattr(self.file, "settled", True))
        self.fresh = False


class NoFolder:
    """A data folder in which nothing is kept."""

    def __truediv__(self, name: str) -> "NoFolder":
        return self


class NoBlobs:
    """See BlobFolder; no build here takes anything from elsewhere."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def missing(self, _: Any, digests: Collection[str]) -> frozenset[str]:
        """See Blobs."""
        return frozenset(digests)

    def expire(self, *_: Any) -> None:
        """There is nothing."""


class NoPeople:
    """See People; whoever asks is somebody of the machine's."""

    callers: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    async def keep_house(self) -> None:
        """There is nobody."""

    async def close(self) -> None:
        """There is nothing."""


class NoBelonging:
    """See Belonging; nobody proves anything here."""

    listens = False

    def __init__(self, *_: Any) -> None:
        pass


_SIMPLE: dict[str, Any] = {
    "People": NoPeople,
    "Belonging": NoBelonging,
    "Records": MachineRecords,
    "ArtifactStore": engine.Artifacts,
    "BlobFolder": NoBlobs,
    "WorkFolder": engine.Folder,
    "remove_folder": engine.remove_folder,
    "ServedLog": engine.Log,
    "Tail": engine.Tail,
    "Metrics": NoMetrics,
    "prove_folder": lambda *_: "",
}
"""Name in the programs' modules -> what takes its place."""


def new_node(machine: engine.Machine, life: Life) -> Node:
    """One life of a node; to be called in it."""
    folder: Any = engine.Place(machine)
    return Node(replace(NODE, name=machine.name), folder, Identity(machine.name, life.boot))


def new_scheduler(
    name: str, file: StoreFile, life: Life, on_put: Callable[[Record], None], *, made: bool
) -> Scheduler:
    """One life of a scheduler; to be called in it. `made`: its identity is new."""
    store: Any = MachineStore(file, life, on_put)
    folder: Any = NoFolder()
    return Scheduler(SCHEDULER, Identity(name, life.boot, made), store, folder)


async def run(chores: Iterable[Any]) -> None:
    """What a program does for as long as it lives."""
    await asyncio.gather(*chores)


def find(scheduler: Scheduler, node: str) -> None:
    """A node is heard by mDNS."""
    scheduler.dispatcher.pool.find(node, (node,), "mdns")


def hear(scheduler: Scheduler, report: Report) -> None:
    """A report arrives again, or one that was not waited for; of a node that has been heard."""
    pool = scheduler.dispatcher.pool
    if any(entry.report and entry.report.id == report.id for entry in pool.entries()):
        pool.on_report(report)


async def attempted(work: Any) -> Any:
    """The answer, or the error that a client is told."""
    try:
        return await work
    except PoolError as error:
        return error

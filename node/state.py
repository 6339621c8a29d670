"""What a node states of itself: its facts, kept up to date by looks at engine and disk, and the
report made of them.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from node.config import NodeSettings
from node.core.capacity import Facts, capacity
from node.engines.base import Engine, EngineInfo
from node.engines.errors import EngineError
from node.network.outlet import Outlet
from protocol import VERSION
from protocol.concurrency.watch import Watch
from protocol.model.build import NodeReference
from protocol.model.messages import API_VERSION, Report
from protocol.model.record import Reported
from protocol.program.identity import Identity

_DOUBT = 3.0  # seconds for which an engine that ended a container by itself is not believed

log = logging.getLogger(__name__)


class NodeState:
    """The node's own condition. `look` refreshes it; `changed` moves whenever a report would
    differ.
    """

    def __init__(
        self,
        identity: Identity,
        node: NodeReference,
        settings: NodeSettings,
        engine: Engine,
        outlet: Outlet,
        folder: Path,
        clock: Callable[[], float],
    ) -> None:
        self.changed = Watch()
        self.leaving = False  # it shuts down now
        self.draining = False  # it will, when what runs has ended
        self.resuming = False  # it looks for what an earlier life left in the middle
        self.folder_problem = ""  # why containers cannot work with our folder
        self._identity = identity
        self._node = node
        self._settings = settings
        self._engine = engine
        self._outlet = outlet
        self._outlet_problem = ""  # why what builds reach is not as it is set
        self._folder = folder
        self._clock = clock
        self._info: EngineInfo | None = None
        self._images: frozenset[str] = frozenset()
        self._problem = "its engine was not asked yet"
        self._disk_free = 0
        self._doubted = -_DOUBT

    @property
    def token(self) -> str:
        """Opaque to others: another boot or another count is another state."""
        return f"{self._identity.boot}.{self.changed.count}"

    def facts_reason(self, used: int, waiting: int) -> str:
        """Why no build is taken now; empty where one is."""
        return capacity(self.facts(used, waiting))[1]

    async def look(self) -> None:
        """Ask engine and disk how they are."""
        before = (self._problem, self._images, self._outlet_problem)
        try:
            info = await asyncio.to_thread(self._engine.info)
            self._tell_of(info)
            self._info = info
            self._images = await asyncio.to_thread(self._engine.images)
            doubted = self._clock() < self._doubted + _DOUBT
            self._problem = "its engine ended a container by itself" if doubted else ""
        except EngineError as error:
            self._problem = f"its engine does not answer: {error}"
        self._outlet_problem = await asyncio.to_thread(self._outlet.problem)
        if self._outlet_problem and self._outlet_problem != before[2]:
            log.warning("no build is taken: %s", self._outlet_problem)
        self.look_at_disk()
        if before != (self._problem, self._images, self._outlet_problem):
            self.changed.touch()

    def _tell_of(self, info: EngineInfo) -> None:
        """Of an engine that was not seen before, or that has changed."""
        if info != self._info:
            namespaces = "in" if info.user_namespaces else "without"
            words = "engine %s %s; containers run %s user namespaces of their own"
            log.info(words, info.name, info.version, namespaces)

    async def doubt(self) -> None:
        """The engine ended a container by itself: it may be on its way down while it still answers,
        and a build that comes now would only be the next to end so.
        """
        self._doubted = self._clock()
        await self.look()

    def look_at_disk(self) -> int:
        """Bytes that are free where the node or its engine has least."""
        was_full = self._disk_free < self._settings.disk_reserve
        root = self._info.root if self._info is not None else ""
        self._disk_free = min(_free(folder) for folder in (self._folder, root) if folder)
        if was_full != (self._disk_free < self._settings.disk_reserve):
            self.changed.touch()
        return self._disk_free

    def disk_problem(self) -> str:
        """That the disk is full, looked at now; empty where it is not."""
        free = self.look_at_disk()
        full = free < self._settings.disk_floor
        return f"the node's disk is full, {free >> 20} MiB are free" if full else ""

    @property
    def images(self) -> frozenset[str]:
        """Images that need no pull."""
        return self._images

    async def keep_looking(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(self._settings.engine_check)
            await self.look()

    @property
    def engine_answers(self) -> bool:
        """Whether it did when it was asked last."""
        return not self._problem

    def drain(self) -> None:
        """No build is taken from now on."""
        self.draining = True
        self.changed.touch()

    def leave(self) -> None:
        """This is the end: held polls are answered so at once."""
        self.leaving = True
        self.changed.touch()

    def report(self, used: int, waiting: int, told: Reported) -> Report:
        """The report as of now."""
        status, reason = capacity(self.facts(used, waiting))
        info, settings = self._info, self._settings
        return Report(
            id=self._identity.id,
            boot=self._identity.boot,
            name=self._node.name,
            role="node",
            version=VERSION,
            api=API_VERSION,
            architecture=info.architecture if info else "",
            status=status,
            reason=reason,
            priority=settings.priority,
            token=self.token,
            slots=settings.slots,
            used=used,
            labels=settings.labels,
            images=tuple(sorted(self._images)),
            cpus=settings.cpus or (info.cpus if info else 0),
            memory=min(settings.memory, info.memory if info else settings.memory),
            disk_free=self._disk_free,
            leaving=self.leaving,
            builds=told.builds,
            wholes=told.wholes,
            more=told.more,
            clock=self._clock(),
        )

    def facts(self, used: int, waiting: int) -> Facts:
        """What decides whether builds are taken."""
        return Facts(
            slots=self._settings.slots,
            used=used,
            waiting=waiting,
            leaving=self.leaving or self.draining,
            resuming=self.resuming,
            engine_problem=self._problem or self.folder_problem,
            network_problem=self._outlet_problem,
            disk_free=self._disk_free,
            disk_reserve=self._settings.disk_reserve,
        )


def _free(folder: Path | str) -> int:
    """Bytes; without end where there is no such folder here, as with an engine elsewhere."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return room.f_bavail * room.f_frsize

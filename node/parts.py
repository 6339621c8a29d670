"""A node's parts: everything put together. Nothing imports this but `node/app.py`, and tests."""

import asyncio
import logging
import platform
import secrets
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tornado import web

from node.belonging import Belonging
from node.cleaner import Cleaner
from node.config import NodeSettings
from node.container import Place
from node.disk import DiskWatch, Reserve
from node.engines import ENGINES
from node.engines.base import Engine
from node.engines.errors import EngineError
from node.files.artifacts import ArtifactStore
from node.files.secrets_folder import SecretsFolder
from node.ledger import Ledger
from node.metrics import health as health_of
from node.network.outlet import Outlet
from node.proof import prove_folder
from node.records import Records
from node.runner import Runner
from node.service import NodeService
from node.state import NodeState
from protocol.api import transfers
from protocol.api.callers import Callers, ProvenCallers
from protocol.api.mount import application
from protocol.api.route import Context, Route
from protocol.builds.board import Board
from protocol.builds.notices import Notices
from protocol.errors import Invalid
from protocol.model.build import Build, NodeReference
from protocol.model.lifecycle import Event
from protocol.program import families, mdns
from protocol.program.admitting import People, pool_address, transfer_address
from protocol.program.beacon import Beacon
from protocol.program.identity import Identity
from protocol.program.logs import log_step
from protocol.program.metrics import Metrics, Program, new_steps
from protocol.program.running import Listener
from protocol.program.source import source
from protocol.storage.blob_folder import BlobFolder
from protocol.storage.database import keep_erasing
from protocol.trust.owned import OwnedService
from protocol.trust.tickets import Tickets

log = logging.getLogger(__name__)

ROUTES = families.ROUTES
"""The API families that a node serves."""
_SPARE = 32  # threads for containers that are slow to end, beyond one for each slot
_LAST_REPORT = 0.2  # seconds in which schedulers fetch the report that says goodbye


class Node:
    """A node's parts, made and ended in order."""

    def __init__(self, settings: NodeSettings, folder: Path, me: Identity) -> None:
        if settings.engine not in ENGINES:
            raise Invalid(
                f"there is no engine {settings.engine!r}",
                field="engine",
                expected=" or ".join(ENGINES),
            )
        self.identity = me
        self.settings = settings
        self.metrics = Metrics(Program(me.id, settings.name or platform.node(), "node"))
        self.belonging = Belonging(settings, folder, settings.name or platform.node())
        self.people = People(folder, settings, time.time)
        self._transfers: transfers.Transfers | None = None  # from when its listener is there
        self.engine: Engine = ENGINES[settings.engine](folder)
        self.node = NodeReference(me.id, settings.name or platform.node())
        self.outlet = Outlet(self.engine, settings, me.id, member=self.belonging.listens)
        self.state = NodeState(
            *(me, self.node, settings, self.engine, self.outlet), folder, time.time
        )
        reserve = Reserve(folder)
        self.records = Records(folder, reserve.release)
        self.ledger = Ledger(self.records)
        place = self._place(folder)
        self.runner = Runner(place, self.state, self.ledger, folder / "logs")
        self.service = NodeService(place, self.state, self.ledger, self.runner)
        self.notices = Notices(me.id, self.ledger, settings, self._cancel)
        self.disk = DiskWatch(place, self.state, self.runner, reserve)
        self.cleaner = Cleaner(place, self.runner, self.records, self.service.keeping, self.state)
        self.health = health_of(
            self.metrics,
            self.ledger.board,
            lambda: self.state.facts(self.runner.used, self.runner.waiting),
            lambda: len(self.state.images),
        )

    def _place(self, folder: Path) -> Place:
        """What builders work with."""
        self._work = folder / "work"
        self._secrets = SecretsFolder(Path(self.settings.secrets_folder), self.node.id)
        inputs = folder / "inputs"
        for private in (self._work, inputs):
            private.mkdir(exist_ok=True, mode=0o700)
        # The loop's own threads are few, and for what is short: were they all to wait for the ends
        # of builds, none could be cancelled, begun or downloaded.
        self._long = ThreadPoolExecutor(self.settings.slots + _SPARE, "engine")
        artifacts = self._artifacts = ArtifactStore(folder / "artifacts")
        return Place(
            node=self.node,
            settings=self.settings,
            engine=self.engine,
            outlet=self.outlet,
            long=self._long,
            artifacts=artifacts,
            blobs=BlobFolder(
                folder / "blobs",
                limit=self.settings.upload_limit,
                reserve=self.settings.disk_reserve,
                elsewhere=partial(_made_here, self.ledger.board, artifacts),
            ),
            work=self._work,
            inputs=inputs,
            secrets=self._secrets,
            secrets_of=self.ledger.secrets_of,
            clock=time.time,
            publish=self._publish,
            keep=self.ledger.keep,
            used_image=self._used_image,
            look=self.state.look,
            doubt=self.state.doubt,
            disk_problem=self.state.disk_problem,
            away=self.ledger.away,
        )

    def _publish(self, build: Build) -> None:
        before = self.ledger.known(build.id)
        self.ledger.publish(build)
        self.metrics.changed(before, build)
        for step in new_steps(before, build):
            log_step(log, build, step)
        self.state.changed.touch()

    async def _cancel(self, build_id: str, cause: str) -> None:
        """End a build. Raises Unavailable."""
        await self.runner.end(build_id, Event.CANCEL, cause)

    async def _used_image(self, name: str, pulled: bool) -> None:
        """Note when an image that this node pulled was used, to know when it is old."""
        if pulled or name in await self.records.images():
            await self.records.used_image(name, time.time())

    async def start(self) -> None:
        """Look at the engine, prove that containers see our folder, go on with what an earlier life
        left in the middle. Where the engine does not answer, the last is done when it does.
        """
        self.notices.begin()
        if problem := self._secrets.problem():
            log.warning("builds with secrets are not taken: %s", problem)
        await self.state.look()
        self.state.resuming = True
        self._resuming = asyncio.create_task(self._resume())
        if self.state.engine_answers:
            await self._resuming
            try:
                self.state.folder_problem = await asyncio.to_thread(self._proof)
            except EngineError as error:
                log.error("%s", error)

    async def _resume(self) -> None:
        await self.runner.resume()
        await self.cleaner.clean()
        self.state.resuming = False
        self.state.changed.touch()
        self.runner.fill_slots()

    def _proof(self) -> str:
        word = secrets.token_hex(8)
        return prove_folder(self.engine, self.settings, self._work, word, self.identity.id)

    def chores(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What is to run for as long as the node serves."""
        return (
            self.state.keep_looking(),
            self.runner.keep_filling(),
            self.disk.keep_looking(),
            self.cleaner.keep_cleaning(self.settings.clean_every),
            self.metrics.watch_loop(),
            self.people.keep_house(),
            keep_erasing(self.records.erase, self.settings.erase_every),
        )

    def members_listener(self) -> Listener | None:
        """Where it serves the schedulers of its pools; None where it is in none. Raises Invalid."""
        if not self.belonging.listens:
            return None
        address = pool_address(self.settings, member=True)
        return Listener(self.settings, address, self.belonging.memberships.server())

    def transfer_listener(self) -> Listener | None:
        """Where it gives artifacts without TLS; None where it does not. Raises Invalid."""
        if not self.belonging.listens or self.settings.transfers != "plain":
            return None
        address = transfer_address(self.settings, self.settings.transfer_listen)
        listener = Listener(self.settings, address, field="transfer_listen")
        tickets = Tickets(self.settings.ticket_life, time.monotonic)
        self._transfers = transfers.Transfers(tickets, self._artifacts.marks, listener.port)
        return listener

    def transfer_web(self) -> web.Application:
        """The HTTP application there."""
        extras: dict[str, Any] = {"transfers": self._transfers, "people": self.people}
        extras["http"] = self.metrics.answered
        service = OwnedService(self.service)
        context = Context(service, self.settings, transfers.Anybody(), extras)
        return application(context, transfers.ROUTES)

    def web(self, *, members: bool = False) -> web.Application:
        """The HTTP application for clients, or for members of its pools."""
        extras = {
            "source": source,
            "health": self.health,
            "http": self.metrics.answered,
            "blobs": self.service,
            "people": self.people,
            "transfers": self._transfers,
        }
        callers: Callers = self.people.callers
        routes: tuple[Route, ...] = ROUTES
        if members:
            callers = ProvenCallers(self.belonging.memberships, lambda program: False)
            routes += transfers.TICKET_ROUTES
        return application(
            Context(OwnedService(self.service), self.settings, callers, extras), routes
        )

    def beacon(self, listener: Listener, members: Listener | None) -> Beacon:
        """What it advertises."""
        at = members or listener
        return Beacon(
            id=self.identity.id,
            boot=self.identity.boot,
            pool=self.settings.pool,
            role="node",
            port=listener.port,
            addresses=mdns.addresses(at.host),
            pool_port=members.port if members and self.belonging.pool else 0,
            pool_id=self.belonging.pool,
            name=self.node.name[:200],
        )

    async def leave(self) -> None:
        """Take nothing new, let what runs end within the limit, and tell every scheduler that
        asks.
        """
        self.state.drain()
        await self.runner.close("the node was shut down", self.settings.drain_limit)
        self.state.leave()
        await asyncio.sleep(_LAST_REPORT)

    async def close(self) -> None:
        """Write down what is not yet, and let go of the engine."""
        self._resuming.cancel()
        await self.notices.close()
        await self.ledger.close()
        await self.people.close()
        await self.belonging.close()
        if self.state.engine_answers:
            await asyncio.to_thread(self.outlet.let_go)
        self.engine.close()
        self._long.shutdown(wait=False, cancel_futures=True)


def _made_here(board: Board, artifacts: ArtifactStore, digest: str) -> Path | None:
    """Where an artifact with this digest lies that a build made here."""
    for build in board:
        for artifact in build.artifacts:
            if artifact.sha256 == digest and artifact.kept and not artifact.growing:
                path = artifacts.path(build.id, artifact.name)
                if path.exists():
                    return path
    return None

"""The node program: everything put together. Nothing imports this but the command line."""

import asyncio
import contextlib
import logging
import platform
import secrets
import time
from pathlib import Path

from tornado import web

from node.artifacts import ArtifactStore
from node.config import NodeSettings
from node.container import LABEL, Place
from node.engines import ENGINES
from node.engines.base import Engine, EngineError
from node.proof import prove_folder
from node.register import keep_registering
from node.service import NodeService
from node.state import NodeState
from protocol import identity, mdns
from protocol.api import image_creator, native
from protocol.api.mount import application
from protocol.api.route import Context
from protocol.beacon import Beacon
from protocol.errors import Invalid
from protocol.identity import Identity
from protocol.model import NodeReference
from protocol.program import Listener, Ready
from protocol.settings import data_folder
from protocol.source import source

log = logging.getLogger(__name__)

ROUTES = (*image_creator.ROUTES, *native.ROUTES)
"""The API families that a node serves."""
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
        self.engine: Engine = ENGINES[settings.engine]()
        self.node = NodeReference(me.id, settings.name or platform.node())
        self.state = NodeState(me, self.node, settings, self.engine, folder, time.time)
        self._work = folder / "work"
        place = Place(
            node=self.node,
            settings=settings,
            engine=self.engine,
            artifacts=ArtifactStore(folder / "artifacts"),
            work=self._work,
            clock=time.time,
            publish=lambda build: None,
        )
        self._work.mkdir(exist_ok=True, mode=0o700)
        self.service = NodeService(place, self.state, folder / "logs")

    async def start(self) -> None:
        """Look at the engine, remove what an earlier life left on it, prove that containers see
        our folder.
        """
        await self.state.look()
        try:
            await asyncio.to_thread(self._remove_leftovers)
            self.state.folder_problem = await asyncio.to_thread(self._proof)
        except EngineError as error:
            log.error("%s", error)

    def _proof(self) -> str:
        word = secrets.token_hex(8)
        return prove_folder(self.engine, self.settings, self._work, word, self.identity.id)

    def _remove_leftovers(self) -> None:
        for container in self.engine.containers({f"{LABEL}.node": self.identity.id}):
            log.info("removing the container %s of an earlier life", container.name)
            self.engine.remove(container.id)

    def web(self) -> web.Application:
        """The HTTP application."""
        context = Context(self.service, self.settings, {"source": source})
        return application(context, ROUTES)

    def beacon(self, listener: Listener) -> Beacon:
        """What it advertises."""
        return Beacon(
            id=self.identity.id,
            boot=self.identity.boot,
            pool=self.settings.pool,
            role="node",
            port=listener.port,
            addresses=mdns.addresses(listener.host),
            name=self.node.name[:200],
        )

    async def keep_house(self) -> None:
        """Forget what is old."""
        while True:
            await asyncio.sleep(60)
            self.service.forget_old()

    async def leave(self) -> None:
        """End the builds and tell every scheduler that asks."""
        self.state.leave()
        await self.service.close("the node was shut down")
        await asyncio.sleep(_LAST_REPORT)


async def run(settings: NodeSettings, ready: Ready, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises PoolError where it cannot start."""
    folder = data_folder(settings, "node")
    with identity.open_data(folder):
        node = Node(settings, folder, identity.load(folder))
        listener = Listener(settings)
        await node.start()
        server = listener.serve(node.web(), settings)
        async with contextlib.AsyncExitStack() as ending:
            ending.callback(node.engine.close)
            ending.push_async_callback(server.close_all_connections)
            ending.callback(server.stop)
            ending.push_async_callback(node.leave)
            if settings.mdns:
                found = mdns.Mdns(settings, listener.host)
                ending.push_async_callback(found.close)
                await found.advertise(node.beacon(listener))
            chores = [node.state.keep_looking(), node.keep_house()]
            chores += [
                keep_registering(url, listener, settings.register_every)
                for url in settings.schedulers
            ]
            tasks = [asyncio.create_task(chore) for chore in chores]
            ending.callback(lambda: [task.cancel() for task in tasks])
            ready(listener.url)
            await stop.wait()

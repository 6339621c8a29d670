"""The scheduler program: everything put together. Nothing imports this but the command line."""

import asyncio
import contextlib
import logging
import platform
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tornado import web

from protocol.api.callers import Callers, ProvenCallers
from protocol.api.mount import application
from protocol.api.route import Context, Route
from protocol.builds.board import Board
from protocol.builds.notices import Notices
from protocol.errors import PoolError
from protocol.model.build import Build
from protocol.ports.service import Caller, Role
from protocol.program import families, identity, mdns
from protocol.program.admitting import People, pool_address
from protocol.program.beacon import Beacon
from protocol.program.identity import Identity
from protocol.program.joining import AUTHORITY_PATH, JOIN_PATH
from protocol.program.logs import log_step
from protocol.program.metrics import Metrics, Program, new_steps
from protocol.program.running import Listener, Ready
from protocol.program.settings import data_folder
from protocol.program.source import source
from protocol.remote import tls_buffer
from protocol.storage.blob_folder import BlobFolder
from protocol.storage.database import keep_erasing
from protocol.trust.owned import OwnedService
from protocol.trust.seal import Seal
from scheduler.config import SchedulerSettings
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.ledger import Ledger
from scheduler.metrics import health as health_of
from scheduler.pool.discovery import Discovery
from scheduler.pool.door import Door, Membered
from scheduler.roster import door_api, nodes_api
from scheduler.roster.listing import Listing
from scheduler.roster.node_feed import RosterFeed
from scheduler.service import SchedulerService
from scheduler.stores import open_store
from scheduler.stores.base import Store
from scheduler.web import pages

log = logging.getLogger(__name__)

ROUTES = (
    *families.ROUTES,
    *nodes_api.ROUTES,
    *door_api.ROUTES,
    *pages.ROUTES,
)
"""The API families that a scheduler serves, and its page."""
MEMBERS_ROUTES = (
    *door_api.POOL_ROUTES,
    *families.AMONG_PROGRAMS,
    *nodes_api.ROUTES,
)
"""What it serves members of its pool, and who asks to be one."""
_HOUSE = 60.0  # seconds between looks for what is old
_SPARE = 256 << 20  # bytes of the disk that uploads leave free
_LAST_REPORT = 0.2  # seconds in which schedulers above fetch the report that says goodbye


class Scheduler:
    """A scheduler's parts."""

    def __init__(
        self, settings: SchedulerSettings, me: Identity, store: Store, folder: Path
    ) -> None:
        """`folder`: of its own, for what is uploaded."""
        self.identity = me
        self.settings = settings
        self.name = settings.name or platform.node()
        self.store = store
        self.metrics = Metrics(Program(me.id, self.name, "scheduler"))
        self.people = People(folder, settings, time.time)
        self.membered = Membered(folder, settings, time.time) if pool_address(settings) else None
        own = self.membered.own if self.membered else None
        ledger = Ledger(Board(), store)
        ledger.observe = self._observe
        caller = Caller(owner="", role=Role.PROGRAM, program=me.id, store=store.id)
        uploads = BlobFolder(folder / "blobs", limit=settings.upload_limit, reserve=_SPARE)
        self.dispatcher = Dispatcher(caller, settings, ledger, uploads, Seal(me.secret), own)
        self.door = self._door()
        self.service = SchedulerService(me, self.name, settings, self.dispatcher)
        self.notices = Notices(me.id, ledger, settings, self.dispatcher.cancel)
        self.discovery = Discovery(
            self.dispatcher.pool, me.id, settings.pool, own.pool if own else ""
        )
        self.listing = Listing(self.name, self.dispatcher, self.discovery)
        self.health = health_of(
            self.metrics,
            ledger.board,
            self.listing.roster,
            lambda: self.service.leaving,
            {"store": self._store_problem},
        )

    def _door(self) -> Door | None:
        if self.membered is None:
            return None
        pool = self.dispatcher.pool
        return Door(self.membered, pool.known, self.settings, pool.ask_anew)

    def _observe(self, before: Build | None, after: Build) -> None:
        self.metrics.changed(before, after)
        for step in new_steps(before, after):
            log_step(log, after, step)

    def members_listener(self) -> Listener | None:
        """Where it serves members of the pool; None where there are none. Raises Invalid."""
        if self.membered is None:
            return None
        context = self.membered.memberships.server()
        return Listener(self.settings, pool_address(self.settings), context)

    async def _store_problem(self) -> str:
        try:
            await self.store.check()
        except PoolError as error:
            return error.detail
        return self.dispatcher.ledger.problem

    def web(self, *, members: bool = False) -> web.Application:
        """The HTTP application for clients, or for members of the pool."""
        extras: dict[str, Any] = {
            "door": self.door,
            "source": source,
            "roster": self.listing,
            "node_feed": RosterFeed(self.listing.roster),
            "health": self.health,
            "http": self.metrics.answered,
            "blobs": self.service,
            "people": self.people,
        }
        callers: Callers = self.people.callers
        routes: tuple[Route, ...] = ROUTES
        if members:
            assert self.membered is not None
            assert self.door is not None
            callers = ProvenCallers(
                self.membered.memberships,
                self.door.admission.is_revoked,
                for_strangers=(AUTHORITY_PATH, JOIN_PATH),
            )
            routes = MEMBERS_ROUTES
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
            role="scheduler+node" if self.settings.advertise_as_node else "scheduler",
            port=listener.port,
            addresses=mdns.addresses(at.host),
            pool_port=members.port if members else 0,
            pool_id=self.membered.authority.pool if self.membered else "",
            name=self.name[:200],
        )

    def begin(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Ask after the nodes that are known, tell what is untold; what is to run from now on.
        Raises Invalid.
        """
        self.discovery.named_plain(self.settings.plain_nodes, self.settings.nodes)
        self.dispatcher.pool.remember()
        self.notices.begin()
        recover = self.store.fresh and not self.identity.made
        return (
            self.dispatcher.ledger.keep_writing(),
            self.dispatcher.run(recover=recover),
            self.keep_house(),
            self.metrics.watch_loop(),
            self.people.keep_house(),
            keep_erasing(self.store.erase, self.settings.erase_every),
            *((self.door.keep(),) if self.door else ()),
        )

    async def keep_house(self) -> None:
        """Forget what is old."""
        while True:
            await asyncio.sleep(_HOUSE)
            try:
                await self.service.keeping.forget_old()
            except PoolError as error:
                log.warning("old builds could not be forgotten: %s", error.detail)

    async def close(self) -> None:
        """Stop placing and polling, and write down what is not yet."""
        await self.notices.close()
        await self.service.keeping.close()
        await self.dispatcher.close()
        await self.dispatcher.ledger.close()
        await self.store.close()
        await self.people.close()

    async def leave(self) -> None:
        """Tell schedulers above us."""
        self.service.leave()
        if self.settings.advertise_as_node:
            await asyncio.sleep(_LAST_REPORT)


async def run(settings: SchedulerSettings, ready: Ready, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises PoolError where it cannot start."""
    folder = data_folder(settings, "scheduler")
    tls_buffer.share()  # there is a connection to each node, and all downloads come by these
    with identity.open_data(folder):
        me = identity.load(folder)
        store = open_store(settings.store, folder)
        scheduler = Scheduler(settings, me, store, folder)
        scheduler.people.check_reach()
        listener = Listener(settings)
        members = scheduler.members_listener()
        servers = [listener.serve(scheduler.web(), settings)]
        if members:
            servers.append(members.serve(scheduler.web(members=True), settings))
        async with contextlib.AsyncExitStack() as ending:
            for server in servers:
                ending.push_async_callback(server.close_all_connections)
                ending.callback(server.stop)
            ending.push_async_callback(scheduler.close)
            ending.push_async_callback(scheduler.leave)
            if settings.mdns:
                found = mdns.Mdns(settings, (members or listener).host)
                ending.push_async_callback(found.close)
                found.browse(scheduler.discovery.found, scheduler.discovery.gone)
                await found.advertise(scheduler.beacon(listener, members))
            scheduler.discovery.named(settings.nodes)
            tasks = [asyncio.create_task(chore) for chore in scheduler.begin()]
            ending.callback(lambda: [task.cancel() for task in tasks])
            ready(listener.url)
            await stop.wait()

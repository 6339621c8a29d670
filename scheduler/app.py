"""The scheduler program: everything put together. Nothing imports this but the command line."""

import asyncio
import contextlib
import logging
import platform

from tornado import web

from protocol import identity, mdns
from protocol.api import image_creator, native
from protocol.api.mount import application
from protocol.api.route import Context
from protocol.beacon import Beacon
from protocol.board import Board
from protocol.identity import Identity
from protocol.program import Listener, Ready
from protocol.settings import data_folder
from protocol.source import source
from scheduler.config import SchedulerSettings
from scheduler.discovery import Discovery
from scheduler.dispatch import Dispatcher
from scheduler.ledger import Ledger
from scheduler.listing import Listing
from scheduler.service import SchedulerService
from scheduler.web import pages

log = logging.getLogger(__name__)

ROUTES = (*image_creator.ROUTES, *native.ROUTES, *pages.ROUTES)
"""The API families that a scheduler serves, and its page."""
_LAST_REPORT = 0.2  # seconds in which schedulers above fetch the report that says goodbye


class Scheduler:
    """A scheduler's parts."""

    def __init__(self, settings: SchedulerSettings, me: Identity) -> None:
        self.identity = me
        self.settings = settings
        self.name = settings.name or platform.node()
        self.dispatcher = Dispatcher(me.id, settings, Ledger(Board()))
        self.service = SchedulerService(me, self.name, settings, self.dispatcher)
        self.discovery = Discovery(self.dispatcher.pool, me.id, settings.pool)
        self.listing = Listing(self.name, self.dispatcher, self.discovery)

    def web(self) -> web.Application:
        """The HTTP application."""
        extras = {"source": source, "roster": self.listing}
        return application(Context(self.service, self.settings, extras), ROUTES)

    def beacon(self, listener: Listener) -> Beacon:
        """What it advertises."""
        return Beacon(
            id=self.identity.id,
            boot=self.identity.boot,
            pool=self.settings.pool,
            role="scheduler+node" if self.settings.advertise_as_node else "scheduler",
            port=listener.port,
            addresses=mdns.addresses(listener.host),
            name=self.name[:200],
        )

    async def keep_house(self) -> None:
        """Forget what is old."""
        while True:
            await asyncio.sleep(60)
            self.service.forget_old()

    async def leave(self) -> None:
        """Tell schedulers above us."""
        self.service.leaving = True
        self.dispatcher.pool.changed.touch()
        if self.settings.advertise_as_node:
            await asyncio.sleep(_LAST_REPORT)


async def run(settings: SchedulerSettings, ready: Ready, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises PoolError where it cannot start."""
    folder = data_folder(settings, "scheduler")
    with identity.open_data(folder):
        scheduler = Scheduler(settings, identity.load(folder))
        listener = Listener(settings)
        server = listener.serve(scheduler.web(), settings)
        async with contextlib.AsyncExitStack() as ending:
            ending.push_async_callback(server.close_all_connections)
            ending.callback(server.stop)
            ending.push_async_callback(scheduler.dispatcher.close)
            ending.push_async_callback(scheduler.leave)
            if settings.mdns:
                found = mdns.Mdns(settings, listener.host)
                ending.push_async_callback(found.close)
                found.browse(scheduler.discovery.found, scheduler.discovery.gone)
                await found.advertise(scheduler.beacon(listener))
            scheduler.discovery.named(settings.nodes)
            chores = [scheduler.dispatcher.run(), scheduler.keep_house()]
            tasks = [asyncio.create_task(chore) for chore in chores]
            ending.callback(lambda: [task.cancel() for task in tasks])
            ready(listener.url)
            await stop.wait()

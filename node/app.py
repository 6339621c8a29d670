"""The node program: its parts, its listeners, and being found. Nothing imports this but the command
line.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

from node.config import NodeSettings
from node.parts import Node
from node.register import keep_registering
from protocol.ports.service import Caller, Role
from protocol.program import identity, mdns
from protocol.program.logs import about
from protocol.program.running import Listener, Ready, announce_joined
from protocol.program.settings import data_folder


async def run(settings: NodeSettings, ready: Ready, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises PoolError where it cannot start."""
    folder = data_folder(settings, "node")
    with identity.open_data(folder), contextlib.ExitStack() as named:
        me = identity.load(folder)
        named.enter_context(about(node=me.id))
        node = Node(settings, folder, me)
        node.people.check_reach()
        listener, members = Listener(settings), node.members_listener()
        plain = node.transfer_listener()
        await node.start()
        servers = [listener.serve(node.web(), settings)]
        if members:
            servers.append(members.serve(node.web(members=True), settings))
        if plain:
            servers.append(plain.serve(node.transfer_web(), settings))
        async with contextlib.AsyncExitStack() as ending:
            ending.push_async_callback(node.close)
            for server in servers:
                ending.push_async_callback(server.close_all_connections)
                ending.callback(server.stop)
            ending.push_async_callback(node.leave)
            presence = Presence(node, listener, members)
            ending.push_async_callback(presence.close)
            await presence.begin()
            chores = (*node.chores(), *node.belonging.chores(presence.joined), *presence.telling())
            tasks = [asyncio.create_task(chore) for chore in chores]
            ending.callback(lambda: [task.cancel() for task in tasks])
            ready(listener.url)
            await stop.wait()


class Presence:
    """How a node is found: by mDNS, and by telling schedulers that this does not reach."""

    def __init__(self, node: Node, listener: Listener, members: Listener | None) -> None:
        self._node = node
        self._listener = listener
        self._members = members
        self._found: mdns.Mdns | None = None
        self._advertising: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Advertise the node, and look out for schedulers where it is to be a member."""
        if self._node.settings.mdns:
            host = (self._members or self._listener).host
            self._found = mdns.Mdns(self._node.settings, host)
            if self._node.belonging.listens:
                self._found.browse(self._node.belonging.found, self._node.belonging.gone)
            await self._advertise(self._found)

    def joined(self, pool: str, url: str) -> None:
        """It is a member now: that is said, and advertised."""
        announce_joined(pool, url, self._node.settings.priority)
        if self._found is not None:
            self._advertising = asyncio.create_task(self._advertise(self._found))

    async def _advertise(self, found: mdns.Mdns) -> None:
        await found.advertise(self._node.beacon(self._listener, self._members))

    def telling(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Registering with the schedulers that settings name."""
        settings = self._node.settings
        me = Caller(owner="", role=Role.PROGRAM, program=self._node.identity.id)
        return tuple(
            keep_registering(
                url,
                self._members if self._members and url.startswith("https:") else self._listener,
                settings.register_every,
                me,
                partial(self._node.belonging.secured, url),
            )
            for url in settings.schedulers
        )

    async def close(self) -> None:
        """Be found no more."""
        if self._advertising is not None:
            self._advertising.cancel()
        if self._found is not None:
            await self._found.close()

"""Programs of a pool inside the test's own process, on loopback sockets: real servers, real
clients, no mDNS.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from tornado.httpserver import HTTPServer

from node.config import NodeSettings
from node.parts import Node
from protocol.model.build import Build, State
from protocol.model.messages import Roster
from protocol.model.recipe import Command, NoOutput, Recipe
from protocol.model.request import BuildRequest, Guidance, Needs
from protocol.ports.service import LOCAL, BuildService, Caller
from protocol.program import identity
from protocol.program.running import Listener
from protocol.remote.client import HttpService
from scheduler.app import Scheduler
from scheduler.config import SchedulerSettings
from scheduler.stores import open_store

_names = itertools.count()

HERE = ("public", "private", "loopback")
"""Whom programs may call in tests: all their peers are on loopback."""
QUICK = {"hold": 1.0, "patience": 1.0, "retry": 0.05, "silent_after": 2.0, "lost_after": 3.0}
"""Scheduler's times for tests, in seconds."""

OPEN = {"build_network": "open", "dockerfiles": True}
"""A node's settings that leave the machine's firewall alone, and let builds do what they can."""


class Program(Struct):
    """A program that serves."""

    id: str
    url: str
    service: BuildService
    parts: Any  # the Node or Scheduler
    members_url: str = ""  # where it serves members of its pool


@asynccontextmanager
async def a_node(folder: Path, *, home: str = "", **settings: Any) -> AsyncIterator[Program]:
    """A node, with the dummy engine unless the settings say otherwise; with `home` the one that had
    this data folder before.
    """
    name = home or f"node{next(_names)}"
    chosen = {
        "engine": "dummy",
        "name": name,
        "disk_reserve": 0,
        "drain_limit": 0,
        "fetch_networks": HERE,
        "notice_networks": HERE,
        **settings,
    }
    chosen = {**OPEN, **chosen}
    own = NodeSettings(listen="127.0.0.1:0", mdns=False, **chosen)
    data = folder / name
    with identity.open_data(data):
        node = Node(own, data, identity.load(data))
        listener, members = Listener(own), node.members_listener()
        plain = node.transfer_listener()
        await node.start()
        servers = [listener.serve(node.web(), own)]
        if members:
            servers.append(members.serve(node.web(members=True), own))
        if plain:
            servers.append(plain.serve(node.transfer_web(), own))
        chores = [asyncio.create_task(chore) for chore in node.chores()]
        belonging = node.belonging.chores(lambda pool, url: None)
        chores += [asyncio.create_task(chore) for chore in belonging]
        try:
            there = members.url if members else ""
            yield Program(node.identity.id, listener.url, node.service, node, there)
        finally:
            await _ended(chores)
            await node.leave()
            await _stopped(servers)
            await node.close()


@asynccontextmanager
async def a_scheduler(
    folder: Path, *nodes: str, home: str = "", **settings: Any
) -> AsyncIterator[Program]:
    """A scheduler over the nodes at these URLs; with `home` the one that had this data folder."""
    name = home or f"scheduler{next(_names)}"
    chosen = {"name": name, "nodes": nodes, "notice_networks": HERE, **QUICK, **settings}
    own = SchedulerSettings(listen="127.0.0.1:0", mdns=False, **chosen)
    data = folder / name
    with identity.open_data(data):
        scheduler = Scheduler(own, identity.load(data), open_store(own.store, data), data)
        listener, members = Listener(own), scheduler.members_listener()
        servers = [listener.serve(scheduler.web(), own)]
        if members:
            servers.append(members.serve(scheduler.web(members=True), own))
        scheduler.discovery.named(own.nodes)
        chores = [asyncio.create_task(chore) for chore in scheduler.begin()]
        try:
            there = members.url if members else ""
            yield Program(scheduler.identity.id, listener.url, scheduler.service, scheduler, there)
        finally:
            await _ended(chores)
            await scheduler.leave()
            await _stopped(servers)
            await scheduler.close()


async def _stopped(servers: list[HTTPServer]) -> None:
    for server in servers:
        server.stop()
        await server.close_all_connections()


async def _ended(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@asynccontextmanager
async def a_client(url: str, caller: Caller | None = None) -> AsyncIterator[HttpService]:
    """The build service over HTTP."""
    client = HttpService(url, caller=caller)
    try:
        yield client
    finally:
        await client.close()


def request(
    *texts: str, output: Any = None, keep_going: bool = False, **guidance: Any
) -> BuildRequest:
    """A build of these commands, without an image as output unless asked for."""
    commands = tuple(Command(f"command {i}", text=text) for i, text in enumerate(texts))
    needs = guidance.pop("needs", Needs())
    recipe = Recipe(commands, output=output or NoOutput(), keep_going=keep_going)
    return BuildRequest(recipe, Guidance(needs=needs, **guidance))


async def ended(service: BuildService, build_id: str, seconds: float = 20) -> Build:
    """The build when it has stopped."""
    return await until(service, build_id, lambda build: build.state is State.STOPPED, seconds)


async def until(
    service: BuildService, build_id: str, sight: Callable[[Build], bool], seconds: float = 20
) -> Build:
    """The build as soon as it looks like that."""
    async with asyncio.timeout(seconds):
        build = await service.get(LOCAL, build_id)
        while not sight(build):
            build = await service.get(LOCAL, build_id, after=build.revision, wait=5)
        return build


async def log_of(service: BuildService, build_id: str) -> bytes:
    """The whole log, as it is now."""
    from protocol.model.build import Position

    opened = await service.open_log(LOCAL, build_id, Position())
    return b"".join([piece async for piece in opened.stream])


async def roster_until(
    program: Program, sight: Callable[[Roster], bool], seconds: float = 10
) -> Roster:
    """The scheduler's roster as soon as it looks like that."""
    pool = program.parts.dispatcher.pool
    async with asyncio.timeout(seconds):
        while not sight(roster := program.parts.listing.roster()):
            await pool.changed.wait(pool.changed.count, 0.2)
        return roster


async def ready(program: Program, count: int = 1) -> Program:
    """The scheduler, when so many of its nodes are ready."""
    await roster_until(
        program, lambda roster: sum(node.state == "ready" for node in roster.nodes) >= count
    )
    return program

"""The scheduler's store is deleted: what was forwarded comes back from the nodes, with its owners,
results, keys and downloads; what only waited is gone.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct

from protocol.errors import NotFound
from protocol.model.build import Build, Result, State
from protocol.model.recipe import IsoOutput
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL, Caller, Role
from protocol.remote.client import HttpService
from tests.chaos.client import Client
from tests.chaos.journal import Play, plays, starts
from tests.chaos.local import a_node, a_scheduler, begin_all, end_all, free_port
from tests.chaos.proxy import Proxy
from tests.figures import Figures
from tests.programs import request

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=90)]

OWNERS = ("alice", "bob", "carol")
HOUR = 3600.0
RUN = 6.0
"""Seconds that a build of the middle group runs; the store is lost and found meanwhile."""
RECOVERY = {"recover_least": 0.5, "recover_most": 10.0}


class Group(Struct):
    """Builds of one kind: as they were when they were made, by key."""

    builds: dict[str, Build]
    asked: dict[str, BuildRequest]

    @property
    def ids(self) -> set[str]:
        """Of the builds."""
        return {build.id for build in self.builds.values()}


class Pool:
    """A scheduler over two nodes, a proxy before each, and a client of each owner; a context
    manager.
    """

    def __init__(self, folder: Path, slots: int, *clocks: float) -> None:
        """`slots`: of each node; `clocks`: seconds that each one's clock is ahead."""
        self.nodes = [
            a_node(folder / f"node{number}", slots=slots, clock=clock)
            for number, clock in enumerate(clocks)
        ]
        self.proxies = [Proxy(free_port(), node.port) for node in self.nodes]
        urls = [proxy.url for proxy in self.proxies]
        self.scheduler = a_scheduler(folder / "scheduler", *urls, **RECOVERY)
        self.clients = {owner: Client(self.scheduler.url, owner) for owner in OWNERS}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Pool":
        programs = [*self.nodes, self.scheduler]
        self._stack.callback(end_all, programs)
        begin_all(programs)
        for proxy in self.proxies:
            await self._stack.enter_async_context(proxy)
        for client in self.clients.values():
            await self._stack.enter_async_context(client)
        await self.anyone.has_ready(len(self.nodes))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def anyone(self) -> Client:
        """One of the clients."""
        return self.clients[OWNERS[0]]

    def plays(self) -> list[Play]:
        """What the nodes played."""
        return plays(*(node.data for node in self.nodes))

    async def make(self, name: str, count: int, *lines: str, output: Any = None) -> Group:
        """So many builds of this script, the owners taking turns."""
        made = Group({}, {})
        for number in range(count):
            key = f"{name}-{number}"
            made.asked[key] = request("\n".join(lines), output=output)
        await self.ask(made)
        return made

    async def ask(self, group: Group) -> None:
        """Create the group's builds, or repeat that."""
        owners = dict(zip(group.asked, OWNERS * len(group.asked), strict=False))
        made = await asyncio.gather(
            *(self.clients[owners[key]].create(asked, key) for key, asked in group.asked.items())
        )
        group.builds = dict(zip(group.asked, made, strict=True))

    async def lose_store(self) -> None:
        """Kill the scheduler, delete its store, and begin it again."""
        await self.scheduler.killed()
        self.scheduler.forget_store()
        await self.scheduler.begun()

    @asynccontextmanager
    async def as_scheduler(self, number: int) -> AsyncIterator[HttpService]:
        """That node, asked in the scheduler's name, with the store that it has now."""
        poll = self.proxies[number].hold("GET", "/status", "request")
        await poll.reached.wait()
        poll.let_go()
        said = poll.headers
        caller = Caller("", Role.PROGRAM, said["imagepool-program"], said["imagepool-store"])
        node = HttpService(self.nodes[number].url, caller=caller)
        try:
            yield node
        finally:
            await node.close()

    async def acknowledged(self) -> None:
        """Return when no node has an ended build to tell the scheduler."""
        for number in range(len(self.nodes)):
            async with self.as_scheduler(number) as node:
                report = await node.status(LOCAL)
                while any(build.state is State.STOPPED for build in report.builds):
                    report = await node.status(LOCAL, after=report.token, wait=1)


@pytest.mark.parametrize(
    ("running", "finished", "waiting", "clocks"),
    [(50, 50, 20, (0.0, 0.0)), (10, 10, 4, (HOUR, -HOUR))],
    ids=["whole", "clocks an hour apart"],
)
async def test_the_store_is_deleted(
    running: int,
    finished: int,
    waiting: int,
    clocks: tuple[float, float],
    tmp_path: Path,
    figures: Figures,
) -> None:
    """The running and the finished builds are back, nothing runs twice, the waiting ones are gone;
    creates repeated with their keys give the same builds, and for what is gone new ones.
    """
    async with Pool(tmp_path, running // 2, *clocks) as pool:
        done = await pool.make("done", finished, "print hello", "artifact 3000", output=IsoOutput())
        before = await pool.anyone.all_ended(done.ids)
        await pool.acknowledged()
        hang = await pool.make("hang", running // 5, "hang")
        runs = await pool.make("run", running - running // 5, f"sleep {RUN}", "artifact 2000")
        for key in hang.ids | runs.ids:
            await pool.anyone.until(key, lambda build: build.state is State.RUNNING)
        lost = await pool.make("wait", waiting, "print late")

        await pool.lose_store()
        back = await pool.anyone.watch(lambda found: found.keys() >= done.ids | hang.ids | runs.ids)
        assert back.keys() == done.ids | hang.ids | runs.ids
        for group in (done, hang, runs):
            _same_owners(group, back)
        _same_results(before, back)
        await _answers(pool, before)
        await _gone(pool, lost)
        await _same_again(pool, done, hang, runs)
        await _new_again(pool, lost)

        await asyncio.gather(*map(pool.anyone.cancel, hang.ids))
        everything = done.ids | hang.ids | runs.ids | lost.ids
        ended = await pool.anyone.all_ended(everything)
        results = Counter(build.result for build in ended.values())
        assert results[Result.CANCELLED] == len(hang.ids), results
        assert results[Result.SUCCEEDED] == len(everything) - len(hang.ids), results
        assert starts(pool.plays()) == dict.fromkeys(everything, 1)
        figures(
            f"store lost while {running} builds ran, {finished} had ended and {waiting} waited, "
            f"nodes' clocks {clocks} s ahead: {len(back)} back, {waiting} gone, each run once"
        )


async def test_killed_while_it_recovers(tmp_path: Path) -> None:
    """A scheduler that is killed before it has heard what its nodes keep asks them the next time: a
    key that they know gives the build that they have.
    """
    async with Pool(tmp_path, 1, 0.0) as pool:
        made = await pool.make("key", 1, "print hello")
        await pool.anyone.all_ended(made.ids)
        (known,) = made.ids
        pool.nodes[0].stop()
        await pool.lose_store()
        await pool.scheduler.killed()
        await pool.scheduler.begun()
        again = asyncio.create_task(pool.ask(made))
        await pool.anyone.heard(pool.anyone.service.roster)
        pool.nodes[0].go_on()
        await again
        assert made.ids == {known}
        assert starts(pool.plays()) == {known: 1}


def _same_owners(group: Group, back: dict[str, Build]) -> None:
    for key, build in group.builds.items():
        now = back[build.id]
        assert (now.owner, now.key, now.request) == (build.owner, key, group.asked[key])


def _same_results(before: dict[str, Build], back: dict[str, Build]) -> None:
    for key, build in before.items():
        now = back[key]
        assert now.state is State.STOPPED, now
        same = ("result", "artifacts", "log_size", "commands", "attempt", "node", "reason")
        for field in same:
            assert getattr(now, field) == getattr(build, field), (field, now, build)


async def _answers(pool: Pool, before: dict[str, Build]) -> None:
    """The status URLs answer, and lead to downloads that are right."""
    async with aiohttp.ClientSession() as session:
        for key, build in before.items():
            async with session.get(f"{pool.scheduler.url}/status/{key}") as response:
                assert response.status == 200
                document = await response.json()
            assert (document["status"], document["result"]) == ("stopped", "succeeded")
            assert "hello" in document["commands"][0]["output"]
            assert (await pool.anyone.get(key)).id == key
            async with session.get(document["download"]) as response:
                assert response.status == 200, await response.text()
                digest = hashlib.sha256(await response.read()).hexdigest()
            assert digest == build.artifacts[0].sha256


async def _gone(pool: Pool, lost: Group) -> None:
    async with aiohttp.ClientSession() as session:
        for key in lost.ids:
            async with session.get(f"{pool.scheduler.url}/status/{key}") as response:
                assert response.status == 404
            with pytest.raises(NotFound):
                await pool.anyone.get(key)


async def _same_again(pool: Pool, *groups: Group) -> None:
    for group in groups:
        ids = group.ids
        await pool.ask(group)
        assert group.ids == ids


async def _new_again(pool: Pool, lost: Group) -> None:
    ids = lost.ids
    await pool.ask(lost)
    assert not lost.ids & ids

"""What proving each other's identity costs scheduler and node: a held poll, a forward and a whole
build over the pool's TLS, beside the same without.

Processor time of both ends together. A poll: the scheduler's own, held for so short a time that
there are many. A forward: one that the node has already, sent again by a second scheduler, which is
this process. A build: without commands, on the engine that plays scripts.
"""

import asyncio
import contextlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp

from bench.measure import Column, Outcome, Sample, interleaved, typical
from bench.pool import Two, two
from bench.processes import cpu_seconds, free_slot
from protocol.model.build import Result, Stage, build_id
from protocol.model.recipe import NoOutput, Recipe
from protocol.model.request import BuildRequest, Forward
from protocol.ports.service import LOCAL, Caller, Role
from protocol.program import identity
from protocol.program.identity import KEY, key_of
from protocol.remote.client import HttpService
from protocol.remote.connecting import Secured
from protocol.trust.certificates import NODE, SCHEDULER, ask, server_name
from protocol.trust.membership import Memberships
from scheduler.pool.authority import Authority

AIM = 1.5
"""How many times the processor time a poll and a forward may take by TLS."""
LIFE = 86400.0
"""Seconds that the second scheduler's certificate is good for."""
HOLD = 0.005
"""Seconds that a poll is held here."""
POLLING = 3.0
"""Seconds in which polls are counted."""
FORWARDS, BUILDS = 400, 30
WITHOUT, TLS = "without", "by TLS"
COLUMNS = tuple(
    Column(name, f"{name}, CPU ms", digits=2, ratio=True, spread=True)
    for name in ("poll", "forward", "build")
)
_NOTHING = BuildRequest(Recipe((), output=NoOutput()))
_POLLS = re.compile(
    r'^imagepool_http_request_duration_seconds_count\{.*route="/status".*\} (\S+)$', re.MULTILINE
)


async def run(runs: int) -> Outcome:
    """Measure."""
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-")))
        sides = {}
        for name in (WITHOUT, TLS):
            side = await ending.enter_async_context(_side(folder / name, tls=name == TLS))
            sides[name] = side.run
        samples = await interleaved(sides, runs)
    notes = []
    for figure in ("poll", "forward"):
        sealed, plain = (typical(samples, name, figure) or 1 for name in (TLS, WITHOUT))
        notes.append(f"a {figure} by TLS: {sealed / plain:.2f} times the CPU (aim: at most {AIM})")
    title = "Processor time of scheduler and node together"
    return Outcome(title, COLUMNS, samples, tuple(notes))


class _Side:
    """The programs of one side."""

    def __init__(self, polling: Two, building: Two, second: "_Second") -> None:
        """`polling`: two that poll all the time; `building`: two that poll as usual; `second`:
        another scheduler of the latter's node.
        """
        self._polling = polling
        self._building = building
        self._second = second

    async def run(self) -> Sample:
        """Milliseconds of each."""
        return {
            "poll": await self._polls(),
            "forward": await self._forwards(),
            "build": await self._builds(),
        }

    async def _polls(self) -> float:
        async def wait() -> None:
            await asyncio.sleep(POLLING)

        before = await _polls(self._polling.node.url)
        used = await _used(wait, self._polling.node.pid, self._polling.scheduler.pid)
        return used / (await _polls(self._polling.node.url) - before)

    async def _forwards(self) -> float:
        own = time.process_time()
        used = await _used(self._second.repeat, self._building.node.pid)
        return (used + 1000 * (time.process_time() - own)) / FORWARDS

    async def _builds(self) -> float:
        client = HttpService(self._building.scheduler.url)
        await free_slot(client)

        async def build() -> None:
            for _ in range(BUILDS):
                build = await client.submit(LOCAL, _NOTHING)
                while build.stage is not Stage.STOPPED:
                    build = await client.get(LOCAL, build.id, after=build.revision, wait=30)
                if build.result is not Result.SUCCEEDED:
                    raise RuntimeError(f"a build did not succeed: {build.reason}")

        try:
            pids = self._building.node.pid, self._building.scheduler.pid
            return await _used(build, *pids) / BUILDS
        finally:
            await client.close()


class _Second:
    """A scheduler that says the same again and again."""

    def __init__(self, node: HttpService, me: Caller) -> None:
        self._node = node
        self._me = me
        who = build_id(time.time(), os.urandom(10))
        self._forward = Forward(id=who, origin=me.program, attempt=1, path=(me.program,))

    async def begin(self) -> None:
        """Forward a build, and wait until it has ended."""
        build = await self._node.submit(self._me, _NOTHING, self._forward)
        while build.stage is not Stage.STOPPED:
            build = await self._node.get(self._me, build.id, after=build.revision, wait=30)

    async def repeat(self) -> None:
        """Forward the same, one after another."""
        for _ in range(FORWARDS):
            await self._node.submit(self._me, _NOTHING, self._forward)


@contextlib.asynccontextmanager
async def _side(folder: Path, *, tls: bool) -> AsyncIterator[_Side]:
    folder.mkdir()
    async with contextlib.AsyncExitStack() as ending:
        often = {"IMAGEPOOL_HOLD": str(HOLD)}
        polling = await ending.enter_async_context(
            two(folder / "polling", tls=tls, environment=often)
        )
        building = await ending.enter_async_context(two(folder / "building", tls=tls))
        with identity.open_data(folder / "second"):
            me = Caller(owner="", role=Role.PROGRAM, program=identity.load(folder / "second").id)
        proof = _admitted(folder / "second", folder / "building") if tls else None
        node = HttpService(building.called, caller=me, secured=proof)
        ending.push_async_callback(node.close)
        second = _Second(node, me)
        await second.begin()
        yield _Side(polling, building, second)


def _admitted(folder: Path, pool: Path) -> Secured:
    """What a scheduler of that pool calls nodes with. By a join token none becomes one: it is
    admitted where the authority lies. Blocking.
    """
    memberships = Memberships(folder, folder / KEY)
    authority = Authority(pool / "scheduler", LIFE, time.time)
    joined = authority.admit(ask(key_of(folder)), SCHEDULER)
    memberships.put(joined)
    return Secured(lambda: memberships.client(joined.pool), server_name(NODE, joined.pool))


async def _used(what: Callable[[], Awaitable[None]], *pids: int) -> float:
    """Milliseconds of processor time that these processes use meanwhile."""
    before = sum(map(cpu_seconds, pids))
    await what()
    return 1000 * (sum(map(cpu_seconds, pids)) - before)


async def _polls(node: str) -> float:
    """How many it has answered so far."""
    async with aiohttp.ClientSession() as session, session.get(f"{node}/metrics") as answer:
        return sum(map(float, _POLLS.findall(await answer.text())))

"""A node that says that it is ready and fails whatever it is given: it is quarantined, and the
builds succeed on the other node although the bad one has the higher priority.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from protocol import wire
from protocol.model.build import Build, Result
from protocol.model.messages import Problem, RosterEntry
from tests.chaos.client import Client
from tests.chaos.journal import plays
from tests.chaos.local import Program, a_node, a_scheduler, begin_all, end_all, free_port
from tests.chaos.proxy import Proxy
from tests.figures import Figures
from tests.programs import request

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=60)]

BUILDS = 20
QUARANTINE = 6.0  # seconds


def answer(body: bytes, kind: str) -> bytes:
    """What a broken node says to everything."""
    head = f"HTTP/1.1 500 Broken\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


FAILURES = {
    "in no language of ours": answer(b"<html>oops</html>", "text/html"),
    "as a program of ours": answer(
        wire.encode(Problem("urn:imagepool:PoolError", "It failed", 500, "oops")), wire.PROBLEM
    ),
}


class Pool:
    """A good node and a bad one of higher priority, reached by a proxy; a context manager."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """`settings`: of the bad node."""
        self.good = a_node(folder / "good", slots=4)
        self.bad = a_node(folder / "bad", slots=4, priority=10, **settings)
        self.proxy = Proxy(free_port(), self.bad.port)
        self.scheduler: Program = a_scheduler(
            folder / "scheduler", self.good.url, self.proxy.url, quarantine=QUARANTINE
        )
        self.client = Client(self.scheduler.url)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Pool":
        programs = [self.good, self.bad, self.scheduler]
        self._stack.callback(end_all, programs)
        begin_all(programs)
        for part in (self.proxy, self.client):
            await self._stack.enter_async_context(part)
        await self.client.has_ready(2)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def build_all(self) -> list[Build]:
        """Many builds at once, as they ended."""

        async def build(number: int) -> Build:
            made = await self.client.create(request("print hello"), f"key-{number}")
            return await self.client.ended(made.id)

        return await asyncio.gather(*map(build, range(BUILDS)))

    async def in_state(self, state: str) -> RosterEntry:
        """The bad node on the roster, when it is in this state."""
        roster = await self.client.roster_until(
            lambda roster: any((n.name, n.state) == ("bad", state) for n in roster.nodes)
        )
        return next(node for node in roster.nodes if node.name == "bad")


def all_on_the_good_one(builds: list[Build]) -> None:
    """Fail unless each succeeded there."""
    for build in builds:
        assert build.result is Result.SUCCEEDED, build
        assert build.node is not None
        assert build.node.name == "good"


@pytest.mark.parametrize("words", FAILURES)
async def test_a_node_that_fails_every_create(words: str, tmp_path: Path, figures: Figures) -> None:
    """It answers each create with an error of its own. When it is mended, it is used again."""
    async with Pool(tmp_path) as pool:
        pool.proxy.answers["POST", "/create"] = FAILURES[words]
        building = asyncio.create_task(pool.build_all())
        shown = await pool.in_state("quarantined")
        assert shown.reason.startswith("it failed"), shown
        assert "bad failed to take it" in shown.reason or "did not take it" in shown.reason, shown
        all_on_the_good_one(await building)
        assert plays(pool.bad.data) == []
        refused = pool.proxy.done["answers made up"]
        figures(f"create answered 500 {words}, {refused} times: quarantined, {BUILDS} succeeded")

        del pool.proxy.answers["POST", "/create"]
        await pool.in_state("ready")
        made = await pool.client.create(request("print hello"), "next")
        ended = await pool.client.ended(made.id)
        assert (ended.result, ended.node and ended.node.name) == (Result.SUCCEEDED, "bad")


async def test_a_node_that_fails_every_build(tmp_path: Path, figures: Figures) -> None:
    """It takes each build, and its engine starts none."""
    async with Pool(tmp_path, base_image="broken/image") as pool:
        building = asyncio.create_task(pool.build_all())
        shown = await pool.in_state("quarantined")
        assert "the engine cannot start broken/image" in shown.reason, shown
        builds = await building
        all_on_the_good_one(builds)
        tried = sum(build.attempt - 1 for build in builds)
        assert tried >= 2
        figures(
            f"a node whose engine starts nothing: quarantined, {tried} tries, {BUILDS} succeeded"
        )

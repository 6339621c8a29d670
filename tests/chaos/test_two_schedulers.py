"""Two schedulers over the same nodes, and clients that speak to a node directly, all at once: each
build ends where it was asked for, and nobody touches another's.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec import Struct

from protocol.errors import NotFound
from protocol.model.build import Build, Result
from protocol.ports.service import LOCAL
from tests.chaos.client import Client
from tests.chaos.journal import ends, plays, starts
from tests.chaos.local import Program, a_node, a_scheduler, begin_all, end_all
from tests.figures import Figures
from tests.programs import request

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=90)]

BUILDS, AT_ONCE = 40, 4
"""Builds that each program is asked for, and how many of them at a time."""


class Asked(Struct):
    """A program, and what was asked of it directly."""

    program: Program
    client: Client
    made: dict[str, Build]  # by key, as they ended
    gone: set[str]  # ids that were acknowledged and went with a lost store
    progress: asyncio.Condition

    @property
    def ids(self) -> set[str]:
        """Of the builds that ended."""
        return {build.id for build in self.made.values()}

    async def ask(self, key: str) -> None:
        """Have this build made; where it is gone, ask again."""
        known = ""
        while True:
            build = await self.client.create(request(f"print {key}", "sleep 0.05"), key)
            if known not in ("", build.id):
                self.gone.add(known)
            known = build.id
            try:
                ended = await self.client.ended(known)
            except NotFound:  # gone, or not found again yet
                continue
            async with self.progress:
                self.made[key] = ended
                self.progress.notify_all()
            return

    async def ask_all(self) -> None:
        """Some at a time, until all are made."""
        keys = iter([f"{self.program.name}-{number}" for number in range(BUILDS)])

        async def ask_some() -> None:
            for key in keys:
                await self.ask(key)

        await asyncio.gather(*(ask_some() for _ in range(AT_ONCE)))

    async def has_made(self, count: int) -> None:
        """Return when so many have ended."""
        async with self.progress:
            await self.progress.wait_for(lambda: len(self.made) >= count)

    async def has_all_again(self) -> None:
        """Fail unless the program knows what was asked of it, and nothing else."""
        known = await self.client.watch(lambda found: found.keys() >= self.ids)
        assert known.keys() == self.ids


async def test_each_build_ends_where_it_was_asked_for(tmp_path: Path, figures: Figures) -> None:
    """Meanwhile one scheduler is killed and begun again, and the other loses its store."""
    nodes = [a_node(tmp_path / f"node{number}", slots=6) for number in range(2)]
    urls = [node.url for node in nodes]
    names = ("first", "second")
    schedulers = [a_scheduler(tmp_path / n, *urls, recover_least=0.3) for n in names]
    programs = [*nodes, *schedulers]
    async with AsyncExitStack() as stack:
        stack.callback(end_all, programs)
        begin_all(programs)
        asked = []
        for program in programs:
            client = await stack.enter_async_context(
                Client(program.url, f"owner-of-{program.name}")
            )
            asked.append(Asked(program, client, {}, set(), asyncio.Condition()))
        first, second = asked[2:]
        for scheduler in (first, second):
            await scheduler.client.has_ready(len(nodes))
        await asyncio.gather(*(one.ask_all() for one in asked), _kill(first), _lose_store(second))
        for one in asked:
            await _is_its_own(one)
        for scheduler in (first, second):
            await scheduler.has_all_again()
        await _is_nobody_elses(asked)
        # What a stranger had acknowledged would be missing now.
        await _lost(first.program)
        await first.has_all_again()
        figures(
            f"{len(programs)} programs asked for {BUILDS} builds each, one killed, one without its "
            f"store: each ended where it was asked for, {len(second.gone)} that waited were gone"
        )


async def _kill(first: Asked) -> None:
    for count in (BUILDS // 4, BUILDS // 2):
        await first.has_made(count)
        await first.program.killed()
        await first.program.begun()


async def _lose_store(second: Asked) -> None:
    await second.has_made(BUILDS // 3)
    await _lost(second.program)


async def _lost(scheduler: Program) -> None:
    await scheduler.killed()
    scheduler.forget_store()
    await scheduler.begun()


async def _is_its_own(asked: Asked) -> None:
    """Each build succeeded there, and says so."""
    origin = (await asked.client.service.status(LOCAL)).id
    assert len(asked.ids) == BUILDS
    for key, build in asked.made.items():
        now = await asked.client.get(build.id)
        assert now.result is Result.SUCCEEDED, now
        assert (now.origin, now.owner, now.key) == (origin, f"owner-of-{asked.program.name}", key)


async def _is_nobody_elses(asked: list[Asked]) -> None:
    """Each build ran once, and no program but its own placed, adopted or cancelled it."""
    nodes, schedulers = asked[:2], asked[2:]
    mine = Counter(key for program in asked for key in program.ids)
    assert set(mine.values()) == {1}
    played = plays(*(node.program.data for node in nodes))
    assert starts(played) == ends(played) == mine
    origins = {
        key: build.origin for one in asked for build in one.made.values() for key in [build.id]
    }
    for node in nodes:
        for key, build in (await node.client.all()).items():
            assert build.origin == origins[key]
            assert build.result is Result.SUCCEEDED, build
    for build in (await schedulers[0].client.all()).values():  # the one that lost nothing
        assert "adopt" not in {step.event for step in build.history}, build

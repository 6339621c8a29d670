"""A pool with an admitted node that lies: the scheduler, a true node, the liar, and what a test
wants of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protocol.model.build import Artifact, Build, Result, State
from protocol.model.messages import Registration, RosterEntry
from protocol.ports.service import LOCAL
from protocol.program.beacon import Beacon
from tests.programs import Program, ended, request, roster_until, until
from tests.trust.liar import Liar, a_liar
from tests.trust.test_pool import a_member, a_pool, in_state


def invited(scheduler: Program) -> str:
    """A join token."""
    return str(scheduler.parts.door.invitation().token)


class Scene:
    """A scheduler, a true node of a low priority, and the liar."""

    def __init__(self, scheduler: Program, victim: Program, liar: Liar) -> None:
        self.scheduler = scheduler
        self.victim = victim
        self.liar = liar

    def find(self, url: str = "") -> None:
        """The scheduler hears where the liar is."""
        found = Registration(url or self.liar.url)
        self.scheduler.parts.discovery.register(found, self.liar.id)

    async def caught(self, state: str, words: str, *, url: str = "") -> RosterEntry:
        """The roster's line for the liar, or for that address, when it says so."""

        def named(entry: RosterEntry) -> bool:
            it = entry.url == url if url else entry.id == self.liar.id
            return it and entry.state == state and words in entry.reason

        roster = await roster_until(self.scheduler, lambda roster: any(map(named, roster.nodes)))
        return next(entry for entry in roster.nodes if named(entry))

    async def built_by_the_true_one(self, *texts: str) -> Build:
        """A build goes to the true node, and the liar has none of it."""
        before = len(self.liar.builds_sent())
        accepted = await self.scheduler.service.submit(LOCAL, request(*(texts or ("print a",))))
        build = await ended(self.scheduler.service, accepted.id)
        assert build.result is Result.SUCCEEDED
        assert build.node is not None
        assert build.node.id == self.victim.id
        assert len(self.liar.builds_sent()) == before
        return build


@asynccontextmanager
async def a_scene(folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    """With the true node ready, and the liar not yet found."""
    async with (
        a_pool(folder, **settings) as scheduler,
        a_member(folder, scheduler, labels=("true",)) as victim,
        a_liar(folder, scheduler.members_url, invited(scheduler)) as liar,
    ):
        await in_state(scheduler, victim, "ready")
        yield Scene(scheduler, victim, liar)


def a_beacon(scene: Scene, program: str, port: int) -> Beacon:
    """A record of somebody who says that it is this program, at this port for members."""
    return Beacon(
        id=program,
        boot="1",
        pool="default",
        role="node",
        port=9,
        addresses=("127.0.0.1",),
        pool_port=port,
        pool_id=scene.scheduler.parts.membered.authority.pool if port else "",
    )


async def running(scene: Scene, *texts: str) -> Build:
    """A build that runs on the true node."""
    service = scene.scheduler.service
    accepted = await service.submit(LOCAL, request(*texts))
    build = await until(service, accepted.id, lambda build: build.state is State.RUNNING)
    assert build.node is not None
    assert build.node.id == scene.victim.id
    return build


async def made_by_the_liar(scene: Scene, *artifacts: Artifact) -> Build:
    """A build that the liar was given, and says that it did."""
    scene.find()
    await scene.caught("ready", "")
    service = scene.scheduler.service
    accepted = await service.submit(LOCAL, request("print a"))
    await until(service, accepted.id, lambda build: build.state is State.RUNNING)
    (given,) = scene.liar.builds_sent()
    scene.liar.says(builds=(scene.liar.ended(given, *artifacts),))
    build = await ended(service, accepted.id)
    scene.liar.says(builds=())
    return build

"""A pool whose members prove that they are: joining, staying, leaving, and those who only say that
they belong.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Denied, PoolError
from protocol.model.build import Result, State
from protocol.model.messages import Registration
from protocol.ports.service import LOCAL
from protocol.program.beacon import Beacon
from protocol.program.identity import key_of
from protocol.program.joining import Applicant
from protocol.remote.client import HttpService
from protocol.trust import token
from protocol.trust.certificates import NODE
from tests.programs import Program, a_node, a_scheduler, ended, request, roster_until, until

pytestmark = pytest.mark.gen_test(timeout=60)

HERE = "127.0.0.1:0"
STRICT = {"pool_listen": HERE, "unproven": "none", "node_networks": ("loopback",)}
"""Settings of a scheduler that believes nobody without proof."""


@asynccontextmanager
async def a_pool(folder: Path, **settings: Any) -> AsyncIterator[Program]:
    """A scheduler that keeps a pool."""
    async with a_scheduler(folder, **{**STRICT, **settings}) as scheduler:
        yield scheduler


@asynccontextmanager
async def a_member(
    folder: Path, scheduler: Program, join: str | None = None, **settings: Any
) -> AsyncIterator[Program]:
    """A node that joins, or wants to; registered where it is found."""
    text = scheduler.parts.door.invitation().token if join is None else join
    chosen = {"join": text, "pool_listen": HERE, "schedulers": (scheduler.members_url,)}
    async with a_node(folder, **{**chosen, **settings}) as node:
        found = Registration(node.members_url)
        scheduler.parts.discovery.register(found, node.id)
        yield node


async def in_state(scheduler: Program, node: Program, state: str) -> str:
    """Wait until the roster has the node like this; the reason."""
    roster = await roster_until(
        scheduler,
        lambda roster: any((one.id, one.state) == (node.id, state) for one in roster.nodes),
    )
    (entry,) = [one for one in roster.nodes if one.id == node.id]
    return entry.reason


@contextmanager
def logged(words: str) -> Iterator[asyncio.Event]:
    """Set when somebody logs these words."""
    heard, loop = asyncio.Event(), asyncio.get_running_loop()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                loop.call_soon_threadsafe(heard.set)

    ear = Ear()
    logging.getLogger().addHandler(ear)
    try:
        yield heard
    finally:
        logging.getLogger().removeHandler(ear)


async def becomes(scheduler: Program, sight: Callable[[], bool]) -> None:
    """Wait until something of the pool is so."""
    changed = scheduler.parts.dispatcher.pool.changed
    async with asyncio.timeout(15):
        while not sight():
            await changed.wait(changed.count, 0.2)


async def built(scheduler: Program, *texts: str) -> Any:
    """A build, when it has ended."""
    accepted = await scheduler.service.submit(LOCAL, request(*texts))
    return await ended(scheduler.service, accepted.id)


async def test_a_node_joins_and_builds(tmp_path: Path) -> None:
    """By the token, once: after restarts of both it needs none."""
    for text in (None, ""):
        async with (
            a_pool(tmp_path, home="s") as scheduler,
            a_member(tmp_path, scheduler, join=text, home="n") as node,
        ):
            await in_state(scheduler, node, "ready")
            assert (await built(scheduler, "print hello")).result is Result.SUCCEEDED


async def test_joining_is_written_down(tmp_path: Path) -> None:
    """Once, with the program that did; that it makes itself known again and again is not."""
    async with (
        a_pool(tmp_path) as scheduler,
        a_member(tmp_path, scheduler, register_every=0.05) as node,
    ):
        await in_state(scheduler, node, "ready")
        await built(scheduler, "sleep 0.5")
        found = await scheduler.parts.people.audit.deeds(1 << 62, 100)
        said = [(deed.who, deed.what, deed.status) for _, deed in found]
        assert said == [(node.id, "POST /pool/v1/join", 200)]


async def test_nobody_else_is_served(tmp_path: Path) -> None:
    """On the listener for the pool: who has no certificate may ask to join, and nothing else."""
    async with a_pool(tmp_path) as scheduler, a_member(tmp_path, scheduler) as node:
        await in_state(scheduler, node, "ready")
        for program in (scheduler, node):
            insecure = HttpService(program.members_url)
            with pytest.raises(PoolError):
                await insecure.status(LOCAL)
            await insecure.close()


@pytest.mark.parametrize("which", ["another pool's", "an old one", "one whose secret is wrong"])
async def test_a_token_that_admits_nobody(tmp_path: Path, which: str, caplog: Any) -> None:
    """The node stays outside, and its log says why."""
    async with a_pool(tmp_path) as scheduler, a_pool(tmp_path) as other:
        door = scheduler.parts.door
        mine = token.read(door.invitation().token)
        wrong = token.JoinToken(mine.authority, bytes(16))
        text = {
            "another pool's": other.parts.door.invitation().token,
            "an old one": door.invitation().token,
            "one whose secret is wrong": str(wrong),
        }[which]
        if which == "an old one":
            door.new_token()
        with logged("does not let us in") as refused:
            async with a_member(tmp_path, scheduler, join=text) as node:
                async with asyncio.timeout(10):
                    await refused.wait()
                assert not node.parts.belonging.pool
        assert "of the pool that the token is for" in caplog.text or "join token" in caplog.text
        assert mine.secret.hex() not in caplog.text
        caplog.clear()


async def test_an_admin_says_yes(tmp_path: Path) -> None:
    """With `admission = "approve"` a token alone gives nothing."""
    async with a_pool(tmp_path, admission="approve") as scheduler:
        door = scheduler.parts.door
        async with a_member(tmp_path, scheduler) as node:
            pool = scheduler.parts.dispatcher.pool
            await becomes(scheduler, lambda: pool.known.of(node.id) is not None)
            assert pool.known.of(node.id).admission == "waiting"
            assert not node.parts.belonging.pool
            await door.admit(node.id)
            await in_state(scheduler, node, "ready")


async def test_a_node_is_put_out(tmp_path: Path) -> None:
    """It is called no more, its builds go elsewhere, it cannot renew, and no token brings it
    back.
    """
    async with a_pool(tmp_path, lost_after=0.5) as scheduler:
        door = scheduler.parts.door
        async with (
            a_member(tmp_path, scheduler, priority=9) as rogue,
            a_member(tmp_path, scheduler) as other,
        ):
            await in_state(scheduler, rogue, "ready")
            await in_state(scheduler, other, "ready")
            accepted = await scheduler.service.submit(LOCAL, request("sleep 2"))
            build = await until(scheduler.service, accepted.id, lambda b: b.state is State.RUNNING)
            assert build.node is not None
            assert build.node.id == rogue.id
            await door.revoke(rogue.id, "it was stolen")
            build = await ended(scheduler.service, accepted.id)
            assert (build.result, build.node.id) == (Result.SUCCEEDED, other.id)
            roster = scheduler.parts.listing.roster()
            (entry,) = [one for one in roster.nodes if one.id == rogue.id]
            assert entry.state in ("unproven", "lost")
            assert "put out of the pool: it was stolen" in entry.reason
            applicant = Applicant(key_of(tmp_path / rogue.parts.node.name), NODE, "rogue")
            pools = rogue.parts.belonging.memberships
            with pytest.raises(Denied, match="put out of the pool"):
                await applicant.renew(scheduler.members_url, pools, rogue.parts.belonging.pool)
            invited = token.read(door.invitation().token)
            with pytest.raises(Denied, match="put out of the pool"):
                await applicant.join(scheduler.members_url, invited)


async def test_the_authority_is_replaced_while_a_build_runs(tmp_path: Path) -> None:
    """Nobody loses touch, and in the end nobody believes the old one."""
    async with (
        a_pool(tmp_path, renew_every=0.2) as scheduler,
        a_member(tmp_path, scheduler, renew_every=0.2) as node,
    ):
        await in_state(scheduler, node, "ready")
        door = scheduler.parts.door
        (before,) = door.authority().believed
        accepted = await scheduler.service.submit(LOCAL, request("sleep 3"))
        await until(scheduler.service, accepted.id, lambda build: build.state is State.RUNNING)
        assert door.replace_authority("begin").waits_for == (node.parts.node.name,)
        await becomes(scheduler, lambda: before not in door.authority().believed)
        build = await ended(scheduler.service, accepted.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
        assert (await built(scheduler, "print hello")).result is Result.SUCCEEDED
        assert door.authority().believed != (before,)


class TestThoseWhoOnlySayThatTheyBelong:
    """None gets a build; the roster names each, with the reason."""

    async def test_one_without_a_certificate(self, tmp_path: Path) -> None:
        """It advertises the highest priority, and is not even asked."""
        async with a_pool(tmp_path) as scheduler, a_node(tmp_path, priority=1 << 30) as rogue:
            scheduler.parts.discovery.found(beacon_of(rogue, "default"))
            assert "it has not joined" in await in_state(scheduler, rogue, "unproven")

    async def test_one_of_another_pool(self, tmp_path: Path) -> None:
        """It says that it is of ours, under its own id."""
        async with (
            a_pool(tmp_path) as scheduler,
            a_pool(tmp_path) as others,
            a_member(tmp_path, others) as rogue,
        ):
            await in_state(others, rogue, "ready")
            ours = scheduler.parts.membered.authority.pool
            port = int(rogue.members_url.rpartition(":")[2])
            scheduler.parts.discovery.found(beacon_of(rogue, "default", port, ours))
            reason = await in_state(scheduler, rogue, "unproven")
            assert "does not prove to be of this pool" in reason

    async def test_a_member_that_says_it_is_another(self, tmp_path: Path) -> None:
        """It advertises the id of another member at its own address: that one stays as it is."""
        async with (
            a_pool(tmp_path) as scheduler,
            a_member(tmp_path, scheduler) as victim,
            a_member(tmp_path, scheduler, priority=9) as rogue,
        ):
            await in_state(scheduler, victim, "ready")
            await in_state(scheduler, rogue, "ready")
            pool = scheduler.parts.dispatcher.pool
            pool.forget(rogue.id)
            port = int(rogue.members_url.rpartition(":")[2])
            ours = scheduler.parts.membered.authority.pool
            scheduler.parts.discovery.found(beacon_of(victim, "default", port, ours))
            build = await built(scheduler, "print hello")
            assert build.node.id == victim.id
            await in_state(scheduler, victim, "ready")

    async def test_a_member_without_tls(self, tmp_path: Path) -> None:
        """Whoever says a member's id where nothing need be proven is not believed."""
        async with (
            a_pool(tmp_path, unproven="loopback") as scheduler,
            a_member(tmp_path, scheduler) as node,
        ):
            await in_state(scheduler, node, "ready")
            scheduler.parts.dispatcher.pool.forget(node.id)
            scheduler.parts.discovery.register(Registration(node.url))
            roster = await roster_until(
                scheduler, lambda r: bool(r.nodes and r.nodes[0].state == "unproven")
            )
            assert "it is a member" in roster.nodes[0].reason


def beacon_of(node: Program, pool: str, port: int = 0, pool_id: str = "") -> Beacon:
    """What somebody advertises in a node's name."""
    return Beacon(
        id=node.id,
        boot="1",
        pool=pool,
        role="node",
        port=int(node.url.rpartition(":")[2]),
        addresses=("127.0.0.1",),
        pool_port=port,
        pool_id=pool_id,
    )


async def test_a_rogue_keeps_nobody_from_renewing(tmp_path: Path) -> None:
    """Schedulers that only advertise that they are of the pool, and were heard of first: the true
    one is asked too.
    """
    async with a_pool(tmp_path) as scheduler, a_pool(tmp_path) as others:
        true = int(scheduler.members_url.rpartition(":")[2])
        rogues = [int(others.members_url.rpartition(":")[2]), 9]
        ours = scheduler.parts.membered.authority.pool
        places = [("a", rogues[0]), ("b", rogues[1]), (scheduler.id, true)]
        async with a_member(tmp_path, scheduler, schedulers=(), renew_every=0.2) as node:
            for who, port in places:
                node.parts.belonging.found(beacon_of_scheduler(who, port, ours))
            await in_state(scheduler, node, "ready")
            pools = node.parts.belonging.memberships
            before = pools.all()[ours].certificate
            await becomes(scheduler, lambda: pools.all()[ours].certificate != before)


def beacon_of_scheduler(who: str, port: int, pool_id: str) -> Beacon:
    """What somebody says who would be the pool's scheduler."""
    return Beacon(
        id=who,
        boot="1",
        pool="default",
        role="scheduler",
        port=port,
        addresses=("127.0.0.1",),
        pool_port=port,
        pool_id=pool_id,
    )

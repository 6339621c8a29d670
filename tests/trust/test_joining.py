"""Whom a node calls that wants to join, or to renew its certificate: schedulers that settings name,
and others where the operator allows them to be.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import Invalid, Unreachable
from protocol.model.networks import reach
from protocol.program.beacon import Beacon
from protocol.program.identity import key_of
from protocol.program.joining import Applicant
from protocol.remote.guard import Guard
from protocol.trust import token
from protocol.trust.certificates import NODE
from tests.programs import Program, a_node
from tests.trust.test_pool import HERE, a_member, a_pool, becomes, in_state, logged

pytestmark = pytest.mark.gen_test(timeout=60)


class Ear(Struct):
    """A server, and how often somebody connected to it."""

    port: int = 0
    heard: int = 0


@asynccontextmanager
async def an_ear() -> AsyncIterator[Ear]:
    """On loopback; it hangs up."""
    ear = Ear()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ear.heard += 1
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        ear.port = server.sockets[0].getsockname()[1]
        yield ear


def beacon(port: int, *addresses: str) -> Beacon:
    """What somebody advertises as a scheduler with a pool."""
    return Beacon(
        id="a" * 40,
        boot="1",
        pool="default",
        role="scheduler",
        port=1,
        addresses=addresses or ("127.0.0.1",),
        pool_port=port,
        pool_id="0123456789abcdef",
    )


def members_port(program: Program) -> int:
    """Where it serves members."""
    return int(program.members_url.rpartition(":")[2])


async def test_one_that_was_only_heard_of_is_called_where_that_is_allowed(tmp_path: Path) -> None:
    """Not on this machine, where nothing is believed without proof: not even a connection."""
    async with a_pool(tmp_path) as scheduler, an_ear() as ear:
        text = scheduler.parts.door.invitation().token
        chosen = {"join": text, "pool_listen": HERE, "unproven": "none"}
        with logged("its address is loopback, which the setting scheduler_networks") as refused:
            async with a_node(tmp_path, **chosen) as node:
                node.parts.belonging.found(beacon(ear.port))
                async with asyncio.timeout(10):
                    await refused.wait()
                assert not node.parts.belonging.pool
        assert not ear.heard


async def test_the_operator_says_where_schedulers_may_be(tmp_path: Path) -> None:
    """There one that was only heard of is joined, and asked for another certificate."""
    async with a_pool(tmp_path) as scheduler:
        text = scheduler.parts.door.invitation().token
        chosen = {"join": text, "pool_listen": HERE, "unproven": "none", "renew_every": 0.1}
        async with a_node(tmp_path, scheduler_networks=("loopback",), **chosen) as node:
            pool = scheduler.parts.membered.authority.pool
            heard = replace(beacon(members_port(scheduler)), pool_id=pool)
            node.parts.belonging.found(heard)
            pools = node.parts.belonging.memberships
            await becomes(scheduler, lambda: pool in pools.all())
            first = pools.all()[pool].certificate
            await becomes(scheduler, lambda: pools.all()[pool].certificate != first)


async def test_one_that_settings_name_is_called_wherever_it_is(tmp_path: Path) -> None:
    """Though nobody else would be there."""
    async with (
        a_pool(tmp_path) as scheduler,
        a_member(tmp_path, scheduler, unproven="none", scheduler_networks=()) as node,
    ):
        await in_state(scheduler, node, "ready")


@pytest.mark.parametrize("what", ["join", "renew"])
async def test_a_name_that_leads_elsewhere(tmp_path: Path, what: str) -> None:
    """It is looked up once, and the addresses that may not be called are left out."""
    async with (
        a_pool(tmp_path) as scheduler,
        a_member(tmp_path, scheduler) as node,
        an_ear() as ear,
    ):
        await in_state(scheduler, node, "ready")

        def look_up(host: str, port: int, family: int) -> list[tuple[int, int, str]]:
            return [(socket.AF_INET, socket.IPPROTO_TCP, "127.0.0.1")]

        belonging = node.parts.belonging
        key = key_of(tmp_path / node.parts.node.name)
        async with Guard(reach(("private",), "scheduler_networks"), look_up=look_up) as guard:
            applicant = Applicant(key, NODE, "node", lambda url: guard)
            url = f"https://scheduler.test:{ear.port}"
            invited = token.read(scheduler.parts.door.invitation().token)
            asking = {
                "join": lambda: applicant.join(url, invited),
                "renew": lambda: applicant.renew(url, belonging.memberships, belonging.pool),
            }[what]
            with pytest.raises(Unreachable, match="its address is loopback"):
                await asking()
        assert not ear.heard


async def test_a_wrong_network_is_named(tmp_path: Path) -> None:
    """At the start."""
    with pytest.raises(Invalid, match="scheduler_networks") as wrong:
        async with a_node(tmp_path, scheduler_networks=("private", "lan")):
            pass
    assert wrong.value.field == "scheduler_networks[1]"

"""Rogues on the LAN of a pool, one of each kind, while everything that crosses the switch is
captured: none of them gets anything, the roster names each, and the capture has nothing.
tests/trust/test_liars.py has more of what a member can lie about.
"""

import contextlib
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.model.build import Result, State, new_build
from protocol.model.messages import RosterEntry
from protocol.model.request import BuildRequest
from protocol.program.beacon import Beacon
from protocol.program.identity import load
from protocol.trust import token as tokens
from tests.figures import Figures
from tests.system.lan import Host, Lan
from tests.system.pool import PoolOnLan, Program, Scheduler
from tests.system.rogues import Treasure, advertise, captured, relay, treasure
from tests.system.test_lan_trust import OPEN, entry, invited, joining
from tests.trust.liar import Liar, a_liar, well_ended

pytestmark = pytest.mark.system

HIGHEST = 1_000_000
MEMBERS, SCHEDULERS = 8091, 8081
"""Ports at which a node, and a scheduler, serve members of their pool."""


def test_the_capture_sees_what_is_not_secured(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """The same build in a pool that proves nothing and speaks no TLS: all of it is there to read.
    So what is not found in the other captures was not there.
    """
    scheduler = pool.scheduler(lan["control"])
    node = pool.node(lan["anvil"])
    scheduler.has_ready(node)
    with captured(lan, tmp_path / "capture"):
        had = treasure(scheduler)
    seen = (tmp_path / "capture").read_bytes()
    assert had.seen_in(seen) == {"secret", "input", "log", "artifact"}


def test_none_of_them_gets_anything(
    lan: Lan, pool: PoolOnLan, tmp_path: Path, figures: Figures
) -> None:
    """One without a certificate that has the highest priority; one with an old token; one of
    another pool; one that relays a true node under its own id.
    """
    scheduler = pool.scheduler(lan["control"], settings=OPEN)
    old = invited(scheduler)
    with captured(lan, tmp_path / "capture"):
        token = invited(scheduler, "--new")
        node, _ = joining(pool, lan["anvil"], token, priority=1)
        true = load(node.folder).id
        assert entry(scheduler, true, "ready").url.startswith("https://")
        rogues = {
            pool.node(lan["forge"], priority=HIGHEST): "it has not joined",
            with_an_old_token(lan, pool, old): "it has not joined",
        }
        relayed = lan.add("relay")
        wire = relay(relayed, lan["anvil"], MEMBERS)
        ours = pool_of(node)
        itself = secrets.token_hex(20)
        record = a_record(itself, wire.port, ours, relayed.address)
        advertise(relayed, record, "imagepool-relay")
        stranger = of_another_pool(lan, pool)
        record = a_record(load(stranger.folder).id, MEMBERS, ours, stranger.host.address)
        advertise(stranger.host, record, "imagepool-stranger")
        for rogue, words in rogues.items():
            assert words in entry(scheduler, load(rogue.folder).id, "unproven").reason
        for program in (itself, load(stranger.folder).id):
            reason = named(scheduler, program).reason
            assert "does not prove to be of this pool" in reason
        had = [treasure(scheduler) for _ in range(3)]
    for one in had:
        assert one.build.result is Result.SUCCEEDED
        assert one.build.node is not None
        assert one.build.node.id == true
    for rogue in (*rogues, stranger):
        assert had_no_build(rogue)
    assert wire.seen  # it was asked, and heard what TLS says
    data = (tmp_path / "capture").read_bytes()
    nothing_of(had, (token, old), data)
    nothing_of(had, (token, old), bytes(wire.seen))
    figures(f"captured {len(data) >> 10} KiB beside 4 rogues: nothing of the builds in it")


def test_a_relay_in_a_members_name_is_a_wire(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """It says that a member is at its own address, and the scheduler has no other way to that
    member: builds go through it, and it reads nothing.
    """
    scheduler = pool.scheduler(lan["control"], settings=OPEN)
    token = invited(scheduler)
    node, _ = joining(pool, lan["anvil"], token)
    true = load(node.folder).id
    entry(scheduler, true, "ready")
    wire = relay(lan["forge"], lan["anvil"], MEMBERS)
    lan["control"].ip(f"route add unreachable {lan['anvil'].address}/32")
    record = a_record(true, wire.port, pool_of(node), lan["forge"].address)
    advertise(lan["forge"], record, "imagepool-wire")
    there = f"https://{lan['forge'].address}:{wire.port}"
    scheduler.roster_until(
        lambda roster: [(one.url, one.state) for one in roster.nodes] == [(there, "ready")]
    )
    had = treasure(scheduler)
    assert had.build.result is Result.SUCCEEDED
    assert len(wire.seen) > len(had.input) + len(had.artifact)
    nothing_of([had], (token,), bytes(wire.seen))


def test_joining_through_a_relay(lan: Lan, pool: PoolOnLan) -> None:
    """Somebody says that the scheduler is at an address of theirs, and a machine that is to join
    has no other way: it joins, and they do not have the token.
    """
    scheduler = pool.scheduler(lan["control"], settings=OPEN)
    token = invited(scheduler)
    wire = relay(lan["forge"], lan["control"], SCHEDULERS)
    ours = pool_of(scheduler)
    record = replace(
        a_record("a" * 40, wire.port, ours, lan["forge"].address), role="scheduler", pool="x"
    )
    advertise(lan["forge"], record, "imagepool-wire")
    away = f"unreachable {lan['control'].address}/32"
    lan["anvil"].ip(f"route add {away}")
    node, _ = joining(pool, lan["anvil"], token)
    node.process.line(rf"joined {ours} at https://{lan['forge'].address}:{wire.port}, .*")
    lan["anvil"].ip(f"route del {away}")
    entry(scheduler, load(node.folder).id, "ready")
    assert len(wire.seen) > 1000
    nothing_of([], (token,), bytes(wire.seen))


def test_a_member_that_lies(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """It was let in, and has the highest priority. It says that it is the other node, in its record
    and in its status, then reports what that node builds. While it lies it hears of no build; when
    it stops it gets one.
    """
    scheduler = pool.scheduler(lan["control"], settings=OPEN)
    token = invited(scheduler)
    node, _ = joining(pool, lan["anvil"], token)
    true = load(node.folder).id
    entry(scheduler, true, "ready")
    with captured(lan, tmp_path / "capture"):
        liar = a_liar_on(
            lan["forge"], tmp_path, f"https://{lan['control'].address}:{SCHEDULERS}", token
        )
        tell(lan["forge"], liar, id=true)
        for program, instance in ((liar.id, "imagepool-liar"), (true, "imagepool-mask")):
            record = a_record(program, liar.port, pool_of(node), lan["forge"].address)
            advertise(lan["forge"], record, instance)
        assert f"says it is {true[:16]}" in entry(scheduler, liar.id, "unproven").reason
        roster, _ = scheduler.roster_until(
            lambda roster: any("it says that it is anvil" in one.reason for one in roster.nodes)
        )
        (mask,) = [one for one in roster.nodes if "it says that it is" in one.reason]
        assert (mask.url, mask.state) == (liar.url, "unproven")
        had = [treasure(scheduler)]
        runs = scheduler.submit("sleep 3")
        scheduler.build_until(runs, lambda build: build.state is State.RUNNING)
        stolen = new_build(runs, BuildRequest(), origin="x", owner="", now=1, attempt=1)
        tell(lan["forge"], liar, id=liar.id, builds=(well_ended(stolen),))
        assert "not sent to it" in entry(scheduler, liar.id, "refused").reason
        had.append(treasure(scheduler))
        ended = scheduler.build_until(runs, lambda build: build.state is State.STOPPED)
        assert {one.path for one in liar.sent} == {"/status"}
    assert {build.node.id for build in (ended, *(one.build for one in had)) if build.node} == {true}
    nothing_of(had, (token,), (tmp_path / "capture").read_bytes())
    tell(lan["forge"], liar, builds=())
    entry(scheduler, liar.id, "ready")
    own = scheduler.submit("print a")
    scheduler.build_until(own, lambda build: build.state is State.RUNNING)
    assert [given.forward.id for given in liar.builds_sent()] == [own]


def a_liar_on(host: Host, folder: Path, url: str, token: str) -> Liar:
    """A member that lies, on that machine for as long as this is."""

    async def begin() -> Liar:
        ending = contextlib.AsyncExitStack()
        liar = await ending.enter_async_context(a_liar(folder, url, token, host.address))
        host.at_close(ending.aclose)
        return liar

    return host.run(begin())


def tell(host: Host, liar: Liar, **said: Any) -> None:
    """From now on it reports this."""

    async def told() -> None:
        liar.says(**said)

    host.run(told())


def with_an_old_token(lan: Lan, pool: PoolOnLan, old: str) -> Program:
    """A node that asks to join by a token that was replaced."""
    late = pool.node(lan.add("late"), join=old, priority=HIGHEST)
    late.process.line(r".*does not let us in: the join token is not, or not any more, one of.*")
    return late


def of_another_pool(lan: Lan, pool: PoolOnLan) -> Program:
    """A node that joined another pool on the same LAN."""
    other = pool.scheduler(lan.add("other"), settings={**OPEN, "pool": "other"})
    stranger, _ = joining(
        pool, lan.add("stranger"), invited(other), priority=HIGHEST, settings={"pool": "other"}
    )
    entry(other, load(stranger.folder).id, "ready")
    return stranger


def pool_of(program: Program) -> str:
    """The id of the pool that it is in."""
    (folder,) = (program.folder / "pools").iterdir()
    return folder.name


def a_record(program: str, port: int, pool: str, address: str) -> Beacon:
    """That this program is a member of the pool, there."""
    return Beacon(
        id=program,
        boot="1",
        pool="default",
        role="node",
        port=8090,
        addresses=(address,),
        name="rogue",
        pool_port=port,
        pool_id=pool,
    )


def named(scheduler: Scheduler, program: str) -> RosterEntry:
    """The roster's line for it, where it proves nothing."""
    return entry(scheduler, program, "unproven")


def had_no_build(node: Program) -> bool:
    """Whether it never had any, as it says itself on its own machine."""
    url = f"http://127.0.0.1:{node.port}"
    return not json.loads(node.host.output("curl", "-sS", f"{url}/api/v1/builds"))["builds"]


def nothing_of(had: list[Treasure], join: tuple[str, ...], data: bytes) -> None:
    """Neither builds nor join tokens stand there, in any form."""
    for one in had:
        assert one.seen_in(data) == set()
    for text in join:
        secret = tokens.read(text).secret
        for form in (text.encode(), text[20:60].encode(), secret, secret.hex().encode()):
            assert form not in data

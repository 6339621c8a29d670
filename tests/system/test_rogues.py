"""Rogues on the LAN of a pool, one of each kind, while everything that crosses the switch is
captured: none of them gets anything, the roster names each, and the capture has nothing.
"""

import json
import secrets
from pathlib import Path

import pytest

from protocol.model.build import Result
from protocol.model.messages import RosterEntry
from protocol.program.beacon import Beacon
from protocol.program.identity import load
from protocol.trust import token as tokens
from tests.figures import Figures
from tests.system.lan import Lan
from tests.system.pool import PoolOnLan, Program, Scheduler
from tests.system.rogues import Treasure, advertise, captured, relay, treasure
from tests.system.test_lan_trust import OPEN, entry, invited, joining

pytestmark = pytest.mark.system

HIGHEST = 1_000_000
MEMBERS = 8091
"""Port at which a node serves members of its pool."""


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


def pool_of(node: Program) -> str:
    """The id of the pool that it joined."""
    (folder,) = (node.folder / "pools").iterdir()
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

"""What an admin says of a node stands, whatever that node says of itself."""

import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from protocol.errors import Denied, NotFound, Unavailable, Unproven
from protocol.program import identity
from protocol.trust import certificates
from protocol.trust.certificates import NODE, Party
from scheduler.config import SchedulerSettings
from scheduler.core.known import ADMITTED, REVOKED, WAITING, KnownNode
from scheduler.pool.admission import Admission
from scheduler.pool.authority import Authority
from scheduler.pool.door import Door, Membered
from scheduler.pool.known import Known
from scheduler.pool.proof import Proof
from scheduler.stores.memory import MemoryStore
from scheduler.stores.sqlite import SqliteStore
from tests.scheduler.test_placement import a_report

VICTIM, ROGUE = "a" * 40, "b" * 40


def a_program(key: str, name: str, admission: str) -> KnownNode:
    """One that asked to join."""
    return KnownNode(key, name, "node", (), (), 1.0, admission=admission)


async def known(store: Any, *programs: KnownNode) -> Known:
    """Those that are remembered."""
    made = Known(store, lambda: None)
    for program in programs:
        await made.put(program)
    return made


def admission(folder: Path, remembered: Known) -> Admission:
    """The door."""
    return Admission(Authority(folder, 86400.0, lambda: 1.0), remembered, "approve")


@pytest.mark.gen_test
async def test_a_node_that_talks_does_not_undo_its_revocation(tmp_path: Path) -> None:
    """One that has another name in each report was put out before the restart, and is after it."""
    store = SqliteStore(tmp_path / "store.db")
    nodes = await known(store, a_program(ROGUE, "one", ADMITTED))
    writing = store.put_node

    async def slowly(node: KnownNode) -> None:
        store.put_node = writing  # type: ignore[method-assign]
        says("three")  # while the disk is waited for
        await writing(node)

    def says(name: str) -> None:
        nodes.heard(a_report(name, id=ROGUE), "https://rogue", ("mdns",))

    says("two")
    store.put_node = slowly  # type: ignore[method-assign]
    await nodes.change(ROGUE, admission=REVOKED)
    await nodes.close()
    await store.close()
    again = SqliteStore(tmp_path / "store.db")
    (program,) = again.nodes()
    assert program.admission == REVOKED
    assert nodes.of(ROGUE) == program
    await again.close()


@pytest.mark.gen_test
async def test_what_could_not_be_written_is_not_so() -> None:
    """Whoever said it was told so."""
    store = MemoryStore()
    nodes = await known(store, a_program(VICTIM, "ada", WAITING))
    await store.close()
    with pytest.raises(Unavailable):
        await nodes.change(VICTIM, admission=ADMITTED)
    with pytest.raises(Unavailable):
        await nodes.put(a_program(ROGUE, "bob", ADMITTED))
    assert [(node.id, node.admission) for node in nodes.all()] == [(VICTIM, WAITING)]


@pytest.mark.gen_test
async def test_forgetting_lets_nobody_in_again(tmp_path: Path) -> None:
    """A node that was put out has its certificate still when its line on the roster is gone."""
    nodes = await known(MemoryStore(), a_program(ROGUE, "bob", REVOKED))
    door = admission(tmp_path, nodes)
    await nodes.forget(ROGUE)
    assert door.is_revoked(ROGUE)
    await door.admit(ROGUE)
    assert not door.is_revoked(ROGUE)
    await nodes.forget(ROGUE)
    assert nodes.of(ROGUE) is None


@pytest.mark.gen_test
@pytest.mark.parametrize("name", [VICTIM, VICTIM[:16], VICTIM[:8]])
async def test_a_node_that_is_called_by_the_id_of_another(name: str, tmp_path: Path) -> None:
    """An admin's word on the one is never one on the other."""
    rogue, victim = a_program(ROGUE, name, WAITING), a_program(VICTIM, "ada", WAITING)
    nodes = await known(MemoryStore(), rogue, victim)
    door = admission(tmp_path, nodes)
    if name == VICTIM:
        assert (await door.admit(name)).id == VICTIM
        assert (await nodes.cordon(name, "why not")).id == VICTIM
    else:
        with pytest.raises(NotFound):
            await door.admit(name)
    assert nodes.of(ROGUE) == rogue
    assert (await door.revoke(VICTIM, "sold")).id == VICTIM
    assert (await door.revoke(ROGUE[:8], "sold")).id == ROGUE


@pytest.mark.gen_test
async def test_a_machine_that_is_gone_keeps_no_authority(tmp_path: Path) -> None:
    """Replacing it waits for members; whose certificate is over since long is none, though nobody
    put it out.
    """
    identity.load(tmp_path)
    now = time.time()
    settings = SchedulerSettings()
    gone = a_program(ROGUE, "gone", ADMITTED)
    there = a_program(VICTIM, "there", ADMITTED)
    old = now - settings.certificate_life - 1
    nodes = await known(MemoryStore(), replace(gone, seen=old), replace(there, seen=now))
    door = Door(Membered(tmp_path, settings, time.time), nodes, settings, lambda node: None)
    assert door.replace_authority("begin").waits_for == ("there",)
    await nodes.put(replace(there, seen=old))
    assert len(door.replace_authority("next").believed) == 2
    assert door.authority().waits_for == ()


@pytest.mark.gen_test
async def test_an_earlier_certificate_is_no_yes(tmp_path: Path) -> None:
    """A node that was forgotten, and asks to join anew, waits as any other does."""
    (tmp_path / "s").mkdir()
    identity.load(tmp_path / "s")
    membered = Membered(tmp_path / "s", SchedulerSettings(), time.time)
    key = Ed25519PrivateKey.generate()
    who = certificates.fingerprint(key.public_key())
    nodes = await known(MemoryStore(), a_program(who, "ada", ADMITTED))
    door, proof = admission(tmp_path, nodes), Proof("none", membered.own, nodes)
    member = Party(who, NODE, door.authority.pool)
    await nodes.forget(who)
    assert await door.renew(member, certificates.ask(key))
    assert proof.secured("https://ada", who)
    await nodes.put(a_program(who, "ada", WAITING))
    with pytest.raises(Denied, match="an admin has to let"):
        await door.renew(member, certificates.ask(key))
    with pytest.raises(Unproven, match="waits for an admin"):
        proof.secured("https://ada", who)
    await door.admit(who)
    assert await door.renew(member, certificates.ask(key))
    assert proof.secured("https://ada", who)

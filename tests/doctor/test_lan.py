"""What the doctor says of mDNS and of who is heard by it: on loopback, with real sockets."""

import errno
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from imagepool.doctor import lan
from imagepool.doctor.finding import Finding, Status
from imagepool.doctor.lan import neighbours, verdict
from imagepool.doctor.sockets import Process
from protocol.errors import Invalid
from protocol.model.messages import API_VERSION
from protocol.program import identity
from protocol.program.beacon import Beacon
from protocol.program.mdns import Mdns
from protocol.program.settings import ProgramSettings
from protocol.trust.token import JoinToken
from tests.doctor.subjects import a_subject, fails, is_ok, warns
from tests.doctor.test_papers import a_member

pytestmark = pytest.mark.gen_test(timeout=20)

POOL = "doctors-test"
TOKEN = str(JoinToken("ab" * 32, bytes(16)))


def a_beacon(role: str = "scheduler", **fields: Any) -> Beacon:
    """A program of the pool."""
    made = Beacon("5c" * 20, "boot", POOL, role, 8080, ("192.168.7.1",), name="ada")
    return replace(made, pool_port=8081, pool_id="ab" * 8, **fields)


def of_node(folder: Path, beacon: Beacon, **settings: Any) -> Finding:
    """What a node is told of it."""
    found = verdict(a_subject(folder, pool=POOL, **settings), beacon)
    assert found is not None
    return found


async def test_schedulers_as_a_node_sees_them(tmp_path: Path) -> None:
    """What keeps them apart is said of each."""
    assert of_node(tmp_path, a_beacon()) == Finding(
        "scheduler ada",
        Status.OK,
        f"advertises https://192.168.7.1:8081, of the pool {'ab' * 8}",
    )
    for beacon, words, mends in (
        (a_beacon(api=API_VERSION + 1), "another" and f"version {API_VERSION + 1}", "the same"),
        (replace(a_beacon(), pool="else"), "it passes this node over", "--pool else"),
        (replace(a_beacon(), pool_port=0, pool_id=""), "no place for members", "--listen ADDRESS"),
    ):
        found = of_node(tmp_path, beacon, join=TOKEN)
        assert found.status is Status.WARN
        assert words in found.found
        assert mends in found.remedy
    assert verdict(a_subject(tmp_path, pool=POOL), a_beacon("node")) is None


async def test_nodes_as_a_scheduler_sees_them(tmp_path: Path) -> None:
    """Members of its pool, others, and those that it would not call."""
    own = a_member(tmp_path, 0, "scheduler").pool
    subject = a_subject(tmp_path, "scheduler", pool=POOL, pool_listen="127.0.0.1:0")
    node = replace(a_beacon("node"), pool_id=own)
    cases = (
        (node, Status.OK, "it says that it is a member", ""),
        (
            replace(node, pool_id="cd" * 8),
            Status.WARN,
            "it is of the pool cdcd",
            "imagepool invite",
        ),
        (
            replace(node, pool_port=0, pool_id=""),
            Status.WARN,
            "joined no pool",
            "node --join TOKEN",
        ),
        (replace(node, addresses=("8.8.8.8",)), Status.WARN, "is not called", "node_networks"),
        (
            replace(node, addresses=("127.0.0.1",), pool_port=0, pool_id=""),
            Status.OK,
            "it need not prove who it is",
            "",
        ),
    )
    for beacon, status, words, mends in cases:
        found = verdict(subject, beacon)
        assert found is not None
        assert found.status is status
        assert words in found.found
        assert mends in found.remedy
    assert verdict(subject, a_beacon("scheduler")) is None


async def test_switched_off(tmp_path: Path) -> None:
    """In the way where nobody is named."""
    found, remedy = fails(await neighbours(a_subject(tmp_path)), "mDNS")
    assert found == "switched off, and nobody is named"
    assert "--scheduler URL" in remedy
    named = a_subject(tmp_path, schedulers=("https://192.0.2.1:8081",))
    is_ok(await neighbours(named), "mDNS")
    _, remedy = fails(await neighbours(a_subject(tmp_path, "scheduler")), "mDNS")
    assert "--node URL" in remedy


async def test_nobody_is_heard(tmp_path: Path) -> None:
    """By a node that wants to join; one on its own is only told."""
    quiet = {"mdns": True, "pool": POOL}
    _, remedy = warns(await neighbours(a_subject(tmp_path, **quiet)), "mDNS")
    assert "--join TOKEN looks further" in remedy
    found, remedy = fails(await neighbours(a_subject(tmp_path, join=TOKEN, **quiet)), "mDNS")
    assert "on 127.0.0.1" in found
    assert "5353" in remedy
    assert "--scheduler https://ADDRESS:8081" in remedy


async def test_who_is_heard(tmp_path: Path) -> None:
    """A scheduler on loopback; and the node itself, which is no neighbour."""
    me = identity.load(tmp_path).id
    here = replace(a_beacon(), addresses=("127.0.0.1",))
    advertised = [Mdns(ProgramSettings(), "127.0.0.1") for _ in range(2)]
    try:
        await advertised[0].advertise(here)
        await advertised[1].advertise(replace(here, id=me, role="node", pool_port=0, pool_id=""))
        subject = a_subject(tmp_path, mdns=True, pool=POOL, join=TOKEN)
        findings = await neighbours(subject)
    finally:
        for one in advertised:
            await one.close()
    assert "this program itself too" in is_ok(findings, "mDNS")
    assert "https://127.0.0.1:8081" in is_ok(findings, "scheduler ada")


async def test_a_responder_that_shares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the port is said."""

    def taken(settings: ProgramSettings, host: str) -> None:
        raise Invalid("mDNS is not to be had here: Address already in use", field="mdns")

    monkeypatch.setattr(lan, "Mdns", taken)
    monkeypatch.setattr(lan, "holders", lambda protocol, port: (Process(7, "avahi-daemon"),))
    found, remedy = fails(await neighbours(a_subject(tmp_path, mdns=True)), "mDNS")
    assert "avahi-daemon (process 7) has its port" in found
    assert "disallow-other-stacks=no" in remedy


@pytest.mark.parametrize(
    ("number", "mends"),
    [(errno.ENETUNREACH, "multicast on"), (errno.EADDRNOTAVAIL, "mdns_interfaces")],
)
async def test_multicast_that_does_not_go_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, mends: str
) -> None:
    """By which interface is said."""

    def refuse(packet: bytes, address: str) -> None:
        raise OSError(number, "It is not so")

    monkeypatch.setattr(lan, "_send", refuse)
    found, remedy = fails(await neighbours(a_subject(tmp_path, mdns=True)), "multicast")
    assert found == "no multicast goes out by lo: It is not so"
    assert mends in remedy


async def test_an_interface_without_multicast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its flags; loopback, which never has that one, carries it all the same."""
    subject = a_subject(tmp_path, mdns=True)
    assert not [one for one in await neighbours(subject) if one.check == "multicast"]
    monkeypatch.setattr(lan, "_places", lambda subject: ("127.0.0.2",))
    monkeypatch.setattr(lan, "_interface", lambda address: "wlan0")
    monkeypatch.setattr(lan, "_flags", lambda interface: 0x1003)
    assert not [one for one in await neighbours(subject) if one.check == "multicast"]
    monkeypatch.setattr(lan, "_flags", lambda interface: 0x3)
    _, remedy = warns(await neighbours(subject), "multicast")
    assert remedy == "ip link set dev wlan0 multicast on"

"""Scheduler and nodes as processes on a LAN of network namespaces: finding by mDNS, placement,
and how soon the roster shows what happened to a machine. Nothing is listed anywhere beforehand.
"""

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.model.build import Build, Result, State
from protocol.program.beacon import SERVICE_TYPE, Beacon, instance_name
from tests.figures import Figures
from tests.system.avahi import Avahi, Seen
from tests.system.lan import Host, Lan, a_lan
from tests.system.pool import PoolOnLan, Program, Scheduler, Sight, entry_of, state_of

pytestmark = pytest.mark.system

QUICKLY = 1.0
"""Seconds within which a start or a clean stop shows."""
SOON = 10.0
"""Seconds within which a loss or a return shows."""


def running_on(name: str) -> Callable[[Build], bool]:
    """Whether a build runs on the node of this name."""
    return lambda build: (
        build.state is State.RUNNING and build.node is not None and build.node.name == name
    )


def shows(node: str, state: str) -> Sight:
    """Whether the roster has the node of this id in this state."""
    return lambda roster: state_of(roster, node) == state


def ended_on(scheduler: Scheduler, build_id: str) -> str:
    """The name of the node where the build succeeded."""
    build = scheduler.build_until(build_id, lambda build: build.state is State.STOPPED)
    assert build.result is Result.SUCCEEDED, build
    assert build.node is not None
    return build.node.name


async def say_goodbye_for(instance: str) -> None:
    """The mDNS packet by which a service takes leave: its pointer, with no time to live."""
    owner, target = (
        b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        for name in (SERVICE_TYPE, instance)
    )
    header = struct.pack(">6H", 0, 0x8400, 0, 1, 0, 0)  # a response with one answer
    pointer = struct.pack(">HHIH", 12, 1, 0, len(target))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sender.bind(("", 5353))
        sender.sendto(header + owner + pointer + target, ("224.0.0.251", 5353))


# Finding and placing


def test_avahi_sees_each_program_with_its_record(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """An mDNS peer that nobody here wrote sees scheduler and nodes, each with the address, port and
    record that agree with what the program says over HTTP.
    """
    avahi = Avahi(lan.add("peer"), tmp_path)
    scheduler = pool.scheduler(lan["control"])
    programs: list[Program] = [
        scheduler,
        pool.node(lan["anvil"]),
        pool.node(lan["forge"], listen="0.0.0.0:0"),
    ]
    seen = avahi.browse_until(lambda seen: len({service.instance for service in seen}) == 3)
    by_id: dict[str, list[Seen]] = {program.id: [] for program in programs}
    for service in seen:
        by_id[service.text["id"]].append(service)
    for program in programs:
        report = program.says()
        pools = [place.name for place in (program.folder / "pools").glob("*")]  # the scheduler's
        for service in by_id[program.id]:
            assert (service.address, service.port) == (program.host.address, program.port)
            assert service.text == {
                "txtvers": "1",
                "pool": "default",
                **{key: str(report[key]) for key in ("id", "boot", "role", "api", "name")},
                **{key: said for pool in pools for key, said in (("tls", "8081"), ("of", pool))},
            }
        assert by_id[program.id], f"avahi does not see {program.host.name}"
    roster, _ = scheduler.roster_until(lambda roster: len(roster.nodes) == 2)
    assert {entry.found for entry in roster.nodes} == {("mdns",)}


@pytest.mark.parametrize(
    ("first", "second"), [("anvil", "forge"), ("forge", "anvil")], ids=["anvil", "forge"]
)
def test_highest_priority_first_then_the_other_then_wait(
    lan: Lan, pool: PoolOnLan, first: str, second: str
) -> None:
    """Found by mDNS alone, the node of the higher priority gets the build, the other one while that
    one is busy; with both busy a build waits, says why, and starts when one is free.
    """
    scheduler = pool.scheduler(lan["control"])
    nodes = [pool.node(lan[first], priority=10), pool.node(lan[second], priority=5)]
    scheduler.has_ready(*nodes)
    one, two, three = (scheduler.submit("print working", "hang") for _ in range(3))
    scheduler.build_until(one, running_on(first))
    scheduler.build_until(two, running_on(second))
    waiting = scheduler.build_until(three, lambda build: first in build.reason)
    assert waiting.state is State.WAITING
    assert second in waiting.reason
    refusals = scheduler.explain(three).refusals
    assert {refusal.name for refusal in refusals} == {first, second}
    assert all("busy" in refusal.reason or "slot" in refusal.reason for refusal in refusals)
    scheduler.cancel(one)
    scheduler.build_until(three, running_on(first))
    scheduler.cancel(two)
    assert ended_on(scheduler, scheduler.submit("print done")) == second


# Coming, going, silence


def test_start_and_clean_stop_show_within_a_second(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """A node that starts is on the roster within a second, and off it within a second of SIGTERM;
    so again when it comes back at another port.
    """
    scheduler = pool.scheduler(lan["control"])
    for listen in ("0.0.0.0:8090", "0.0.0.0:8090", "0.0.0.0:0"):
        node = pool.node(lan["anvil"], listen=listen)
        identity = node.id
        shown = scheduler.has_ready(node)
        after_ready, after_start = shown - node.ready_at, shown - node.process.started
        asked = node.process.ask_to_end()
        _, gone = scheduler.roster_until(shows(identity, "gone"))
        node.process.end()
        figures(
            f"node started: on the roster {after_ready:.2f} s after its ready line, "
            f"{after_start:.2f} s after its start; stopped cleanly: gone after {gone - asked:.2f} s"
        )
        assert after_ready < QUICKLY
        assert gone - asked < QUICKLY


def test_killed_node_is_silent_and_gets_nothing(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """Killed with -9 a node is silent within 10 seconds and gets no build from the first moment on,
    though its priority is the highest; started again it is ready within 10 and gets the next.
    """
    scheduler = pool.scheduler(lan["control"])
    anvil = pool.node(lan["anvil"], priority=10, slots=8)
    forge = pool.node(lan["forge"], priority=5, slots=8)
    scheduler.has_ready(anvil, forge)
    identity = anvil.id
    killed = anvil.process.kill()
    at_once = [scheduler.submit("print hello") for _ in range(3)]
    _, silent = scheduler.roster_until(shows(identity, "silent"))
    later = scheduler.submit("print hello")
    assert {ended_on(scheduler, build) for build in (*at_once, later)} == {"forge"}
    anvil.begin()
    ready = scheduler.has_ready(anvil)
    assert anvil.says("/api/v1/builds")["builds"] == []
    assert ended_on(scheduler, scheduler.submit("print hello")) == "anvil"
    figures(
        f"node killed with -9: silent after {silent - killed:.2f} s; started again: ready "
        f"{ready - anvil.process.started:.2f} s after its start, "
        f"{ready - anvil.ready_at:.2f} s after its ready line"
    )
    assert silent - killed < SOON
    assert ready - anvil.process.started < SOON


@pytest.mark.parametrize(
    ("pull", "put_back"),
    [(Host.link_down, Host.link_up), (Host.unplug, Host.plug_in)],
    ids=["link down", "no carrier"],
)
def test_pulled_cable_shows_and_heals(
    lan: Lan,
    pool: PoolOnLan,
    figures: Figures,
    pull: Callable[[Host], None],
    put_back: Callable[[Host], None],
) -> None:
    """With its cable pulled a node is silent within 10 seconds and no build gets there: builds go
    to the other node, or wait. Plugged in again it is ready within 10 and gets the next.
    """
    scheduler = pool.scheduler(lan["control"])
    anvil = pool.node(lan["anvil"], priority=10, slots=8)
    forge = pool.node(lan["forge"], priority=5, slots=8)
    scheduler.has_ready(anvil, forge)
    identity = anvil.id
    pulled = time.monotonic()
    pull(lan["anvil"])
    at_once = [scheduler.submit("print hello") for _ in range(3)]
    _, silent = scheduler.roster_until(shows(identity, "silent"))
    later = scheduler.submit("print hello")
    assert ended_on(scheduler, later) == "forge"
    waiting = {build for build in at_once if scheduler.state_of(build) is State.WAITING}
    assert {ended_on(scheduler, build) for build in at_once if build not in waiting} <= {"forge"}
    plugged = time.monotonic()
    put_back(lan["anvil"])
    ready = scheduler.has_ready(anvil)
    assert {build["id"] for build in anvil.says("/api/v1/builds")["builds"]} <= waiting
    assert ended_on(scheduler, scheduler.submit("print hello")) == "anvil"
    figures(
        f"cable pulled: silent after {silent - pulled:.2f} s; plugged in again: ready after "
        f"{ready - plugged:.2f} s"
    )
    assert silent - pulled < SOON
    assert ready - plugged < SOON


def test_build_for_a_node_just_unplugged_goes_elsewhere(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """Where there was no connection, nothing was heard: the build goes to the next node at once,
    not when the first one is silent or lost.
    """
    scheduler = pool.scheduler(lan["control"])
    nodes = [pool.node(lan["anvil"], priority=10), pool.node(lan["forge"], priority=5)]
    scheduler.has_ready(*nodes)
    lan["anvil"].unplug()
    submitted = time.monotonic()
    build = scheduler.submit("print hello")
    done = scheduler.build_until(build, lambda build: build.state is State.STOPPED, 6)
    took = time.monotonic() - submitted
    assert done.node is not None
    assert (done.node.name, done.attempt) == ("forge", 1)
    figures(f"build for a node unplugged a moment before: done elsewhere after {took:.2f} s")


def test_goodbye_of_somebody_else_removes_nobody(lan: Lan, pool: PoolOnLan) -> None:
    """mDNS is anybody's: a goodbye for a node that goes on answering changes nothing."""
    scheduler = pool.scheduler(lan["control"])
    node = pool.node(lan["anvil"])
    scheduler.has_ready(node)
    identity = node.id
    record = Beacon(identity, "", "default", "node", node.port, ())
    lan.add("rogue").run(say_goodbye_for(instance_name(record)))
    scheduler.roster_never(shows(identity, "gone"), 2)
    assert ended_on(scheduler, scheduler.submit("print hello")) == "anvil"


def test_scheduler_that_starts_again_finds_every_node(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """A scheduler that was killed and starts again knows the nodes that were there all the time,
    within a second of its ready line.
    """
    scheduler = pool.scheduler(lan["control"])
    nodes = [pool.node(lan[name]) for name in ("anvil", "forge")]
    scheduler.has_ready(*nodes)
    scheduler.process.kill()
    scheduler.begin()
    took = scheduler.has_ready(*nodes) - scheduler.ready_at
    figures(f"scheduler started: both nodes that were there ready after {took:.2f} s")
    assert took < QUICKLY


# Beyond mDNS, several addresses, names


def test_registered_and_named_nodes_say_how_they_were_found(lan: Lan, pool: PoolOnLan) -> None:
    """A node that registers itself, and one that the scheduler's settings name, join without mDNS,
    and the roster says so. One of another pool is passed over though mDNS shows it.
    """
    named = pool.node(lan["forge"], no_mdns=True)
    scheduler = pool.scheduler(lan["control"], node=named.url)
    registered = pool.node(lan["anvil"], no_mdns=True, scheduler=scheduler.url)
    other = pool.node(lan.add("other"), pool="other")
    scheduler.has_ready(named, registered)
    roster, _ = scheduler.roster_until(lambda roster: len(roster.nodes) == 2)
    found = {entry.id: (entry.found, entry.url) for entry in roster.nodes}
    assert found == {
        named.id: (("settings",), named.url),
        registered.id: (("registered",), registered.url),
    }
    assert other.id not in found


@pytest.mark.parametrize("listen", ["0.0.0.0:8090", "[::]:8090"], ids=["IPv4", "IPv6"])
def test_node_with_several_addresses_is_found_by_one_that_answers(
    lan: Lan, pool: PoolOnLan, figures: Figures, listen: str
) -> None:
    """A node advertises every address it has; the scheduler finds within a second the one in reach,
    though nothing answers at the others and they may come first.
    """
    out_of_reach = [f"10.99.0.{n}/24" for n in (1, 2, 3)] + [f"fd00:99::{n}/64" for n in (1, 2, 3)]
    lan["anvil"].ip(
        "link add other type veth peer name elsewhere",
        "link set elsewhere up",
        "link set other up",
        *(f"address add {address} dev other" for address in out_of_reach),
    )
    lan["anvil"].set("net/ipv4/conf/all/arp_ignore", 1)  # answer for eth0's own address only
    for address in ("default", "fd00:99::/64"):
        lan["control"].ip(f"route add {address} dev eth0")
    scheduler = pool.scheduler(lan["control"])
    node = pool.node(lan["anvil"], listen=listen)
    shown = scheduler.has_ready(node)
    roster, _ = scheduler.roster_until(lambda roster: True)
    entry = entry_of(roster, node.id)
    assert entry is not None
    assert entry.url == node.url
    took = shown - node.ready_at
    figures(f"node with 4 addresses, 3 of them out of reach: on the roster after {took:.2f} s")
    assert took < QUICKLY


def test_ipv6_alone_is_enough(pool: PoolOnLan) -> None:
    """On a LAN without IPv4, scheduler and node find each other and build."""
    with a_lan() as lan:
        scheduler = pool.scheduler(lan.add("control", ipv4=False))
        node = pool.node(lan.add("anvil", ipv4=False))
        scheduler.has_ready(node)
        assert ended_on(scheduler, scheduler.submit("print hello")) == "anvil"


def test_two_nodes_of_one_name_are_two(lan: Lan, pool: PoolOnLan) -> None:
    """A node is its key, not its name."""
    scheduler = pool.scheduler(lan["control"])
    nodes = [pool.node(lan[host], name="twin") for host in ("anvil", "forge")]
    scheduler.has_ready(*nodes)
    builds = [scheduler.submit("hang") for _ in nodes]
    ends = [scheduler.build_until(build, running_on("twin")) for build in builds]
    assert {build.node.id for build in ends if build.node} == {node.id for node in nodes}
    roster, _ = scheduler.roster_until(lambda roster: len(roster.nodes) == 2)
    assert [entry.name for entry in roster.nodes] == ["twin", "twin"]

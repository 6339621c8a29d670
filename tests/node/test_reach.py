"""What builds with a network reach: the rules, who puts them there, and what follows where that
cannot be done.
"""

import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from node.config import NodeSettings
from node.core import reach
from node.core.reach import Reach
from node.engines import ENGINES
from node.engines.dummy import DummyEngine
from node.engines.errors import EngineDown, EngineError
from node.network import firewall, outlet
from node.network.firewall import Firewall, Unguarded
from node.network.outlet import Outlet
from protocol.errors import Invalid
from protocol.ports.service import LOCAL
from protocol.trust.token import JoinToken
from tests.programs import a_node

NODE = "3fb0a1b2c3d4e5f6"
ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t007100CB\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
"""


def verdict(what: Reach, to: str, port: int = 80, own: Sequence[str] = ()) -> str:
    """What the rules do with a packet; `own`: addresses of the machine."""
    for rule in reach.rules(what):
        if "LOCAL" in rule:
            if to in own:
                return "DROP"
            continue
        match = re.fullmatch(r"-d (\S+)(?: -p (?:tcp|udp) --dport (\d+))? -j (\w+)", rule)
        assert match, rule
        if IPv4Address(to) in IPv4Network(match[1]) and int(match[2] or port) == port:
            return match[3]
    return "RETURN"


OWN = ("192.168.1.5", "203.0.113.5", "172.18.0.1")
HERE = Reach(
    allowed=(IPv4Network("192.168.7.0/24"), IPv4Network("203.0.113.5/32")),
    name_servers=("192.168.1.1",),
    connected=reach.connected(ROUTES),
)


@pytest.mark.parametrize(
    ("to", "port", "passes"),
    [
        ("93.184.216.34", 443, True),
        ("8.8.8.8", 53, True),
        ("192.168.1.1", 53, True),  # a name server
        ("192.168.1.1", 80, False),
        ("192.168.1.9", 80, False),
        ("192.168.1.5", 8090, False),  # the machine
        ("192.168.7.9", 80, True),  # allowed
        ("203.0.113.5", 80, True),  # the machine, allowed by itself
        ("203.0.113.9", 80, False),  # a LAN of public addresses
        ("169.254.169.254", 80, False),
        ("100.100.100.200", 80, False),
        ("10.1.2.3", 22, False),
        ("172.18.0.1", 2375, False),
        ("172.18.0.3", 80, False),  # another build
        ("224.0.0.251", 5353, False),
        ("255.255.255.255", 67, False),
    ],
)
def test_what_passes(to: str, port: int, passes: bool) -> None:
    """The internet and names; nothing of this machine and near it but what is allowed."""
    assert verdict(HERE, to, port, OWN) == ("RETURN" if passes else "DROP")


def test_an_allowed_network_does_not_open_the_machine_itself() -> None:
    """Only its own address, named alone, does."""
    wide = Reach(allowed=(IPv4Network("192.168.0.0/16"),))
    assert verdict(wide, "192.168.1.9", own=OWN) == "RETURN"
    assert verdict(wide, "192.168.1.5", own=OWN) == "DROP"


def test_no_rule_is_there_twice() -> None:
    """Or what the kernel has could not be compared with what it was given."""
    twice = Reach((IPv4Network("10.0.0.0/8"),) * 2, ("192.168.1.1",) * 2, HERE.connected * 2)
    assert len(set(reach.rules(twice))) == len(reach.rules(twice))


def test_networks_that_the_machine_is_on() -> None:
    """Neither default routes, with a gateway or without, nor what lies behind one."""
    assert [str(net) for net in HERE.connected] == ["192.168.1.0/24", "203.0.113.0/24"]
    assert reach.connected("") == ()


def test_name_servers() -> None:
    """IPv4, elsewhere, once; whatever else is in the file."""
    text = (
        "# nameserver 1.2.3.4\nnameserver 127.0.0.53\nnameserver 192.168.1.1 # x\n"
        "nameserver fe80::1%eth0\nnameserver\nsearch lan\n\nnameserver 192.168.1.1\n"
        "nameserver 9.9.9.9\n"
    )
    assert reach.name_servers(text) == ("192.168.1.1", "9.9.9.9")


@pytest.mark.parametrize("text", ["", "lan", "10.0.0.1/8", "fd00::/8", "10.0.0.0/33", "-j ACCEPT"])
def test_networks_that_are_none(text: str) -> None:
    """Named, with what was expected."""
    with pytest.raises(Invalid) as refused:
        Outlet(Engine(), NodeSettings(build_networks_allowed=("10.0.0.1", text)), NODE)
    assert refused.value.field == "build_networks_allowed[1]"
    assert "IPv4" in refused.value.expected


# The firewall, with programs of ours in place of iptables: a file is the kernel's table

IPTABLES = r"""#!/usr/bin/python3
import os, sys
table = os.path.join(os.environ["FAKE"], "table", os.path.basename(sys.argv[0]).split("-")[0])
with open(table + ".calls", "a") as calls: calls.write(" ".join(sys.argv[1:]) + "\n")
if os.path.exists(table + ".broken"): sys.exit("Permission denied (you must be root)")
rules = open(table).read().splitlines() if os.path.exists(table) else []
if "-S" in sys.argv:
    print("\n".join(["-P PREROUTING ACCEPT", "-A PREROUTING -i other -j X", *rules]))
    sys.exit()
lines = sys.stdin.read().splitlines()
assert lines[0] == "*mangle" and lines[-1] == "COMMIT", lines
for line in lines[1:-1]:
    if line.startswith(":"):
        chain = line[1:].split()[0]
        rules = [r for r in rules if not r.startswith("-A " + chain + " ")]
        if "-N " + chain not in rules: rules.append("-N " + chain)
    elif line.startswith("-A "): rules.append(line)
    elif line.startswith("-I "): rules.insert(0, "-A" + line[2:])
    elif line.startswith("-D "): rules.remove("-A" + line[2:])
    elif line.startswith("-X "): rules.remove("-N " + line[3:])
    else: sys.exit("bad line " + line)
open(table, "w").write("\n".join(rules))
"""


class Kernel:
    """What the programs write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "table"
        self.folder.mkdir()
        for name in ("iptables", "iptables-restore", "ip6tables", "ip6tables-restore"):
            (folder / name).write_text(IPTABLES)
            (folder / name).chmod(0o755)

    def rules(self, program: str = "iptables") -> list[str]:
        """As they are."""
        return (self.folder / program).read_text().splitlines()

    def calls(self) -> list[str]:
        """Of iptables, since this was asked last."""
        path = self.folder / "iptables.calls"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return ["restore" if "--noflush" in call else "list" for call in said]

    def breaks(self) -> None:
        """Who asks is not root."""
        (self.folder / "iptables.broken").touch()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """One without rules."""
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(firewall, "_IPV6", tmp_path)
    return Kernel(tmp_path)


HOOKS = ["-A FORWARD -i br0 -j C", "-A PREROUTING -i br0 -j C"]


def test_rules_are_put_there_once(kernel: Kernel) -> None:
    """Nothing of IPv6 passes; what is as it was is not written again."""
    wall = Firewall("br0", "C")
    wall.hold(("-d 10.0.0.0/8 -j DROP", "-d 1.2.3.4/32 -j DROP"))
    assert kernel.rules() == [
        *(*HOOKS, "-N C", "-A C -d 10.0.0.0/8 -j DROP", "-A C -d 1.2.3.4/32 -j DROP")
    ]
    assert kernel.rules("ip6tables") == [*HOOKS, "-N C", "-A C -j DROP"]
    assert kernel.calls() == ["list", "restore", "list"]
    wall.hold(("-d 10.0.0.0/8 -j DROP", "-d 1.2.3.4/32 -j DROP"))
    assert kernel.calls() == ["list"]
    wall.hold(("-j DROP",))
    assert kernel.rules() == [*HOOKS, "-N C", "-A C -j DROP"]
    wall.drop()
    assert kernel.rules() == kernel.rules("ip6tables") == []
    wall.drop()


@pytest.mark.parametrize("lost", [0, 1, 2, 3, slice(0, 4)])
def test_what_somebody_undid_comes_back(kernel: Kernel, lost: int | slice) -> None:
    """Each line by itself, and all of them; also where another life of the node wrote them."""
    wall = Firewall("br0", "C")
    wall.hold(("-d 10.0.0.0/8 -j DROP", "-d 1.2.3.4/32 -j DROP"))
    wanted = kernel.rules()
    left = list(wanted)
    del left[lost]
    for again in (wall, Firewall("br0", "C")):
        (kernel.folder / "iptables").write_text("\n".join(left))
        again.hold(("-d 10.0.0.0/8 -j DROP", "-d 1.2.3.4/32 -j DROP"))
        assert sorted(kernel.rules()) == sorted(wanted)


def test_who_may_not_says_so(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of iptables; or that there is none."""
    kernel.breaks()
    with pytest.raises(Unguarded, match="iptables: Permission denied"):
        Firewall("br0", "C").hold(())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(firewall, "_PLACES", "/nowhere")
    with pytest.raises(Unguarded, match="install iptables"):
        Firewall("br0", "C").hold(())


@pytest.mark.parametrize(("policy", "asks"), [("internet", True), ("open", False), ("none", False)])
def test_looking_changes_nothing(kernel: Kernel, policy: str, asks: bool) -> None:
    """Whether there could be rules is seen by listing those that are there."""
    engine = Engine()
    way = Outlet(engine, NodeSettings(listen="0.0.0.0:1", build_network=policy), NODE)
    way.look()
    assert kernel.calls() == (["list"] if asks else [])
    assert not engine.done
    kernel.breaks()
    if asks:
        with pytest.raises(Unguarded, match=r"Permission denied.*CAP_NET_ADMIN"):
            way.look()
    else:
        way.look()


# The way out as a whole


class Engine(DummyEngine):
    """One with networks; each is told in the order of things."""

    runs_programs = True

    def __init__(self, *problems: EngineError) -> None:
        super().__init__()
        self.done: list[Any] = []
        self._problems = list(problems)

    def provide_network(self, name: str, interface: str, labels: Mapping[str, str]) -> None:
        """Made or found."""
        if self._problems:
            raise self._problems.pop(0)
        self.done.append((name, interface, dict(labels)))

    def remove_network(self, name: str) -> bool:
        """Gone, unless in use."""
        self.done.append(f"remove {name}")
        return "used" not in self.done


class Wall(Firewall):
    """That notes what it is told."""

    def __init__(self, done: list[Any], *problems: Unguarded) -> None:
        super().__init__("br0", "C")
        self._done = done
        self.problems = list(problems)

    def hold(self, rules: Sequence[str]) -> None:
        """In force."""
        if self.problems:
            raise self.problems.pop(0)
        self._done.append(len(rules) > 10)

    def drop(self) -> None:
        """Gone."""
        self._done.append("drop")


LAN = {"listen": "0.0.0.0:1", "build_network": "internet"}
MADE = [True, ("imagepool-3fb0a1b2c3", "ip-3fb0a1b2c3", {"imagepool.node": NODE})]


def way_out(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, *problems: Unguarded, here: bool = True, **how
) -> Outlet:
    """With an engine whose bridges are in this namespace, or not."""
    monkeypatch.setattr(outlet, "_is_here", lambda interface: here)
    settings = NodeSettings(**{**LAN, **how})
    return Outlet(engine, settings, NODE, Wall(engine.done, *problems))


def test_the_rules_come_before_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """And go after it."""
    engine = Engine()
    way = way_out(monkeypatch, engine)
    assert way.bridge == "imagepool-3fb0a1b2c3"
    assert way.problem() == ""
    way.let_go()
    assert engine.done == [*MADE, "remove imagepool-3fb0a1b2c3", "drop"]


def test_rules_are_put_there_by_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that find a rule missing would both put it there."""
    inside = threading.Semaphore(1)

    class Narrow(Wall):
        def hold(self, rules: Sequence[str]) -> None:
            assert inside.acquire(blocking=False)
            go_on.wait(0.05)
            inside.release()
            super().hold(rules)

    go_on, engine = threading.Event(), Engine()
    monkeypatch.setattr(outlet, "_is_here", lambda interface: True)
    way = Outlet(engine, NodeSettings(**LAN), NODE, Narrow(engine.done))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: way.hold(), range(4)))
    assert engine.done == MADE * 4


def test_what_a_container_uses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge, and the rules before it."""
    engine = Engine()
    engine.done.append("used")
    way_out(monkeypatch, engine).let_go()
    assert engine.done == ["used", "remove imagepool-3fb0a1b2c3"]


@pytest.mark.parametrize("policy", ["auto", "internet"])
def test_on_a_lan_nothing_is_left_out_in_silence(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """What stands in the way is said, with what mends it, until it is mended."""
    engine = Engine()
    way = way_out(monkeypatch, engine, Unguarded("not root"), build_network=policy)
    said = way.problem()
    assert said.startswith("builds cannot be kept off this machine: not root; let the node run as")
    assert 'set build_network to "open" or "none"' in said
    assert engine.done == []
    assert way.problem() == ""
    assert engine.done == MADE
    elsewhere = way_out(monkeypatch, Engine(), here=False, build_network=policy)
    assert "not in the node's namespace" in elsewhere.problem()
    with pytest.raises(Unguarded):
        elsewhere.hold()


def test_an_engine_that_is_away_or_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is told elsewhere; the second in its words."""
    way = way_out(monkeypatch, Engine(EngineDown("away"), EngineError("no subnet")))
    assert way.problem() == ""
    assert way.problem() == "no subnet"
    assert way.problem() == ""


def test_who_tries_it_out_alone_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only this machine reaches the node, `auto` does without; never after it worked."""
    alone = {"listen": "127.0.0.1:1", "build_network": "auto"}
    engine = Engine()
    way = way_out(monkeypatch, engine, Unguarded("not root"), **alone)
    assert way.problem() == ""
    assert (way.bridge, engine.done) == ("", [])
    assert "builds reach all that this machine does: " in caplog.text
    caplog.clear()
    engine = Engine()
    wall = Wall(engine.done)
    way = Outlet(engine, NodeSettings(**alone), NODE, wall)
    assert way.problem() == ""
    wall.problems.append(Unguarded("flushed and locked"))
    assert "flushed and locked" in way.problem()
    assert way.bridge


@pytest.mark.gen_test
async def test_a_member_of_a_pool_is_never_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Clients reach it on loopback only, but the pool's scheduler sends it what others wrote: one
    that joined, or is to join, takes no build where it cannot guard it.
    """
    wall = Wall([], *[Unguarded("not root")] * 100)
    monkeypatch.setattr(outlet, "Firewall", lambda *names: wall)
    monkeypatch.setitem(ENGINES, "dummy", lambda folder: Engine())
    token = str(JoinToken("0" * 64, bytes(16)))
    chosen = {"build_network": "auto", "join": token, "pool_listen": "127.0.0.1:0"}
    async with a_node(tmp_path, **chosen) as node:
        report = await node.service.status(LOCAL)
        assert report.status == "busy"
        assert "builds cannot be kept off this machine: not root" in report.reason


@pytest.mark.parametrize("policy", ["open", "none"])
def test_other_policies_touch_nothing(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    """Neither engine nor firewall."""
    engine = Engine()
    way = way_out(monkeypatch, engine, Unguarded("not asked"), build_network=policy)
    assert (way.problem(), way.bridge) == ("", "")
    way.let_go()
    assert engine.done == []

"""`imagepool doctor` on machines of a LAN: the pasted line's token, and what mDNS brings."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.program.identity import load
from tests.system.lan import Host, Lan
from tests.system.pool import PoolOnLan
from tests.system.test_lan_trust import OPEN, entry, invited, joining

pytestmark = pytest.mark.system

Told = dict[str, tuple[str, str, str]]


def doctor(host: Host, *arguments: str) -> tuple[bool, Told]:
    """(whether nothing is in the way, check -> status, found, remedy) on this machine."""
    command = shlex.join((sys.executable, "-m", "imagepool", "doctor", "--json", *arguments))
    clean = {"IMAGEPOOL_URL": ""}
    answer: Any = json.loads(
        host.output("sh", "-c", f"{command} || test $? = 1", environment=clean)
    )
    told = {one["check"]: (one["status"], one["found"], one["remedy"]) for one in answer["checks"]}
    return answer["healthy"], told


def test_a_machine_that_wants_to_join(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """With the token it says that all is well before the node is started, and that the ports are
    its own when it runs; where nothing comes through, it says so.
    """
    scheduler = pool.scheduler(lan["control"], settings=OPEN)
    token = invited(scheduler)
    anvil = lan["anvil"]
    folder = str(tmp_path / "anvil")
    pasted = ("--join", token, "--engine", "dummy", "--data", folder)
    healthy, told = doctor(anvil, *pasted)
    assert healthy, told
    assert told["mDNS"][1].startswith(f"heard 1 program on {anvil.address}")
    assert f"https://{lan['control'].address}:8081" in told["scheduler control"][1]
    assert "the token admits" in told["scheduler"][1]
    assert told["clock"][0] == "ok"
    assert told["addresses"][1] == anvil.address
    assert token not in str(told)

    anvil.ip("link set eth0 multicast off")
    _, told = doctor(anvil, *pasted)
    assert told["multicast"][0] in ("warn", "fail")
    assert "dev eth0" in told["multicast"][2]
    anvil.ip("link set eth0 multicast on")

    anvil.cut()
    healthy, told = doctor(anvil, *pasted)
    assert not healthy
    assert "5353" in told["mDNS"][2]
    assert told["scheduler"][1] == "none is named, and none was found by mDNS"
    there = f"https://{lan['control'].address}:8081"
    _, told = doctor(anvil, *pasted, "--scheduler", there)
    assert told["scheduler"][1].startswith(f"{there} cannot be reached")
    assert "firewall" in told["scheduler"][2] or "start the scheduler" in told["scheduler"][2]


def test_members_and_others(lan: Lan, pool: PoolOnLan) -> None:
    """On the node's machine and on the scheduler's, while both run."""
    scheduler = pool.scheduler(lan["control"], settings=OPEN | {"unproven": "none"})
    pool.node(lan["forge"])
    node, _ = joining(pool, lan["anvil"], invited(scheduler))
    me = load(node.folder).id
    entry(scheduler, me, "ready")
    healthy, told = doctor(lan["anvil"], "--engine", "dummy", "--data", str(node.folder))
    assert healthy, told
    assert "takes us for a member" in told["scheduler"][1]
    for port in ("listen", "pool_listen"):
        assert "is this program's own" in told[port][1]
    assert "this program itself too" in told["mDNS"][1]
    lan_wide = ("--listen", "0.0.0.0:8080", "--anonymous", "user", "--data", str(scheduler.folder))
    healthy, told = doctor(lan["control"], "--program", "scheduler", *lan_wide)
    assert healthy, told
    assert told["node anvil"][0] == "ok"
    assert told["node forge"][0] == "warn"
    assert "has joined no pool" in told["node forge"][1]
    assert "imagepool node --join TOKEN" in told["node forge"][2]

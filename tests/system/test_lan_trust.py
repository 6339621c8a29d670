"""Joining a pool on an open LAN: one pasted line, mDNS, TLS between real programs in network
namespaces, and those on the same LAN who only say that they belong.
"""

import base64
import sys
import time
from pathlib import Path

import pytest

from protocol.model.build import Result, State
from protocol.model.messages import RosterEntry
from protocol.ports.service import LOCAL
from protocol.program.identity import load
from tests import leaks
from tests.figures import Figures
from tests.programs import request
from tests.system.lan import Host, Lan
from tests.system.pool import PoolOnLan, Program, Scheduler, entry_of
from tests.system.rogues import captured

pytestmark = pytest.mark.system

OPEN = {"anonymous": "user", "unproven": "loopback", "hold": 0.5, "patience": 1}
"""Settings of a scheduler that everybody on the LAN may give builds to, and nobody else may take
them from than members.
"""
WORD = "Tr0ub4dor-and-3"
"""What nobody on the LAN is to read."""


def invited(scheduler: Scheduler, *flags: str) -> str:
    """The token in the line that `imagepool invite` prints on the scheduler's machine."""
    line = scheduler.host.output(
        *(
            sys.executable,
            "-m",
            "imagepool",
            "invite",
            *flags,
            "--url",
            f"http://127.0.0.1:{scheduler.port}",
        )
    )
    assert line.startswith("imagepool node --join ")
    leaks.used(line.split()[-1], "join token")
    return line.split()[-1]


def joining(pool: PoolOnLan, host: Host, token: str, **flags: object) -> tuple[Program, float]:
    """(a node that was started with the pasted line, the seconds until it said that it joined)."""
    began = time.monotonic()
    node = pool.node(host, join=token, listen="127.0.0.1:8090", **flags)
    node.process.line(r"joined [0-9a-f]{16} at https://\S+, priority \d+")
    return node, time.monotonic() - began


def entry(scheduler: Scheduler, node: str, state: str) -> RosterEntry:
    """The roster's line of the node of this id, as soon as it is in this state."""
    roster, _ = scheduler.roster_until(
        lambda roster: (found := entry_of(roster, node)) is not None and found.state == state
    )
    found = entry_of(roster, node)
    assert found is not None
    return found


def test_one_pasted_line_joins_a_machine(
    lan: Lan, pool: PoolOnLan, tmp_path: Path, figures: Figures
) -> None:
    """Nothing else is configured anywhere. What goes between scheduler and node nobody else on the
    LAN can read; one who did not join gets nothing, whatever it advertises.
    """
    scheduler = pool.scheduler(lan["control"], settings=OPEN)
    token = invited(scheduler)
    rogue = pool.node(lan["forge"], priority=1_000_000)
    with captured(lan, tmp_path / "capture"):
        node, seconds = joining(pool, lan["anvil"], token, priority=1)
        node_id = load(node.folder).id
        ready = entry(scheduler, node_id, "ready")
        assert ready.url.startswith("https://")
        assert "it has not joined" in entry(scheduler, rogue.id, "unproven").reason
        asked = request(f"print {WORD}", note=WORD)
        build = scheduler.host.run(scheduler.client.submit(LOCAL, asked))
        build = scheduler.build_until(build.id, lambda b: b.state is State.STOPPED)
        assert build.result is Result.SUCCEEDED
        assert build.node is not None
        assert build.node.id == node_id
    seen = (tmp_path / "capture").read_bytes()
    assert len(seen) > 10_000
    for secret in (WORD, token, token[20:60], base64.b64encode(WORD.encode()).decode()):
        assert secret.encode() not in seen
    figures(f"a machine joined {seconds:.2f} s after its line was pasted")

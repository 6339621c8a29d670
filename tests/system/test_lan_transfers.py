"""Artifacts without TLS between real programs on a LAN: what somebody who listens has of it."""

import hashlib
import re
from pathlib import Path

import pytest

from protocol.model.build import State
from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL
from protocol.program.identity import load
from tests.leaks import used
from tests.programs import request
from tests.system.lan import Host, Lan
from tests.system.pool import PoolOnLan
from tests.system.test_lan_trust import captured, entry, invited

pytestmark = pytest.mark.system

PLAIN = {"transfers": "plain", "unproven": "loopback"}
SIZE = 3_000_000
"""Bytes of the artifact."""
WORD = "Tr0ub4dor-and-7"
"""What is in the build's command, and so in its log."""


def status_of(host: Host, url: str, ticket: str) -> str:
    """The status that somebody on this host is answered who shows a ticket."""
    shown = f"Imagepool-Ticket: {ticket}"
    return host.output("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", shown, url)


def test_who_listens_reads_artifacts_and_nothing_else(
    lan: Lan, pool: PoolOnLan, tmp_path: Path
) -> None:
    """They come by the port above the node's for the pool; the ticket that went with one is good
    for nothing more, wherever it is shown.
    """
    settings = {**PLAIN, "anonymous": "user", "hold": 0.5, "patience": 1}
    scheduler = pool.scheduler(lan["control"], settings=settings)
    with captured(lan, tmp_path / "capture"):
        token = invited(scheduler)
        node = pool.node(lan["anvil"], settings=PLAIN, join=token, listen="127.0.0.1:8090")
        node.process.line(r"joined [0-9a-f]{16} at https://\S+, priority \d+")
        entry(scheduler, load(node.folder).id, "ready")
        asked = request(f"print {WORD}\nartifact {SIZE}", output=IsoOutput())
        build = scheduler.host.run(scheduler.client.submit(LOCAL, asked))
        build = scheduler.build_until(build.id, lambda b: b.state is State.STOPPED)
        file = tmp_path / "image.iso"
        url = f"http://127.0.0.1:{scheduler.port}/api/v1/builds/{build.id}"
        scheduler.host.output("curl", "-sSf", "-o", str(file), f"{url}/artifacts/image.iso")
        assert WORD in scheduler.host.output("curl", "-sSf", f"{url}/log")
    body, seen = file.read_bytes(), (tmp_path / "capture").read_bytes()
    assert hashlib.sha256(body).hexdigest() == build.artifacts[0].sha256
    assert body[1_000_000:1_000_064] in seen
    assert WORD.encode() not in seen
    assert token[20:60].encode() not in seen
    (ticket,) = re.findall(rb"Imagepool-Ticket: ([0-9a-f]{64})\r\n", seen)
    used(ticket, "ticket")
    where = f"http://{lan['anvil'].address}:8092/pool/v1/transfer"
    for host in ("forge", "control", "anvil"):
        assert status_of(lan[host], where, ticket.decode()) == "403"
    assert status_of(lan["forge"], where.replace("/pool/v1/transfer", "/status"), "") == "404"

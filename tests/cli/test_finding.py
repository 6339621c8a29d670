"""The command line on a machine of a LAN, told nothing: it finds the pool by mDNS."""

import json
import sys

import pytest

from tests.system.lan import Lan
from tests.system.pool import PoolOnLan

pytestmark = pytest.mark.system


def test_the_pool_is_found_by_mdns(lan: Lan, pool: PoolOnLan) -> None:
    """From another machine than the scheduler's; and a pool of another name is not."""
    node = pool.node(lan["anvil"])
    scheduler = pool.scheduler(lan["control"])
    scheduler.has_ready(node)
    peer = lan.add("peer")
    ask = (sys.executable, "-m", "imagepool", "nodes")
    roster = json.loads(peer.output(*ask, "--json", environment={"IMAGEPOOL_URL": ""}))
    assert roster["scheduler"] == "control"
    assert [entry["id"] for entry in roster["nodes"]] == [node.id]
    asked = peer.start(*ask, environment={"IMAGEPOOL_POOL": "another"}, ends=3)
    asked.line("Error: no scheduler was found by mDNS; say where it is with .*")
    asked.ended(3)

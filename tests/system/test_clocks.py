"""Machines whose clocks are an hour apart: certificates are made by one clock and judged by
another.
"""

import pytest

from protocol.model.build import Result
from protocol.program.identity import load
from tests.system.lan import Lan
from tests.system.pool import PoolOnLan
from tests.system.rogues import treasure
from tests.system.test_lan_trust import OPEN, entry, invited, joining
from tests.system.test_moved_scheduler import renewed

pytestmark = pytest.mark.system

HOUR = 3600.0


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
@pytest.mark.parametrize("whose", ["node", "scheduler"])
def test_a_machine_an_hour_from_the_others(
    lan: Lan, pool: PoolOnLan, whose: str, ahead: float
) -> None:
    """It joins, builds with all that a build can have, renews its certificate, builds again; the
    roster says how far the node's clock is ahead.
    """
    clocks = {"node": 0.0, "scheduler": 0.0, whose: ahead}
    scheduler = pool.scheduler(lan["control"], settings=OPEN, clock=clocks["scheduler"])
    node, _ = joining(
        pool,
        lan["anvil"],
        invited(scheduler),
        settings={"renew_every": 2},
        clock=clocks["node"],
    )
    (certificate,) = (node.folder / "pools").glob("*/certificate.pem")
    first = certificate.read_bytes()
    ready = entry(scheduler, load(node.folder).id, "ready")
    assert ready.clock == pytest.approx(clocks["node"] - clocks["scheduler"], abs=30)
    assert treasure(scheduler).build.result is Result.SUCCEEDED
    renewed(certificate, first)
    build = treasure(scheduler).build
    assert build.result is Result.SUCCEEDED
    assert build.started is not None
    assert build.stopped is not None
    assert build.created <= build.started <= build.stopped

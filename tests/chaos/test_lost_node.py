"""A node that is killed, and comes back or does not: real programs, each on its own machine of a
LAN, their times scaled down.
"""

import time

import pytest

from protocol.model.build import Build, Result
from tests.chaos.wire import SCALED, events, journal, page, runs, shows, starts, stopped
from tests.figures import Figures
from tests.system.lan import Lan
from tests.system.pool import PoolOnLan, entry_of

pytestmark = [pytest.mark.system, pytest.mark.chaos]

MARGIN = 3.0
"""Seconds over the loss limit within which a lost build is begun anew."""


def causes(build: Build, event: str) -> list[str]:
    """Why it happened, each time that it did."""
    return [step.cause for step in build.history if step.event == event]


def test_build_of_a_killed_node_succeeds_on_another(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """kill -9 of a node that does not come back: its build is begun on another one soon after the
    loss limit, and succeeds; roster and page say silent, then lost, and why.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"], priority=10)
    forge = pool.node(lan["forge"], slots=8)
    scheduler.has_ready(anvil, forge)
    lost_id = anvil.id
    build = scheduler.submit("print hello", "sleep 1.5", "print done")
    scheduler.build_until(build, runs)
    killed, killed_at = anvil.process.kill(), time.time()
    roster, _ = scheduler.roster_until(shows("silent", lost_id))
    entry = entry_of(roster, lost_id)
    assert entry is not None
    assert "no answer" in entry.reason
    assert 'class="silent"' in page(scheduler)
    _, lost = scheduler.roster_until(shows("lost", lost_id))
    assert 'class="lost"' in page(scheduler)
    done = scheduler.build_until(build, stopped)
    assert (done.result, done.attempt) == (Result.SUCCEEDED, 2), done
    assert done.node is not None
    assert done.node.name == "forge"
    assert causes(done, "lose") == ["its node was lost"]
    assert starts(build, anvil, forge) == [("anvil", 1), ("forge", 2)]
    assert events(forge, build) == [("start", 2), ("end", 2), ("remove", 2)]
    after = journal(forge, build)[0].at - killed_at
    limit = SCALED["lost_after"]
    figures(
        f"node killed with -9 and gone, limit {limit:g} s: lost after {lost - killed:.2f} s, its "
        f"build begun on another {after:.2f} s after the kill"
    )
    assert limit <= after + SCALED["hold"]  # silence counts from the last answer before the kill
    assert after < limit + MARGIN


def test_in_a_pool_of_one_node_builds_wait_until_it_is_back(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """Where there is no other node, the lost attempt stays what it is and a new build waits and
    says why; when the node is back, both come to their end there.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"])
    scheduler.has_ready(anvil)
    lost_id = anvil.id
    build = scheduler.submit("print hello", "sleep 5")
    # By then its node has written down that it runs: it would begin anew, under the same number.
    scheduler.build_until(build, lambda build: build.commands[0].exit_code == 0)
    anvil.process.kill()
    waiting = scheduler.submit("print hello")
    scheduler.roster_until(shows("lost", lost_id))
    scheduler.build_until(waiting, lambda build: "lost" in build.reason)
    assert "anvil: it is lost: no answer" in scheduler.explain(waiting).reason
    assert scheduler.build_until(build, lambda build: True).attempt == 1
    anvil.begin()
    first, second = (scheduler.build_until(key, stopped) for key in (build, waiting))
    assert (first.result, first.attempt) == (Result.SUCCEEDED, 2), first
    assert (second.result, second.attempt) == (Result.SUCCEEDED, 1), second
    assert starts(build, anvil) == [("anvil", 1), ("anvil", 2)]
    assert starts(waiting, anvil) == [("anvil", 1)]
    again = journal(anvil, build)[-3].at
    ready = time.time() - (time.monotonic() - anvil.ready_at)
    figures(f"the pool's only node back: its lost build begun {again - ready:.2f} s after ready")


def test_loss_is_noticed_by_a_scheduler_that_started_after_it(lan: Lan, pool: PoolOnLan) -> None:
    """Node and scheduler are killed, only the scheduler comes back: it counts the silence from its
    own start, shows the node that it has not seen in this life by name, and has the build begun on
    another node.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"], priority=10)
    forge = pool.node(lan["forge"])
    scheduler.has_ready(anvil, forge)
    lost_id = anvil.id
    build = scheduler.submit("print hello", "sleep 2")
    scheduler.build_until(build, runs)
    anvil.process.kill()
    scheduler.process.kill()
    scheduler.begin()
    _, lost = scheduler.roster_until(shows("lost", lost_id))
    roster, _ = scheduler.roster_until(lambda _: True)
    entry = entry_of(roster, lost_id)
    assert entry is not None
    assert (entry.name, entry.found) == ("anvil", ("remembered",))
    assert lost - scheduler.process.started > SCALED["lost_after"]
    assert 'class="lost"' in page(scheduler)
    done = scheduler.build_until(build, stopped)
    assert (done.result, done.attempt) == (Result.SUCCEEDED, 2), done
    assert starts(build, anvil, forge) == [("anvil", 1), ("forge", 2)]

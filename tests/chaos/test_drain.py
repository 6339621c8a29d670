"""Nodes taken out of use: by command, and by SIGTERM. Real programs, each on its own machine of a
LAN, their times scaled down.
"""

import sys
import time

import pytest

from protocol.model.build import Build, Result
from protocol.model.messages import Roster
from tests.chaos.wire import SCALED, events, page, runs, shows, starts, stopped
from tests.figures import Figures
from tests.system.lan import Lan
from tests.system.pool import PoolOnLan, Program, Scheduler, entry_of, state_of
from tests.system.processes import Process

pytestmark = [pytest.mark.system, pytest.mark.chaos]

AT_ONCE = 2.0
"""Seconds within which a program ends that is told to for the second time."""
REASON = "its fan is broken"


def command(scheduler: Scheduler, *words: str, ends: int = 0) -> Process:
    """An `imagepool` command that somebody at the scheduler's machine began."""
    here = f"http://127.0.0.1:{scheduler.port}"
    line = (sys.executable, "-m", "imagepool", *words, "--url", here)
    return scheduler.host.start(*line, ends=ends)


def commanded(scheduler: Scheduler, *words: str) -> None:
    """The same, and it has ended well."""
    command(scheduler, *words).ended(0)


def why(roster: Roster, node: Program) -> str:
    """What the roster says of the node's state."""
    entry = entry_of(roster, node.id)
    return "" if entry is None else entry.reason


def succeeded(scheduler: Scheduler, build_id: str, *, node: str, attempt: int = 1) -> Build:
    """The build when it has ended: well, on this node, in this attempt."""
    build = scheduler.build_until(build_id, stopped)
    assert build.node is not None
    assert (build.result, build.node.name, build.attempt) == (Result.SUCCEEDED, node, attempt), (
        build
    )
    return build


# By command


def test_cordoned_node_gets_nothing_until_it_is_uncordoned(lan: Lan, pool: PoolOnLan) -> None:
    """`imagepool cordon`: what runs there goes on, new builds wait, and roster, page and `explain`
    say why, after restarts of scheduler and node too, until `imagepool uncordon`.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"], slots=4)
    scheduler.has_ready(anvil)
    running = scheduler.submit("print working", "sleep 1")
    scheduler.build_until(running, runs)
    commanded(scheduler, "cordon", "anvil", "--reason", REASON)
    waiting = scheduler.submit("print hello")
    succeeded(scheduler, running, node="anvil")
    shows_cordon(scheduler, anvil, waiting)
    scheduler.process.kill()
    scheduler.begin()
    shows_cordon(scheduler, anvil, waiting)
    scheduler.process.end()
    scheduler.begin()
    shows_cordon(scheduler, anvil, waiting)
    anvil.process.end()
    anvil.begin()
    shows_cordon(scheduler, anvil, waiting)
    assert not events(anvil, waiting)
    commanded(scheduler, "uncordon", "anvil")
    succeeded(scheduler, waiting, node="anvil")
    assert state_of(scheduler.roster_until(lambda _: True)[0], anvil.id) == "ready"


def shows_cordon(scheduler: Scheduler, node: Program, waiting: str) -> None:
    """Roster, page and the waiting build say that and why the node is cordoned."""
    roster, _ = scheduler.roster_until(shows("cordoned", node.id))
    assert why(roster, node) == REASON
    for text in ('class="cordoned"', REASON):
        assert text in page(scheduler)
    said = scheduler.explain(waiting)
    assert said.reason == f"anvil: it is cordoned: {REASON}"
    assert [(refusal.name, refusal.node) for refusal in said.refusals] == [("anvil", node.id)]


def test_drain_waits_until_the_node_is_empty(lan: Lan, pool: PoolOnLan) -> None:
    """`imagepool drain` cordons, says how many builds are left, and returns when there are none;
    with a limit that is too short it says so by its exit code. New builds go elsewhere meanwhile.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"], priority=10, slots=4)
    forge = pool.node(lan["forge"])
    scheduler.has_ready(anvil, forge)
    running = scheduler.submit("print working", "hang")
    scheduler.build_until(running, runs)
    command(scheduler, "drain", "anvil", "--timeout", "0.3", ends=1).ended(1)
    drain = command(scheduler, "drain", "anvil", "--reason", REASON)
    drain.line("anvil still has 1 build")
    roster, _ = scheduler.roster_until(lambda roster: why(roster, anvil) == REASON)
    assert state_of(roster, anvil.id) == "cordoned"
    succeeded(scheduler, scheduler.submit("print hello"), node="forge")
    cancelled = time.monotonic()
    scheduler.cancel(running)
    _, said = drain.line("anvil is drained: nothing is on it")
    assert said > cancelled
    drain.ended(0)
    assert events(anvil, running) == [("start", 1), ("kill", 1), ("remove", 1)]


# By SIGTERM


def test_node_told_to_end_finishes_what_runs_and_leaves(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """On SIGTERM a node takes nothing new and says so, finishes what runs, and then is off the
    roster at once; the build ended in its first attempt.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"], priority=10, slots=4, settings={"drain_limit": 30})
    forge = pool.node(lan["forge"])
    scheduler.has_ready(anvil, forge)
    identity = anvil.id
    running = scheduler.submit("print working", "sleep 3", "print done")
    scheduler.build_until(running, runs)
    anvil.process.ask_to_end()
    roster, _ = scheduler.roster_until(shows("busy", identity))
    assert "it shuts down when its builds have ended" in why(roster, anvil)
    succeeded(scheduler, scheduler.submit("print hello"), node="forge")
    succeeded(scheduler, running, node="anvil")
    done = time.monotonic()
    _, gone = scheduler.roster_until(shows("gone", identity))
    anvil.process.ended(0)
    assert events(anvil, running) == [("start", 1), ("end", 1), ("remove", 1)]
    figures(f"node told to end: off the roster {gone - done:.2f} s after its last build's end")


def test_what_does_not_end_in_time_goes_on_elsewhere(lan: Lan, pool: PoolOnLan) -> None:
    """What still runs when the limit is over is given up, and begun again on another node at once,
    not when the node would be lost.
    """
    scheduler = pool.scheduler(lan["control"], settings={**SCALED, "lost_after": 60})
    anvil = pool.node(lan["anvil"], priority=10, settings={"drain_limit": 1})
    forge = pool.node(lan["forge"])
    scheduler.has_ready(anvil, forge)
    running = scheduler.submit("print working", "sleep 2.5")
    scheduler.build_until(running, runs)
    asked = anvil.process.ask_to_end()
    ended = anvil.process.ended(0)
    build = succeeded(scheduler, running, node="forge", attempt=2)
    assert "the node was shut down" in [step.cause for step in build.history]
    assert starts(running, anvil, forge) == [("anvil", 1), ("forge", 2)]
    assert ("remove", 1) in events(anvil, running)
    assert 1 < ended - asked < 1 + AT_ONCE


def test_second_signal_ends_a_node_at_once(lan: Lan, pool: PoolOnLan) -> None:
    """Who does not want to wait for what runs sends SIGTERM again. The build goes on elsewhere when
    the node is lost.
    """
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    anvil = pool.node(lan["anvil"], priority=10, settings={"drain_limit": 60})
    forge = pool.node(lan["forge"])
    scheduler.has_ready(anvil, forge)
    running = scheduler.submit("print working", "sleep 2")
    scheduler.build_until(running, runs)
    anvil.process.ask_to_end()
    scheduler.roster_until(shows("busy", anvil.id))
    again = anvil.process.ask_to_end()
    assert anvil.process.ended(1) - again < AT_ONCE
    succeeded(scheduler, running, node="forge", attempt=2)

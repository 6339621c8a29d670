"""Whatever is lost, late, repeated, killed or cut: no build is lost, none has two results, no
stranger's is touched, and when it is over all end.

The programs are the real ones, on a loop, a network, disks and engines of the test
(`machine_*.py`). `IMAGEPOOL_EXAMPLES=2000` looks longer than a run of all tests does.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from protocol.errors import Unavailable
from protocol.model.build import Result, Stage
from tests.chaos.machine_engine import End
from tests.chaos.machine_events import AFTER, EVENTS, NUMBERS, begun, happen, walk_on
from tests.chaos.machine_loop import replaced
from tests.chaos.machine_mutants import MUTANTS
from tests.chaos.machine_stories import a_world, arrives, lose_sight, record, until_sent
from tests.chaos.machine_watcher import Violation
from tests.chaos.machine_world import World

EXAMPLES = int(os.environ.get("IMAGEPOOL_EXAMPLES", "60"))
WALKS = 300  # in which a mistake is found; a dozen do for most
NUMBER = some.integers(0, NUMBERS - 1)
SEARCH = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


class Recovery(RuleBasedStateMachine):
    """A pool, and everything that can happen to it."""

    world: World

    @initialize(
        schedulers=some.sampled_from([1, 1, 2]),
        nodes=some.sampled_from([2, 3, 1]),
        builds=some.integers(0, 4),
    )
    def begin(self, schedulers: int, nodes: int, builds: int) -> None:
        """The pool is up, and has something to do."""
        self.world = begun(schedulers, nodes, builds)

    # One rule for all: Hypothesis leaves out half of many rules in each run, and the harder faults
    # need several kinds of events.
    @rule(
        what=some.sampled_from([event.__name__ for event in EVENTS]),
        one=NUMBER,
        other=NUMBER,
        flag=some.booleans(),
        after=some.sampled_from(AFTER),
    )
    def happen(self, what: str, one: int, other: int, flag: bool, after: int | None) -> None:
        """Something, and then time passes, or none, or not even a message arrives."""
        happen(self.world, what, one, other, flag, after)

    def teardown(self) -> None:
        """Faults stop, and everything ends."""
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.watcher.problems:
                self.world.come_to_rest()
        finally:
            self.world.close()


def test_nothing_acknowledged_is_ever_lost() -> None:
    """Under every schedule of faults; and when they stop, every build ends."""
    run_state_machine_as_test(Recovery, settings=SEARCH)


@pytest.mark.parametrize("mistake", MUTANTS)
def test_each_safeguard_is_needed(mistake: str) -> None:
    """Without it, something happens that must not, and is seen."""
    with replaced(MUTANTS[mistake]), pytest.raises(Violation):
        walk_on(WALKS)


# What was found, each as short as it gets


def test_a_superseded_attempt_is_no_cancelled_build() -> None:
    """The node it was lost on tells a new store of it before the node that runs the next one."""
    with a_world(nodes=2) as world:
        world.create("s1")
        world.pass_time(1)
        lose_sight(world, "n1")
        world.network.cut.clear()
        world.pass_time(3)
        assert (record(world).attempt, record(world).stage) == (2, Stage.RUNNING)
        world.lose_store("s1")
        world.pass_time(5)
        assert (record(world).attempt, record(world).stage) == (2, Stage.RUNNING)


def test_a_superseded_attempt_is_no_cancelled_build_when_the_next_is_declined() -> None:
    """Its number is the record's again, and its end is not the user's."""
    with a_world(nodes=2) as world:
        world.create("s1")
        world.pass_time(1)
        world.network.cut.add(("s1", "n1"))
        forward = until_sent(world, "submit", "n2")
        world.network.cut.clear()
        arrives(world, until_sent(world, "cancel", "n1"))
        world.create("n2")
        arrives(world, forward)
        world.pass_time(5)
        assert record(world).result is not Result.CANCELLED


def test_a_later_attempt_that_finds_no_room_has_cancelled_nothing() -> None:
    """Forwards of two attempts arrive late and together; a client's build takes the slot that
    ending the first one frees.
    """
    with a_world(nodes=1) as world:
        world.create("s1")
        first = until_sent(world, "submit")
        second = first
        while second.arguments[2].attempt == 1:
            world.network.give_up(second)
            world.loop.settle()
            second = until_sent(world, "submit")
        arrives(world, first)
        world.create("n1")
        arrives(world, second)
        world.pass_time(5)
        assert record(world).result is not Result.CANCELLED


def test_an_attempt_keeps_its_files_until_the_next_is_on_disk() -> None:
    """The node refuses the next one; a new store then takes what the first one made."""
    with a_world(nodes=2) as world:
        world.create("s1")
        world.pass_time(1)
        lose_sight(world, "n1")
        world.machines["n1"].end(world.machines["n1"].running()[0], End.WELL)
        world.network.cut.clear()
        world.pass_time(3)
        world.lives["n1"].spoilt = Unavailable("the disk does not take it")
        world.machines["n2"].end(world.machines["n2"].running()[0], End.ENGINE)
        world.pass_time(0.1)
        world.lose_store("s1")
        world.pass_time(5)
        assert record(world).result is Result.SUCCEEDED
        assert world.machines["n1"].artifacts


def test_a_node_that_had_no_room_is_asked_again() -> None:
    """Though nothing of it has changed since: its report is the same."""
    with a_world(nodes=1) as world:
        world.create("s1")
        world.lives["n1"].spoilt = Unavailable("the disk does not take it")
        world.pass_time(5)
        assert record(world).stage is Stage.RUNNING


def test_a_cancel_that_could_not_be_written_has_not_happened() -> None:
    """The build waits on for a slot of its node."""
    with a_world(nodes=1) as world:
        world.create("n1")
        world.create("n1")
        world.lives["n1"].spoilt = Unavailable("the disk does not take it")
        world.cancel(1)
        world.machines["n1"].end(world.machines["n1"].running()[0], End.WELL)
        world.pass_time(1)
        assert [box.build for box in world.machines["n1"].running()] == [world.accepted[1].build]


def test_a_build_does_not_stay_on_a_node_that_was_forgotten() -> None:
    """Nobody else was there for so long."""
    with a_world(nodes=2) as world:
        world.crash("n2")
        world.create("s1")
        world.pass_time(3)
        world.crash("n1")
        world.pass_time(60)
        world.start("n2")
        world.pass_time(12)
        assert (record(world).attempt, record(world).stage) == (2, Stage.RUNNING)


def test_a_build_does_not_stay_on_a_node_that_was_never_written_down() -> None:
    """The scheduler starts anew, and does not know where that node was."""
    with a_world(nodes=2) as world:
        world.crash("n2")
        world.create("s1")
        world.pass_time(3)
        world.crash("s1")
        world.crash("n1")
        world.files["s1"].nodes.clear()
        world.start("n2")
        world.start("s1", made=False)
        world.pass_time(20)
        assert (record(world).attempt, record(world).stage) == (2, Stage.RUNNING)

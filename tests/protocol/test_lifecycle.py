"""The life of a build: the table as drawn, steps, history."""

import re
from pathlib import Path

import pytest

from protocol.model.build import Result, Stage, State, new_build
from protocol.model.lifecycle import (
    RESULTS,
    TABLE,
    Event,
    IllegalStep,
    advance,
    events_between,
    may,
)
from protocol.model.recipe import Command, Recipe
from protocol.model.request import BuildRequest

DRAWING = Path(__file__).parents[2] / "docs" / "architecture.md"


def a_build(*names: str):
    """A build that was accepted at second 0."""
    request = BuildRequest(Recipe(tuple(Command(name, text="x") for name in names)))
    return new_build("b", request, origin="o", owner="", now=0)


def led(*events: Event):
    """A build after these events."""
    build = a_build("c")
    for second, event in enumerate(events, 1):
        build = advance(build, event, second, f"cause {second}")
    return build


def test_the_table_is_the_drawing() -> None:
    """docs/architecture.md draws every step, and no other: a row deleted in either place is
    seen.
    """
    drawn = re.findall(r"^    (\w+) --> (\w+) : (\w+)$", DRAWING.read_text(), re.MULTILINE)
    table = {(here.value, there.value, event.value) for (here, event), there in TABLE.items()}
    assert set(drawn) == table
    assert len(drawn) == len(table)


def test_a_step_that_the_table_does_not_have_raises_with_the_history() -> None:
    """The error tells the story of the build."""
    build = led(Event.PLACE, Event.PREPARE)
    with pytest.raises(IllegalStep, match=r"place -> placed, prepare -> preparing"):
        advance(build, Event.PLACE, 9)
    assert not may(build, Event.PLACE)


def test_a_stopped_build_takes_no_step() -> None:
    """Whatever comes late."""
    build = led(Event.CANCEL)
    assert not any(may(build, event) for event in Event)


def test_every_step_is_in_the_history_with_time_and_cause() -> None:
    """One history for each build, each step with the revision one higher."""
    build = led(Event.PLACE, Event.PREPARE, Event.RUN, Event.COLLECT, Event.SUCCEED)
    assert [step.at for step in build.history] == [0, 1, 2, 3, 4, 5]
    assert build.history[2].cause == "cause 2"
    assert build.revision == 5
    assert (build.started, build.stopped, build.result) == (2, 5, Result.SUCCEEDED)


@pytest.mark.parametrize(("event", "result"), RESULTS.items())
def test_every_ending_has_a_result(event, result) -> None:
    """And is reachable from some stage."""
    stages = [stage for stage, other in TABLE if other is event]
    assert stages
    assert all(TABLE[stage, event] is Stage.STOPPED for stage in stages)
    assert set(RESULTS.values()) == set(Result)


def test_in_a_stopped_build_every_command_is_stopped() -> None:
    """One that never ran has exit code 125, one that was cut off 137."""
    from msgspec.structs import replace

    from protocol.model.build import CommandStatus

    build = led(Event.PLACE, Event.PREPARE, Event.RUN)
    commands = (CommandStatus("a", 0, 5, 0), CommandStatus("b", 5), CommandStatus("c"))
    ended = advance(replace(build, commands=commands), Event.TIME_OUT, 9)
    assert [command.exit_code for command in ended.commands] == [0, 137, 125]
    assert all(command.state is State.STOPPED for command in ended.commands)


def test_a_lost_attempt_leaves_nothing_behind() -> None:
    """The build waits as if it had never been placed; its history knows."""
    build = led(Event.PLACE, Event.PREPARE, Event.LOSE)
    assert (build.state, build.node, build.artifacts, build.started) == (
        State.WAITING,
        None,
        (),
        None,
    )
    assert build.history[-1].event == "lose"


@pytest.mark.parametrize(
    ("here", "there", "events"),
    [
        (Stage.PLACED, Stage.RUNNING, (Event.PREPARE, Event.RUN)),
        (Stage.PLACED, Stage.STOPPED, (Event.PREPARE, Event.RUN, Event.COLLECT)),
        (Stage.RUNNING, Stage.RUNNING, ()),
        (Stage.COLLECTING, Stage.PREPARING, ()),
    ],
)
def test_what_a_report_says_is_caught_up_with_step_by_step(here, there, events) -> None:
    """So that no history has holes."""
    assert events_between(here, there) == events

"""What follows from a report: nothing is precious, everything is a difference."""

from typing import Any

import pytest
from msgspec.structs import replace

from protocol.lifecycle import Event, advance
from protocol.model import (
    Build,
    BuildRequest,
    Command,
    CommandStatus,
    NodeReference,
    Recipe,
    Result,
    Stage,
    new_build,
)
from scheduler.core.follow import followed
from scheduler.core.reconcile import Acknowledge, Cancel, Follow, Resend, reconcile
from tests.scheduler.test_placement import a_report

NODE = NodeReference("id-n", "n")


def a_build(*events: Event, attempt: int = 1, node: NodeReference = NODE, **changes: Any) -> Build:
    """A build after these events."""
    request = BuildRequest(Recipe((Command("c", text="x"),)))
    build = new_build("b", request, origin="me", owner="", now=0, attempt=attempt)
    for event in events:
        build = advance(build, event, 1)
    return replace(build, node=node, **changes)


PLACED = a_build(Event.PLACE)
RUNNING = a_build(Event.PREPARE, Event.RUN)
ENDED = a_build(Event.PREPARE, Event.RUN, Event.COLLECT, Event.SUCCEED)
STOPPED_RECORD = a_build(Event.PLACE, Event.CANCEL)


def report(*builds: Build):
    """A report with these builds."""
    return a_report("n", builds=builds)


@pytest.mark.parametrize(
    ("wanted", "known", "reported", "actions"),
    [
        ((PLACED,), {"b": PLACED}, (), (Resend(PLACED),)),
        ((PLACED,), {"b": PLACED}, (RUNNING,), (Follow(PLACED, RUNNING),)),
        ((RUNNING,), {"b": RUNNING}, (RUNNING,), (Follow(RUNNING, RUNNING),)),
        (
            (a_build(Event.PLACE, attempt=2),),
            {"b": a_build(Event.PLACE, attempt=2)},
            (RUNNING,),
            (Resend(a_build(Event.PLACE, attempt=2)), Cancel("b")),
        ),
        ((), {"b": STOPPED_RECORD}, (RUNNING,), (Cancel("b"),)),
        ((), {"b": STOPPED_RECORD}, (ENDED,), (Acknowledge((("b", 1),)),)),
        (
            (),
            {"b": replace(RUNNING, node=NodeReference("other", "o"), attempt=2)},
            (RUNNING,),
            (Cancel("b"),),
        ),
        ((), {}, (RUNNING,), ()),
        ((), {}, (ENDED,), ()),
        ((), {}, (), ()),
    ],
    ids=[
        "a forward that was lost is sent again",
        "news is followed",
        "nothing new is followed all the same",
        "an attempt that we superseded on the same node",
        "what we cancelled while the node was away",
        "what ended and is on record",
        "an attempt that we superseded elsewhere",
        "what we know nothing of is left alone, running",
        "what we know nothing of is left alone, ended",
        "nothing",
    ],
)
def test_what_follows_from_a_report(wanted, known, reported, actions) -> None:
    """wanted x known x reported -> actions."""
    assert reconcile(wanted, known, report(*reported)) == actions


def test_news_is_caught_up_with_step_by_step() -> None:
    """A report that skipped steps leaves no holes in our history."""
    reported = replace(ENDED, commands=(CommandStatus("c", 0, 3, 0),), log_size=3)
    build = followed(PLACED, reported, 9, attempts=3)
    assert [step.event for step in build.history] == [
        *("accepted", "place", "prepare", "run", "collect", "succeed")
    ]
    assert (build.result, build.log_size, build.stopped) == (Result.SUCCEEDED, 3, 9)
    assert build.commands == reported.commands


@pytest.mark.parametrize(
    ("events", "stages"),
    [
        ((Event.PREPARE, Event.FAIL), ["prepare", "fail"]),
        ((Event.PREPARE, Event.RUN, Event.TIME_OUT), ["prepare", "run", "time_out"]),
        ((Event.CANCEL,), ["cancel"]),
    ],
)
def test_an_attempt_that_ended_early(events, stages) -> None:
    """Our history says how far it came, and no further."""
    build = followed(PLACED, a_build(*events), 9, attempts=3)
    assert [step.event for step in build.history][2:] == stages


@pytest.mark.parametrize(
    ("attempt", "stage", "result"),
    [(1, Stage.QUEUED, None), (2, Stage.QUEUED, None), (3, Stage.STOPPED, Result.LOST)],
)
def test_a_lost_attempt_is_tried_again_three_times_in_all(attempt, stage, result) -> None:
    """What is the pool's fault."""
    reported = a_build(Event.PREPARE, Event.GIVE_UP, attempt=attempt)
    build = followed(replace(PLACED, attempt=attempt), reported, 9, attempts=3)
    assert (build.stage, build.result, build.attempt) == (stage, result, attempt)


def test_a_failed_command_is_never_tried_again() -> None:
    """It is the user's result."""
    reported = a_build(Event.PREPARE, Event.RUN, Event.COLLECT, Event.FAIL)
    assert followed(PLACED, reported, 9, attempts=3).result is Result.FAILED


def test_a_build_that_has_stopped_here_stays_as_it_is() -> None:
    """Whatever a node says late."""
    assert followed(STOPPED_RECORD, RUNNING, 9, attempts=3) is STOPPED_RECORD

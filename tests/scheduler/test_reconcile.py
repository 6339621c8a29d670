"""What follows from a report: nothing is precious, everything is a difference."""

from typing import Any

import pytest
from msgspec.structs import replace

from protocol.model.build import Build, CommandStatus, NodeReference, Result, Stage, new_build
from protocol.model.lifecycle import Event, advance
from protocol.model.messages import Forwarded
from protocol.model.recipe import Command, Recipe
from protocol.model.request import BuildRequest, Forward
from scheduler.core.reconcile import Acknowledge, Adopt, Cancel, Follow, Resend, reconcile
from scheduler.core.steps import (
    adopted,
    cancelled,
    declined,
    failed,
    followed,
    found_again,
    placed,
)
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
LOST = replace(a_build(Event.PREPARE, Event.RUN, Event.LOSE), node=None)
LOST_THERE = a_build(Event.PREPARE, Event.RUN, Event.GIVE_UP)
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
            (Cancel("b", 1), Resend(a_build(Event.PLACE, attempt=2))),
        ),
        ((), {"b": STOPPED_RECORD}, (RUNNING,), (Cancel("b", 1),)),
        ((), {"b": STOPPED_RECORD}, (ENDED,), (Acknowledge((("b", 1),)),)),
        (
            (),
            {"b": replace(RUNNING, node=NodeReference("other", "o"), attempt=2)},
            (RUNNING,),
            (Cancel("b", 1),),
        ),
        ((), {}, (RUNNING,), (Adopt(RUNNING),)),
        ((), {}, (ENDED,), (Adopt(ENDED),)),
        ((), {"b": LOST}, (RUNNING,), (Adopt(RUNNING),)),
        ((), {"b": LOST}, (ENDED,), (Adopt(ENDED),)),
        ((), {"b": LOST}, (LOST_THERE,), (Acknowledge((("b", 1),)),)),
        ((), {"b": replace(LOST, attempt=2)}, (RUNNING,), (Cancel("b", 1),)),
        (
            (),
            {"b": RUNNING},
            (replace(RUNNING, attempt=2),),
            (Adopt(replace(RUNNING, attempt=2)),),
        ),
        ((), {"b": RUNNING}, (RUNNING,), ()),
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
        "what we know nothing of is adopted, running",
        "what we know nothing of is adopted, ended",
        "what we had given up and not replaced is found again",
        "also where it has ended meanwhile",
        "what came to nothing there is lost once, however often it is told",
        "what we had given up, and its successor too",
        "what a lost store had placed later",
        "a forward that is not answered yet says nothing",
        "nothing",
    ],
)
def test_what_follows_from_a_report(wanted, known, reported, actions) -> None:
    """wanted x known x reported -> actions."""
    assert reconcile(wanted, known, report(*reported)) == actions


def test_what_a_page_does_not_show_may_be_on_the_next() -> None:
    """Nothing is sent again for want of being reported, where there is more."""
    assert reconcile((PLACED,), {"b": PLACED}, replace(report(), more=True)) == ()


def test_an_attempt_that_its_node_did_not_take_is_not_used_up() -> None:
    """The next one has the same number; what has moved on since stays as it is."""
    waiting = a_build(node=None, attempt=0)
    first = placed(waiting, NODE, 2, "n, priority 0")
    assert (first.stage, first.attempt, first.node) == (Stage.PLACED, 1, NODE)
    back = declined(first, 1, 3, "no room")
    assert (back.stage, back.attempt, back.node, back.reason) == (Stage.QUEUED, 0, None, "no room")
    assert declined(RUNNING, 1, 3, "late") is RUNNING
    assert declined(first, 2, 3, "another attempt's") is first


def test_an_attempt_that_its_node_failed_is_used_up() -> None:
    """The last one ends the build."""
    assert failed(PLACED, 1, 3, "refused", 3).stage is Stage.QUEUED
    assert failed(PLACED, 1, 3, "refused", 1).result is Result.LOST
    assert failed(PLACED, 2, 3, "another attempt's", 3) is PLACED
    assert failed(STOPPED_RECORD, 1, 3, "late", 3) is STOPPED_RECORD


def test_what_was_given_up_is_found_again() -> None:
    """The same attempt, on its node; what has stopped stays so."""
    found = found_again(LOST, 1, NODE, 5)
    assert (found.stage, found.attempt, found.node) == (Stage.PLACED, 1, NODE)
    assert [step.event for step in found.history][-2:] == ["lose", "adopt"]
    assert found_again(STOPPED_RECORD, 2, NODE, 5) is STOPPED_RECORD
    assert found_again(RUNNING, 2, NODE, 5).attempt == 2


def test_a_build_is_adopted_with_all_that_its_node_keeps() -> None:
    """Owner, key and request as they were forwarded; made when its id says; of the scheduler above,
    if it came from there.
    """
    key = f"{1_700_000_000_000:012x}" + "0" * 20
    whole = Forwarded(RUNNING.request, Forward(key, "me", 2, owner="ann", path=("me",), key="k"))
    build = adopted(replace(RUNNING, id=key, attempt=2), whole, NODE, 9)
    assert (build.id, build.attempt, build.node) == (key, 2, NODE)
    assert (build.owner, build.key, build.origin) == ("ann", "k", "me")
    assert (build.stage, build.created) == (Stage.PLACED, 1_700_000_000)
    assert build.request == RUNNING.request
    above = Forwarded(RUNNING.request, Forward(key, "me", 2, path=("above", "me")))
    assert adopted(replace(RUNNING, id=key), above, NODE, 9).origin == "above"


def test_a_cancelled_build_stays_cancelled() -> None:
    """Whatever else happened to it."""
    assert cancelled(RUNNING, 4, "by hand").result is Result.CANCELLED
    assert cancelled(ENDED, 4, "by hand") is ENDED


def test_news_is_caught_up_with_step_by_step() -> None:
    """A report that skipped steps leaves no holes in our history."""
    reported = replace(ENDED, commands=(CommandStatus("c", 0, 3, 0),), log_size=3)
    build = followed(PLACED, reported, 9, limit=3)
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
    build = followed(PLACED, a_build(*events), 9, limit=3)
    assert [step.event for step in build.history][2:] == stages


@pytest.mark.parametrize(
    ("attempt", "stage", "result"),
    [(1, Stage.QUEUED, None), (2, Stage.QUEUED, None), (3, Stage.STOPPED, Result.LOST)],
)
def test_a_lost_attempt_is_tried_again_three_times_in_all(attempt, stage, result) -> None:
    """What is the pool's fault."""
    reported = a_build(Event.PREPARE, Event.GIVE_UP, attempt=attempt)
    build = followed(replace(PLACED, attempt=attempt), reported, 9, limit=3)
    assert (build.stage, build.result, build.attempt) == (stage, result, attempt)


def test_a_failed_command_is_never_tried_again() -> None:
    """It is the user's result."""
    reported = a_build(Event.PREPARE, Event.RUN, Event.COLLECT, Event.FAIL)
    assert followed(PLACED, reported, 9, limit=3).result is Result.FAILED


def test_a_build_that_has_stopped_here_stays_as_it_is() -> None:
    """Whatever a node says late."""
    assert followed(STOPPED_RECORD, RUNNING, 9, limit=3) is STOPPED_RECORD

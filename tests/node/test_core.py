"""What a node decides: ready or busy, how a build ended, what is forgotten."""

from typing import Any

import pytest
from msgspec.structs import replace

from node.core.capacity import Facts, capacity
from node.core.outcome import Ending, outcome
from node.core.retention import expired
from protocol.model.build import CommandStatus, new_build
from protocol.model.lifecycle import Event
from protocol.model.recipe import NoOutput, Recipe
from protocol.model.request import BuildRequest

READY = Facts(slots=2, used=1, disk_free=10, disk_reserve=5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"used": 2}, "all 2 slots are used"),
        ({"slots": 1}, "its slot is used"),
        ({"slots": 0}, "no slots"),
        ({"waiting": 3}, "3 builds of its own wait"),
        ({"leaving": True, "used": 0}, "shutting down"),
        ({"leaving": True, "used": 2}, "shuts down when its builds have ended: 2"),
        ({"resuming": True}, "goes on with the builds of its earlier life"),
        ({"engine_problem": "its engine is down"}, "its engine is down"),
        ({"disk_free": 4}, "disk is full"),
    ],
)
def test_ready_or_busy_with_the_reason(changes, words) -> None:
    """facts -> (status, reason)."""
    status, reason = capacity(replace(READY, **changes))
    assert status == ("busy" if words else "ready")
    assert words in reason


DONE = CommandStatus("a", 0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "event", "words"),
    [
        ({}, Event.SUCCEED, ""),
        ({"commands": (DONE, CommandStatus("b", 1, 2, 7))}, Event.FAIL, "'b' ended with 7"),
        ({"commands": (CommandStatus("b", 1, 2, 125),)}, Event.FAIL, "'b' never ran"),
        ({"has_result": False}, Event.FAIL, "no image was found"),
        (
            {"has_result": False, "result_problem": "it is a link"},
            Event.FAIL,
            "it is a link",
        ),
        ({"finished": False, "exit_code": 137}, Event.FAIL, "with 137"),
        (
            {"finished": False, "exit_code": 137, "out_of_memory": True},
            Event.FAIL,
            "memory limit",
        ),
        (
            {"commands": (DONE, CommandStatus("find", 1, 2, 3, added=True)), "has_result": False},
            Event.FAIL,
            "no image was found",
        ),
    ],
)
def test_how_a_build_ended(changes, event, words) -> None:
    """Any failed command makes the build failed, even where there is an artifact."""
    good: dict[str, Any] = {
        "commands": (DONE,),
        "finished": True,
        "has_result": True,
        "exit_code": 0,
        **changes,
    }
    assert outcome(Recipe(), Ending(**good))[0] is event
    assert words in outcome(Recipe(), Ending(**good))[1]


def test_a_build_without_output_needs_no_result() -> None:
    """Its log is its result."""
    ending = Ending((DONE,), finished=True, has_result=False, exit_code=0)
    assert outcome(Recipe(output=NoOutput()), ending)[0] is Event.SUCCEED


def test_what_ended_long_ago_is_forgotten() -> None:
    """Not what runs, however old."""
    build = new_build("b", BuildRequest(), origin="o", owner="", now=0)
    ended = replace(build, id="e", stopped=100.0)
    assert expired([build, ended], now=150, keep=60) == ()
    assert expired([build, ended], now=161, keep=60) == ("e",)

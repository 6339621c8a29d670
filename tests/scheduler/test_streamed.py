"""What has begun to be served while it is made is never made a second time."""

import pytest
from msgspec.structs import replace

from protocol.model.build import NEVER_RAN, Artifact, Build, CommandStatus, Result, Stage
from protocol.model.lifecycle import Event, advance
from protocol.model.recipe import Command, Recipe, StreamOutput
from protocol.model.request import BuildRequest
from scheduler.core.retry import STREAMED
from scheduler.core.steps import failed, followed
from scheduler.ledger import _lasting
from tests.scheduler.test_reconcile import NODE, a_build

LIMIT = 3
GROWING = Artifact("s", 10, "", growing=True)
RECIPE = Recipe((Command("a", text="x"), Command("b", text="x")), output=StreamOutput())
RUNNING = replace(
    a_build(Event.PREPARE, Event.RUN),
    request=BuildRequest(RECIPE),
    commands=(CommandStatus("a", 0, 1, 0), CommandStatus("b")),
)
LOST = replace(advance(RUNNING, Event.GIVE_UP, 9, "it broke"), request=BuildRequest())


def begun(build: Build, *, code: int | None = None) -> Build:
    """Its last command has."""
    return replace(build, commands=(build.commands[0], CommandStatus("b", 1, None, code)))


SEEN = replace(RUNNING, artifacts=(GROWING,))


@pytest.mark.parametrize(
    ("record", "reported", "again"),
    [
        (RUNNING, LOST, True),
        (SEEN, LOST, False),
        (RUNNING, begun(LOST), False),
        (RUNNING, begun(LOST, code=NEVER_RAN), True),
    ],
)
def test_a_node_says_that_it_is_lost(record: Build, reported: Build, again: bool) -> None:
    """It is queued again only where its last command had not begun."""
    after = followed(record, reported, 10, LIMIT)
    if again:
        assert after.stage is Stage.QUEUED
        return
    assert (after.result, after.artifacts) == (Result.LOST, ())
    assert after.reason == f"it broke; {STREAMED}"


@pytest.mark.parametrize(("record", "again"), [(RUNNING, True), (SEEN, False)])
def test_its_node_is_lost(record: Build, again: bool) -> None:
    """The same, where the scheduler gives it up; at the last attempt there is nothing to add."""
    after = failed(record, 1, 10, "its node was lost", LIMIT)
    assert after.stage is (Stage.QUEUED if again else Stage.STOPPED)
    assert (STREAMED in after.reason) is not again
    last = replace(record, attempt=LIMIT)
    assert failed(last, LIMIT, 10, "its node was lost", LIMIT).reason == "its node was lost"


def test_a_node_that_has_just_begun_again() -> None:
    """It does not say yet that the stream grows: that it did is not forgotten."""
    after = followed(SEEN, replace(RUNNING, artifacts=()), 10, LIMIT)
    assert (after.artifacts, after.node) == ((GROWING,), NODE)


def test_it_outlives_the_scheduler() -> None:
    """That the stream has begun is a change to be written down; how far it is, is none."""
    assert _lasting(SEEN) != _lasting(RUNNING)
    further = replace(SEEN, artifacts=(replace(GROWING, size=20),))
    assert _lasting(SEEN) == _lasting(further)

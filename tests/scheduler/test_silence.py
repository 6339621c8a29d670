"""A node's state as it follows from what it last said, when, and how many polls failed since."""

import pytest
from msgspec.structs import replace

from protocol.model.messages import API_VERSION, Report
from scheduler.core.roster import Entry, Timing, standing

ME = "5" * 40
TIMING = Timing(silent_after=9, lost_after=30)
REPORT = Report(
    id="1" * 40,
    boot="b",
    name="anvil",
    role="node",
    version="0.1.0",
    api=API_VERSION,
    architecture="x86_64",
    status="ready",
    priority=0,
    token="b.1",
)
ENTRY = Entry("key", "http://10.0.0.1:8090", ("mdns",), since=0, report=REPORT, answered=100)


@pytest.mark.parametrize(
    ("quiet", "failures", "state"),
    [
        (0, 0, "ready"),
        (8.9, 1, "ready"),
        (9, 1, "silent"),
        (29.9, 9, "silent"),
        (30, 3, "lost"),
        (30, 2, "silent"),
        (3600, 0, "silent"),
    ],
)
def test_silence_makes_a_node_silent_and_failed_polls_make_it_lost(quiet, failures, state) -> None:
    """Lost takes three polls that were sent and failed: a scheduler that stood still for an hour
    does not give up its nodes.
    """
    entry = replace(ENTRY, failures=failures, error="no answer in time")
    assert standing(entry, ME, 100 + quiet, TIMING).state == state


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (replace(REPORT, id=ME), "the scheduler itself"),
        (replace(REPORT, api=API_VERSION + 1), f"version {API_VERSION + 1}"),
        (replace(REPORT, role="scheduler", below=(ME,)), "in a circle"),
    ],
    ids=["itself", "version", "circle"],
)
def test_a_node_that_cannot_be_used_is_refused_with_the_reason(report, words) -> None:
    """However ready it says it is."""
    refused = standing(replace(ENTRY, report=report), ME, 100, TIMING)
    assert refused.state == "refused"
    assert words in refused.reason


def test_an_address_that_never_answered_says_why() -> None:
    """It is on the roster with its error."""
    entry = Entry("key", "http://10.0.0.1:8090", ("settings",), since=0, error="refused")
    assert standing(entry, ME, 100, TIMING).state == "unanswered"
    assert standing(entry, ME, 100, TIMING).reason == "refused"

"""A node's state: derived from when it answered and what it said."""

from typing import Any

import pytest

from protocol.model.messages import API_VERSION
from scheduler.core.roster import Entry, Timing, effective_priority, leaders, standing
from tests.scheduler.test_placement import a_report

TIMING = Timing(silent_after=9, lost_after=30)


def an_entry(key: str = "k", **changes: Any) -> Entry:
    """An entry that answered at second 100."""
    given = {"url": f"http://{key}", "found": ("mdns",), "since": 0, "answered": 100.0, **changes}
    given.setdefault("report", a_report("n"))
    return Entry(key=key, **given)


@pytest.mark.parametrize(
    ("entry", "now", "state", "words"),
    [
        (an_entry(), 100, "ready", ""),
        (an_entry(), 108.9, "ready", ""),
        (an_entry(error="refused", failures=9), 109, "silent", "9 s: refused"),
        (an_entry(failures=9), 130, "lost", "30 s"),
        (an_entry(failures=2), 130, "silent", "30 s"),
        (an_entry(report=a_report("n", status="busy", reason="full")), 100, "busy", "full"),
        (an_entry(report=a_report("n", api=API_VERSION + 1)), 100, "refused", "version"),
        (an_entry(report=a_report("n", id="me")), 100, "refused", "itself"),
        (an_entry(report=a_report("n", below=("x", "me"))), 100, "refused", "circle"),
        (an_entry(report=None, answered=None), 500, "unanswered", "not answered yet"),
        (an_entry(report=None, answered=None, error="no route"), 500, "unanswered", "no route"),
    ],
)
def test_standing(entry, now, state, words) -> None:
    """entry x time -> state, with the reason."""
    found = standing(entry, "me", now, TIMING)
    assert found.state == state
    assert words in found.reason


def test_a_program_found_in_two_ways_is_one() -> None:
    """The entry that answered last, with all ways it was found."""
    one = an_entry("a", found=("mdns",), answered=100.0)
    two = an_entry("b", found=("settings",), answered=101.0)
    never = an_entry("c", report=None, answered=None)
    joined, other = leaders((one, two, never))
    assert (joined.key, joined.found) == ("b", ("mdns", "settings"))
    assert other is never


def test_effective_priority() -> None:
    """The admin's word by id or name, else the node's own, capped."""
    report = a_report("n", priority=40)
    assert effective_priority(report, None, {}) == 40
    assert effective_priority(report, 30, {}) == 30
    assert effective_priority(report, 30, {"n": 99}) == 99
    assert effective_priority(report, None, {"id-n": -5, "n": 3}) == -5

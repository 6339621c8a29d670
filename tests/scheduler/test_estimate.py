"""The estimate of a build's start: what it is by example, and what holds of any."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from scheduler.core.estimate import estimate

SECONDS = some.integers(-10, 10**6).map(float)
"""Whole ones, which add up without rounding; below 0 where a clock was set back meanwhile."""
DURATIONS = some.lists(SECONDS, min_size=1, max_size=9)
PLACES = some.integers(1, 200)
SLOTS = some.integers(1, 20)
RUNNING = some.lists(SECONDS, max_size=30)


@pytest.mark.parametrize(
    ("place", "slots", "running_ages", "seconds"),
    [
        (1, 1, [], 0),
        (2, 1, [], 100),
        (3, 2, [], 100),
        (1, 1, [30], 70),
        (2, 1, [30], 170),
        (1, 2, [30, 90], 10),
        (2, 2, [30, 90], 70),
        (3, 2, [30, 90], 110),
        (1, 1, [5000], 0),
        (1, 1, [30, 90], 70),
    ],
)
def test_builds_end_when_the_typical_one_would(place, slots, running_ages, seconds) -> None:
    """Those that run, then those ahead in the queue; with more running than slots, the first that
    end leave no slot.
    """
    assert estimate(place, [1, 100, 9000], slots, running_ages) == seconds


@pytest.mark.parametrize(("durations", "slots"), [([], 3), ([100], 0), ([], 0)])
def test_nothing_is_estimated_where_nothing_is_known(durations, slots) -> None:
    """Neither without builds to judge by, nor without slots."""
    assert estimate(1, durations, slots, []) is None


def test_there_is_no_place_before_the_first() -> None:
    """Places count from 1."""
    with pytest.raises(ValueError, match="no place 0"):
        estimate(0, [100], 1, [])


@given(PLACES, DURATIONS, SLOTS, RUNNING)
def test_no_build_starts_in_the_past(place, durations, slots, running) -> None:
    """Never negative."""
    seconds = estimate(place, durations, slots, running)
    assert seconds is not None
    assert seconds >= 0


@given(PLACES, DURATIONS, SLOTS, RUNNING)
def test_a_higher_place_never_starts_earlier(place, durations, slots, running) -> None:
    """The queue keeps its order."""
    sooner, later = (estimate(here, durations, slots, running) for here in (place, place + 1))
    assert sooner is not None
    assert later is not None
    assert sooner <= later


@given(PLACES, DURATIONS, SLOTS, RUNNING)
def test_more_slots_never_make_it_later(place, durations, slots, running) -> None:
    """Also where more builds run than there are slots."""
    few, many = (estimate(place, durations, some, running) for some in (slots, slots + 1))
    assert few is not None
    assert many is not None
    assert many <= few


@given(PLACES, DURATIONS, SLOTS, RUNNING)
def test_it_is_what_a_step_by_step_simulation_says(place, durations, slots, running) -> None:
    """Each build takes the slot that is free first, and keeps it for the typical duration."""
    typical = sorted([*durations, *durations])
    middle = max(0.0, (typical[len(durations) - 1] + typical[len(durations)]) / 2)
    ends = sorted(min(middle, max(0.0, middle - age)) for age in running)
    starts = 0.0
    for _ in range(place):
        while len(ends) >= slots:
            starts = max(starts, ends.pop(0))
        ends = sorted([*ends, starts + middle])
    assert estimate(place, durations, slots, running) == pytest.approx(starts)

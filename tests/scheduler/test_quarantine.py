"""A node that fails builds: quarantine, probation, and how both end."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from scheduler.core.quarantine import (
    Health,
    Rule,
    after_failure,
    after_success,
    in_short,
    on_probation,
    quarantined,
)

RULE = Rule()
RULES = some.builds(
    Rule,
    failures=some.integers(1, 5),
    first=some.floats(0.5, 100),
    longest=some.floats(100, 10_000),
)


def after_failures(number: int, now: float = 0.0, rule: Rule = RULE) -> Health:
    """Of a node that failed so many builds at once."""
    health = Health()
    for _ in range(number):
        health = after_failure(health, now, "no space left", rule)
    return health


def test_a_new_node_may_have_builds() -> None:
    """It is neither in quarantine nor on probation, whatever the clock says."""
    for now in (0.0, 1e9):
        assert quarantined(Health(), now) is None
        assert not on_probation(Health(), now)


def test_one_failure_is_no_pattern() -> None:
    """Nothing follows from it."""
    health = after_failures(1)
    assert quarantined(health, 0) is None
    assert not on_probation(health, 1e9)


def test_a_quarantine_says_why_and_how_long_still() -> None:
    """In words, for people."""
    health = after_failures(2)
    assert quarantined(health, 2.5) == (
        "it failed 2 builds in a row: no space left; it gets nothing for another 8 s"
    )
    assert quarantined(health, 9.99) is not None
    assert quarantined(health, 10) is None


def test_in_short_it_says_the_same_as_long_as_nothing_happens() -> None:
    """A build that waits for it is not told each second how many are left."""
    assert in_short(after_failures(2)) == (
        "it failed 2 builds in a row: no space left; it gets nothing for 10 s"
    )


def test_a_rule_may_allow_no_failure() -> None:
    """The words are right for one build."""
    words = quarantined(after_failures(1, rule=Rule(failures=1)), 0)
    assert words == "it failed a build: no space left; it gets nothing for another 10 s"


def test_after_the_quarantine_it_is_on_probation() -> None:
    """Until a build succeeds."""
    health = after_failures(2)
    assert not on_probation(health, 9.99)
    assert on_probation(health, 10)
    assert not on_probation(after_success(health), 10)


@given(some.integers(2, 50))
def test_failures_at_once_begin_one_quarantine(number) -> None:
    """Those that were on their way when it began are counted, and extend nothing."""
    health = after_failures(number)
    assert health.failures == number
    assert health.until == RULE.first
    again = after_failure(health, RULE.first, "the same", RULE)
    assert again.until == RULE.first + 2 * RULE.first


@given(some.floats(0, 9.99), some.floats(10, 1e6))
def test_a_long_build_that_was_on_its_way_extends_nothing(placed, now) -> None:
    """Also where it fails when the quarantine is over."""
    health = after_failures(2)
    late = after_failure(health, now, "the same", RULE, placed=placed)
    assert late.failures == 3
    assert late.until == health.until
    assert on_probation(late, now)
    probed = after_failure(late, now, "the same", RULE, placed=now)
    assert probed.until == now + 2 * RULE.first


@given(RULES, some.lists(some.floats(0, 1e5), min_size=1, max_size=20))
def test_each_quarantine_lasts_twice_as_long_up_to_the_longest(rule, pauses) -> None:
    """However long after the last one the probation failed."""
    health = after_failures(rule.failures, 0, rule)
    for step, pause in enumerate(pauses):
        expected = min(rule.longest, rule.first * 2**step)
        assert health.length == expected
        now = health.until + pause
        assert on_probation(health, now)
        health = after_failure(health, now, "again", rule)
        assert health.until == now + health.length


@given(RULES, some.integers(0, 30), some.floats(0, 1e6))
def test_a_success_ends_it(rule, failures, now) -> None:
    """What follows is as for a new node: the first quarantine is short again."""
    health = after_success(after_failures(failures, now, rule))
    assert quarantined(health, now) is None
    assert not on_probation(health, now)
    for _ in range(rule.failures):
        assert quarantined(health, now) is None
        health = after_failure(health, now, "again", rule)
    assert health.until == now + rule.first


EVENTS = some.lists(some.tuples(some.floats(0, 50), some.booleans()), max_size=60)


@given(RULES, EVENTS)
def test_no_course_of_events_goes_astray(rule, events) -> None:
    """A node is never both in quarantine and on probation; its quarantine never gets shorter but
    by a success, is never longer than the longest, and a node that failed enough is in one or the
    other.
    """
    health, now = Health(), 0.0
    for pause, failed in events:
        now += pause
        before = health
        health = after_failure(health, now, "x", rule) if failed else after_success(health)
        away, probed = quarantined(health, now) is not None, on_probation(health, now)
        assert not (away and probed)
        assert (away or probed) == (health.failures >= rule.failures)
        assert health.until - now <= rule.longest * (1 + 1e-9)
        assert not failed or health.until >= before.until


@pytest.mark.parametrize("left", [0.001, 0.5, 1.0])
def test_the_last_second_is_not_zero(left) -> None:
    """What is left is rounded up."""
    assert "another 1 s" in (quarantined(after_failures(2), 10 - left) or "")

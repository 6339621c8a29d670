"""Whether a node that fails builds gets more of them.

A node that failed some in a row for reasons of its own gets nothing for a while. Then it is on
probation, with one build at a time: another failure begins a quarantine twice as long, a success
ends the matter. What counts as a reason of its own is the caller's to say. Times are monotonic
seconds.
"""

from math import ceil

from msgspec import Struct
from msgspec.structs import replace


class Rule(Struct, frozen=True):
    """How many failures begin a quarantine, and how long it lasts."""

    failures: int = 2  # in a row, that begin the first one
    first: float = 10.0  # seconds; each further one lasts twice as long
    longest: float = 3600.0  # seconds


class Health(Struct, frozen=True):
    """What a node's latest builds say of it. A new node's is `Health()`."""

    failures: int = 0  # in a row
    until: float = 0.0  # it gets nothing before then
    reason: str = ""  # of the latest failure
    length: float = 0.0  # seconds that its latest quarantine was given; 0: none since a success


def after_failure(
    health: Health, now: float, reason: str, rule: Rule, placed: float | None = None
) -> Health:
    """A build failed on the node, for a reason of the node's own.

    `placed`: when the node was given that build; None: not known. A build that was on its way when
    the quarantine began says nothing new of the node: it is counted, and extends nothing.
    """
    failed = replace(health, failures=health.failures + 1, reason=reason)
    was_on_its_way = (now if placed is None else placed) < health.until
    if failed.failures < rule.failures or was_on_its_way:
        return failed
    length = min(rule.longest, health.length * 2 or rule.first)
    return replace(failed, until=now + length, length=length)


def after_success(health: Health) -> Health:
    """A build reached its user's own result on the node, whatever that is: nothing is held
    against it.
    """
    return Health()


def quarantined(health: Health, now: float) -> str | None:
    """Why the node gets nothing now, in words; None: it may get builds."""
    if not health.length or now >= health.until:
        return None
    left = ceil(health.until - now)
    return f"{_words(health)}; it gets nothing for another {left} s"


def in_short(health: Health) -> str:
    """The same of one that is in quarantine, in words that stay the same until it fails again."""
    return f"{_words(health)}; it gets nothing for {health.length:g} s"


def on_probation(health: Health, now: float) -> bool:
    """Its quarantine is over and no build has succeeded since: it gets one build at a time."""
    return health.length > 0 and now >= health.until


def _words(health: Health) -> str:
    number = health.failures
    builds = "a build" if number == 1 else f"{number} builds in a row"
    return f"it failed {builds}: {health.reason}"

"""What the scheduler knows of a node, and what state that makes it: derived from when it
answered, never stored.
"""

from msgspec import Struct
from msgspec.structs import replace

from protocol.model.messages import API_VERSION, Report
from scheduler.core.known import KnownNode

REMEMBERED = "remembered"
"""How a node was found that is known from before the scheduler started."""
_SEEN_TO_FAIL = 3
"""Polls in a row that must have failed before a node is lost: a scheduler that stood still itself
heard nobody meanwhile, and that says nothing of them.
"""


class Timing(Struct, frozen=True):
    """The limits that states go by, in seconds."""

    silent_after: float
    lost_after: float


class Entry(Struct, frozen=True):
    """One address that may be a node, with what it last said. Times are on the scheduler's
    monotonic clock.
    """

    key: str  # how it was found: an mDNS id or a URL
    url: str
    found: tuple[str, ...]  # "mdns", "settings", "registered", "remembered"
    since: float  # when it was found
    id: str = ""  # of the program, where it is known before the first report
    report: Report | None = None  # the last one
    answered: float | None = None  # when that arrived
    counted: float = 0.0  # its silence does not count from before this
    error: str = ""  # of the last poll; empty where it was answered
    failures: int = 0  # polls in a row that were not answered
    unproven: bool = False  # of the last poll: it did not prove who it is, or was not asked
    latency: float | None = None  # seconds
    clock: float | None = None  # seconds that its clock is ahead of ours

    @property
    def program(self) -> str:
        """Its id; empty where nothing is known of it."""
        return self.report.id if self.report is not None else self.id


class Standing(Struct, frozen=True):
    """A node's state on the roster, and why."""

    # ready, busy, silent, lost, refused, unproven, cordoned, drained, quarantined, unanswered
    state: str
    reason: str = ""
    short: str = ""  # the same without how long it has been or will be so; empty: the same

    @property
    def lasting(self) -> str:
        """The reason in words that stay the same while nothing happens."""
        return self.short or self.reason


def standing(
    entry: Entry, me: str, now: float, timing: Timing, held_back: Standing | None = None
) -> Standing:
    """The state of a node as of now. `me`: this scheduler's id; `held_back`: what keeps builds from
    it though it would take them.
    """
    report = entry.report
    if (report is None or entry.answered is None) and REMEMBERED not in entry.found:
        if entry.unproven:
            return Standing("unproven", entry.error)
        return Standing("unanswered", entry.error or "it has not answered yet")
    quiet = now - max(entry.counted, entry.since if entry.answered is None else entry.answered)
    if quiet >= timing.lost_after and entry.failures >= _SEEN_TO_FAIL:
        return _quiet("lost", quiet, entry.error)
    if entry.unproven:
        return Standing("unproven", entry.error)
    if report is None or quiet >= timing.silent_after:
        return _quiet("silent", quiet, entry.error)
    if refusal := _refusal(report, me):
        return Standing("refused", refusal)
    return held_back or Standing(report.status, report.reason)


def _quiet(state: str, seconds: float, error: str) -> Standing:
    return Standing(state, f"no answer for {seconds:.0f} s: {error}", f"no answer: {error}")


def _refusal(report: Report, me: str) -> str:
    if report.id == me:
        return "this is the scheduler itself"
    if report.api != API_VERSION:
        return f"it speaks version {report.api} of the protocol, we speak {API_VERSION}"
    if me in report.below:
        return "it places builds on this scheduler: they would go in a circle"
    return ""


def leaders(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """One entry for each program, the one that answered last, with all ways it was found;
    unanswered ones as they are.
    """
    best: dict[str, Entry] = {}
    others = []
    for entry in entries:
        if not entry.program:
            others.append(entry)
            continue
        known = best.get(entry.program)
        best[entry.program] = _joined(known, entry) if known else entry
    return (*best.values(), *others)


def _joined(one: Entry, other: Entry) -> Entry:
    first, second = sorted((one, other), key=lambda entry: entry.answered or 0, reverse=True)
    found = tuple(sorted({*first.found, *second.found}))
    return replace(first, found=found)


def effective_priority(
    report: Report, cap: int | None, overrides: dict[str, int], known: KnownNode | None = None
) -> int:
    """The priority that placement goes by: the admin's word for this node, as it was given last
    (`known`) or in the settings, or its own, capped.
    """
    if known is not None and known.priority is not None:
        return known.priority
    if known is not None and known.priority_cap is not None:
        cap = known.priority_cap if cap is None else min(cap, known.priority_cap)
        return min(report.priority, cap)
    for name in (report.id, report.name):
        if name in overrides:
            return overrides[name]
    return report.priority if cap is None else min(report.priority, cap)

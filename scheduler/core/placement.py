"""Which node gets a build: two tuples of small functions, read top to bottom as policy.

CHECKS answer None, or the reason in words why this node does not get this build; every reason is
recorded. SCORERS rank the nodes that are left, the first scorer counting most. To add a rule, write
a function and name it in its tuple.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from protocol.messages import Refusal, Report
from protocol.model import Build, image_of
from scheduler.core.plain import PLAIN, beyond


class Candidate(Struct, frozen=True):
    """A node as placement sees it."""

    key: str
    report: Report
    state: str
    reason: str  # of its state
    priority: int  # effective
    ours: int = 0  # builds of ours that are on it, or on their way
    coming: int = 0  # those of them that its report does not show yet
    full: bool = False  # it refused a build for want of room, and has not reported since
    error: str = ""  # of the last poll
    last_used: float = 0.0  # when it last got a build, monotonic seconds
    refused: frozenset[str] = frozenset()  # ids of builds that it would not take, ever
    probation: bool = False  # it failed builds lately, and none has gone well since
    others: bool = False  # there are nodes that build, and have nothing held against them

    @property
    def free(self) -> int:
        """Slots that are free, builds on their way counted."""
        return max(0, self.report.slots - self.report.used - self.coming)


class Choice(Struct, frozen=True):
    """The node that gets the build, and why each other does not. No node: all refused."""

    node: Candidate | None
    refusals: tuple[Refusal, ...]


Check = Callable[[Candidate, Build], str | None]
Scorer = Callable[[Candidate, Build], float]


def answers(node: Candidate, build: Build) -> str | None:
    """Nothing is sent to a node whose last poll failed."""
    if node.state in ("silent", "lost", "unanswered"):
        return f"it is {node.state}: {node.reason}"
    return f"its last poll failed: {node.error}" if node.error else None


def admitted(node: Candidate, build: Build) -> str | None:
    """Not another version, not this scheduler itself, not a circle."""
    return f"it is refused: {node.reason}" if node.state == "refused" else None


def held_back(node: Candidate, build: Build) -> str | None:
    """Neither an admin nor its own failures keep builds from it."""
    if node.state in ("cordoned", "drained", "quarantined"):
        return f"it is {node.state}: {node.reason}"
    return None


def proven(node: Candidate, build: Build) -> str | None:
    """After a quarantine it gets one build at a time, until one goes well; and none again that it
    had before, where others can have that: it would use up the build's attempts.
    """
    if node.probation and node.ours:
        return "it failed builds lately, and gets one at a time until one goes well"
    if node.probation and node.others and _tried(node, build):
        return "it failed builds lately, and had this one before"
    return None


def ready(node: Candidate, build: Build) -> str | None:
    """It says that it takes builds."""
    return f"it is busy: {node.reason}" if node.state == "busy" else None


def has_slot(node: Candidate, build: Build) -> str | None:
    """A slot is free, builds on their way there counted."""
    if node.full:
        return "it had no room a moment ago"
    return None if node.free else "all its slots are used or about to be"


def accepts(node: Candidate, build: Build) -> str | None:
    """It has not said that it will never take this build."""
    return "it does not allow this build" if build.id in node.refused else None


def expressible(node: Candidate, build: Build) -> str | None:
    """A plain node gets only what the documented API can say."""
    words = beyond(build.request) if node.report.kind == PLAIN else ""
    return f"it is a plain node, whose API cannot express {words}" if words else None


def architecture(node: Candidate, build: Build) -> str | None:
    """As `uname -m` says it."""
    wanted = build.request.guidance.needs.architecture
    if wanted and node.report.architecture != wanted:
        return f"it is {node.report.architecture or 'of unknown architecture'}, not {wanted}"
    return None


def labels(node: Candidate, build: Build) -> str | None:
    """It carries every label that the build needs."""
    missing = set(build.request.guidance.needs.labels) - set(node.report.labels)
    return f"it lacks the label {', '.join(sorted(missing))}" if missing else None


def cpus(node: Candidate, build: Build) -> str | None:
    """It has the processors."""
    wanted = build.request.guidance.needs.cpus
    return f"it has {node.report.cpus:g} cpus" if wanted and node.report.cpus < wanted else None


def memory(node: Candidate, build: Build) -> str | None:
    """It has the memory."""
    wanted = build.request.guidance.needs.memory
    if wanted and node.report.memory < wanted:
        return f"it has {node.report.memory >> 20} MiB of memory"
    return None


def disk(node: Candidate, build: Build) -> str | None:
    """It has the disk."""
    wanted = build.request.guidance.needs.disk
    if wanted and node.report.disk_free < wanted:
        return f"it has {node.report.disk_free >> 20} MiB of disk"
    return None


CHECKS: tuple[Check, ...] = (
    answers,
    admitted,
    held_back,
    ready,
    has_slot,
    proven,
    accepts,
    expressible,
    architecture,
    labels,
    cpus,
    memory,
    disk,
)


def highest_priority(node: Candidate, build: Build) -> float:
    """Always first."""
    return node.priority


def has_image(node: Candidate, build: Build) -> float:
    """No pull before the build."""
    image = image_of(build)
    return float(image is not None and image in node.report.images)


def most_free(node: Candidate, build: Build) -> float:
    """The emptiest node."""
    return node.free


def not_tried(node: Candidate, build: Build) -> float:
    """A node that was tried for this build ranks lower; it is not excluded."""
    return 0.0 if _tried(node, build) else 1.0


def _tried(node: Candidate, build: Build) -> bool:
    return any(step.event == "place" and node.report.id in step.cause for step in build.history)


def longest_unused(node: Candidate, build: Build) -> float:
    """Turn and turn about."""
    return -node.last_used


SCORERS: tuple[Scorer, ...] = (highest_priority, has_image, most_free, not_tried, longest_unused)


def choose(build: Build, nodes: Iterable[Candidate]) -> Choice:
    """The best node that no check refuses, and every refusal."""
    refusals: list[Refusal] = []
    best: tuple[tuple[float, ...], Candidate] | None = None
    for node in nodes:
        reason = next(filter(None, (check(node, build) for check in CHECKS)), None)
        if reason is not None:
            refusals.append(Refusal(node.report.id, node.report.name, reason))
            continue
        score = tuple(scorer(node, build) for scorer in SCORERS)
        if best is None or score > best[0]:
            best = (score, node)
    return Choice(best[1] if best else None, tuple(refusals))


def in_words(choice: Choice) -> str:
    """Why a build waits, in a sentence."""
    if not choice.refusals:
        return "there is no node in the pool"
    shown = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in choice.refusals[:5])
    more = len(choice.refusals) - 5
    return shown + (f"; and {more} more nodes" if more > 0 else "")

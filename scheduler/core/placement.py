"""Which node gets a build: tuples of small functions, read top to bottom as policy.

CHECKS answer None, or the reason in words why this node does not get this build: PASSING ones what
may be otherwise in a moment, LASTING ones what stays until somebody changes node or build. Every
reason is recorded. SCORERS rank the nodes that are left, the first scorer counting most. To add a
rule, write a function and name it in its tuple.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from protocol.model.build import Build, image_of
from protocol.model.messages import Refusal, Report
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
    refused: Mapping[str, str] = {}  # build that it would not take, ever -> why, in its words
    probation: bool = False  # it failed builds lately, and none has gone well since
    others: bool = False  # there are nodes that build, and have nothing held against them
    in_vain: frozenset[str] = frozenset()  # builds that it lost by no fault of its own, and that
    # other nodes may still have

    @property
    def free(self) -> int:
        """Slots that are free, builds on their way counted."""
        return max(0, self.report.slots - self.report.used - self.coming)

    def singles_out(self, build: Build) -> bool:
        """Whether it refuses this build, and not others of the same needs."""
        return build.id in self.refused or build.id in self.in_vain


class Choice(Struct, frozen=True):
    """The node that gets the build, and why each other does not. No node: all refused."""

    node: Candidate | None
    refusals: tuple[Refusal, ...]
    never: bool = False  # no node could have it at another moment either, as all are now


_SHOWN = 8  # labels of a node that are told
_NAMED = 5  # nodes that a sentence names

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
    if node.probation and node.others and was_on(build, node.report.id):
        return "it failed builds lately, and had this one before"
    return None


def hopeful(node: Candidate, build: Build) -> str | None:
    """What came to nothing here by no fault of the node - a registry that it cannot reach - goes
    first to all others that may have it.
    """
    return "it had this one in vain, and others have not" if build.id in node.in_vain else None


def ready(node: Candidate, build: Build) -> str | None:
    """It says that it takes builds."""
    return f"it is busy: {node.reason}" if node.state == "busy" else None


def has_slot(node: Candidate, build: Build) -> str | None:
    """A slot is free, builds on their way there counted. Of a node that is not ready its state says
    more.
    """
    if node.state != "ready":
        return None
    if node.full:
        return "it had no room a moment ago"
    return None if node.free else "all its slots are used or about to be"


def accepts(node: Candidate, build: Build) -> str | None:
    """It has not said that it will never take this build."""
    why = node.refused.get(build.id)
    return None if why is None else f"it does not take this build: {why}"


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
    if not missing:
        return None
    there = ", ".join(sorted(node.report.labels)[:_SHOWN]) or "none"
    more = ", ..." if len(node.report.labels) > _SHOWN else ""
    return f"it lacks the label {', '.join(sorted(missing))} (it has {there}{more})"


def cpus(node: Candidate, build: Build) -> str | None:
    """It has the processors."""
    wanted, there = build.request.guidance.needs.cpus, node.report.cpus
    return f"it has {there:g} cpus, not {wanted:g}" if wanted and there < wanted else None


def memory(node: Candidate, build: Build) -> str | None:
    """It has the memory."""
    return _too_little(node.report.memory, build.request.guidance.needs.memory, "memory")


def disk(node: Candidate, build: Build) -> str | None:
    """It has the disk."""
    return _too_little(node.report.disk_free, build.request.guidance.needs.disk, "disk left")


def _too_little(there: int, wanted: int | None, what: str) -> str | None:
    if not wanted or there >= wanted:
        return None
    return f"it has {there >> 20} MiB of {what}, not {-(-wanted >> 20)}"


PASSING: tuple[Check, ...] = (answers, held_back, ready, has_slot, proven, hopeful)
LASTING: tuple[Check, ...] = (
    admitted,
    accepts,
    expressible,
    architecture,
    labels,
    cpus,
    memory,
    disk,
)
CHECKS: tuple[Check, ...] = (*PASSING, *LASTING)


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
    return 0.0 if was_on(build, node.report.id) else 1.0


def was_on(build: Build, node: str) -> bool:
    """Whether an attempt of the build was given to the node of this id, as its history says."""
    given = ("place", "adopt")
    return any(step.event in given and f"({node})" in step.cause for step in build.history)


def longest_unused(node: Candidate, build: Build) -> float:
    """Turn and turn about."""
    return -node.last_used


SCORERS: tuple[Scorer, ...] = (highest_priority, has_image, most_free, not_tried, longest_unused)


def best(build: Build, nodes: Iterable[Candidate]) -> Candidate | None:
    """The best node that no check refuses."""
    fit = (node for node in nodes if not any(check(node, build) for check in CHECKS))
    return max(fit, key=lambda node: _score(node, build), default=None)


def _score(node: Candidate, build: Build) -> tuple[float, ...]:
    return tuple(scorer(node, build) for scorer in SCORERS)


def choose(build: Build, nodes: Iterable[Candidate]) -> Choice:
    """The best node, and every refusal, each with all that is in the way."""
    nodes = tuple(nodes)
    refusals = tuple(filter(None, (_refusal(node, build) for node in nodes)))
    return Choice(best(build, nodes), refusals, _is_hopeless(build, nodes))


def _refusal(node: Candidate, build: Build) -> Refusal | None:
    reasons = [words for check in CHECKS if (words := check(node, build))]
    if not reasons:
        return None
    return Refusal(node.report.id, node.report.name, ", and ".join(reasons))


def suits(node: Candidate, build: Build) -> bool:
    """Whether the node could have the build at another moment, as both are."""
    return not any(check(node, build) for check in LASTING)


def _is_hopeless(build: Build, nodes: Sequence[Candidate]) -> bool:
    return bool(nodes) and not any(suits(node, build) for node in nodes)


def in_words(choice: Choice) -> str:
    """Why a build waits, in a sentence."""
    return _sentence(choice.refusals[:_NAMED], len(choice.refusals), choice.never)


def why_none(build: Build, nodes: Sequence[Candidate], unheard: Sequence[Refusal] = ()) -> str:
    """The same of a build that all of these nodes refuse; in a large pool it takes less time, as
    only those that are named are looked at. `unheard`: what is said of nodes that are no
    candidates.
    """
    named = filter(None, (_refusal(node, build) for node in nodes[:_NAMED]))
    never = _is_hopeless(build, nodes)
    return _sentence((*named, *unheard)[:_NAMED], len(nodes) + len(unheard), never)


def _sentence(named: Sequence[Refusal], number: int, never: bool) -> str:
    if not named:
        return "there is no node in the pool"
    shown = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in named)
    more = f"; and {number - len(named)} more nodes" if number > len(named) else ""
    return f"{'no node that is here can run it: ' if never else ''}{shown}{more}"

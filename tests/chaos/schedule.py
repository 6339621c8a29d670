"""What a seed stands for: builds, and what befalls the programs of the pool meanwhile. Nothing else
draws lots.

Moments are seconds since the beginning. How programs and network meet them differs from run to run:
a seed gives the same faults again, not the same races.
"""

import random

from msgspec import Struct

from protocol.model.build import Result

SCHEDULER = "scheduler"
OWNERS = ("alice", "bob", "carol")
_PACE = 40.0  # builds in a second
_LENGTH = 1.4  # seconds that a build takes at most
_SPAN = 2.0  # seconds that faults last at least
_REST = 0.5  # seconds between the faults of a node, on average
_SCHEDULER_REST = 1.2  # likewise, of the scheduler

_NODE_FAULTS = {
    "kill": (3, 1.5),
    "stop": (2, 3.0),
    "part": (2, 3.0),
    "part to": (1, 3.0),
    "part back": (2, 3.0),
    "slow": (2, 1.5),
    "lose replies": (4, 0.0),
    "repeat requests": (4, 0.0),
    "cut": (2, 0.0),
}
"""How often each befalls a node, beside the others, and the seconds that it lasts at most."""
_SCHEDULER_FAULTS = {"kill": (3, 0.4), "stop": (1, 1.5)}


class Fault(Struct, frozen=True):
    """Something bad."""

    at: float
    what: str
    target: str  # the scheduler, or the name of a node
    length: float = 0.0  # seconds that it lasts
    count: int = 0  # of messages; or tenths of a second that each takes


class Wish(Struct, frozen=True):
    """A build that somebody wants."""

    at: float
    key: str
    owner: str
    lines: tuple[str, ...]
    result: Result  # how it is to end, unless it is cancelled
    image: bool = False  # whether it is to make one
    cancel: float | None = None  # seconds after its acknowledgement


class Schedule(Struct, frozen=True):
    """All of it, in the order of time."""

    seed: int
    wishes: tuple[Wish, ...]
    faults: tuple[Fault, ...]


def drawn(seed: int, builds: int, nodes: list[str]) -> Schedule:
    """What this seed stands for with so many builds on these nodes."""
    lots = random.Random(seed)
    span = max(_SPAN, builds / _PACE)
    wishes = [_wish(lots, seed, number, span) for number in range(builds)]
    faults = [fault for node in nodes for fault in _befall(lots, node, span, _REST, _NODE_FAULTS)]
    faults += _befall(lots, SCHEDULER, span, _SCHEDULER_REST, _SCHEDULER_FAULTS)
    wishes.sort(key=lambda wish: wish.at)
    faults.sort(key=lambda fault: fault.at)
    return Schedule(seed, tuple(wishes), tuple(faults))


def _wish(lots: random.Random, seed: int, number: int, span: float) -> Wish:
    lines = [f"print {seed} {number}"]
    result, image = Result.SUCCEEDED, lots.random() < 0.3
    lines.append(f"sleep {lots.uniform(0, _LENGTH):.3f}")
    if image:
        lines.append(f"artifact {lots.randrange(1, 40_000)}")
    if lots.random() < 0.1:
        lines.append("exit 3")
        result = Result.FAILED
    cancel = lots.uniform(0, 0.5) if lots.random() < 0.1 else None
    at = lots.uniform(0, 0.8 * span)
    owner = lots.choice(OWNERS)
    return Wish(at, f"{seed}.{number}", owner, tuple(lines), result, image, cancel)


def _befall(
    lots: random.Random,
    target: str,
    span: float,
    rest: float,
    weights: dict[str, tuple[int, float]],
) -> list[Fault]:
    """One after another, with rests between."""
    faults = []
    at = lots.expovariate(1 / rest)
    while at < span:
        (what,) = lots.choices(list(weights), [often for often, _ in weights.values()])
        length = lots.uniform(0.1, 1.0) * weights[what][1]
        faults.append(Fault(at, what, target, length, lots.randrange(1, 6)))
        at += length + lots.expovariate(1 / rest)
    return faults

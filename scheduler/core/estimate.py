"""When a waiting build will start, judged by how long recent builds took. An estimate for people,
nothing decides by it.

It takes every build to last as long as the typical one (the median, so that a few endless ones do
not sway it), and every slot to suit every build. So it is too low where builds differ much or need
a certain node, and where builds of higher priority are still to come.
"""

from collections.abc import Sequence
from statistics import median


def estimate(
    place: int, durations: Sequence[float], slots: int, running_ages: Sequence[float]
) -> float | None:
    """Seconds until the build in this place of the queue, from 1, will start.

    `durations`: how long recent builds took, seconds. `slots`: how many builds the pool runs at
    once. `running_ages`: for each build that runs now, how many seconds it has run. None where
    nothing is known of durations, or there are no slots. Raises ValueError for a place below 1.
    """
    if place < 1:
        raise ValueError(f"there is no place {place} in a queue")
    if not durations or slots < 1:
        return None
    typical = max(0.0, median(durations))
    frees = _frees(typical, slots, running_ages)
    # All are free within one typical build, and then again after each: they take turns.
    rounds, slot = divmod(place - 1, slots)
    return frees[slot] + rounds * typical


def _frees(typical: float, slots: int, running_ages: Sequence[float]) -> list[float]:
    """When each slot is free, in seconds from now, the first one first.

    One that ran longer than is typical may end any moment. Where more run than there are slots (a
    node was cordoned), those that end first leave no slot.
    """
    ends = sorted(min(typical, max(0.0, typical - age)) for age in running_ages)
    return [0.0] * (slots - len(ends)) + ends[max(0, len(ends) - slots) :]

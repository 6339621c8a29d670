"""In which order waiting builds are placed: priority, lifted slowly by age, then age."""

from collections.abc import Iterable

from protocol.model import Build

LIFT = 600.0
"""Seconds of waiting that weigh as much as one step of priority, so that nothing starves."""


def order(builds: Iterable[Build], now: float) -> list[Build]:
    """Waiting builds, the next one first."""
    return sorted(builds, key=lambda build: (-_urgency(build, now), build.created, build.id))


def _urgency(build: Build, now: float) -> float:
    return build.request.guidance.priority + max(0.0, now - build.created) // LIFT

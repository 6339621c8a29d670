"""Which ended builds a node forgets."""

from collections.abc import Iterable

from protocol.builds.after import lasts_until, record_lasts_until
from protocol.model.build import Build


def expired(builds: Iterable[Build], now: float, keep: float) -> tuple[str, ...]:
    """Ids of the builds whose log and artifacts go: those that ended more than `keep` seconds ago,
    or longer ago than they ask for themselves, and are not pinned.
    """
    return tuple(build.id for build in builds if _over(lasts_until(build, keep), now))


def forgotten(builds: Iterable[Build], now: float, keep: float) -> tuple[str, ...]:
    """Ids of the builds whose records go, no sooner than `keep` seconds after their end."""
    return tuple(build.id for build in builds if _over(record_lasts_until(build, keep), now))


def _over(end: float | None, now: float) -> bool:
    return end is not None and end < now

"""Which ended builds a node forgets."""

from collections.abc import Iterable

from protocol.model import Build


def expired(builds: Iterable[Build], now: float, keep: float) -> tuple[str, ...]:
    """Ids of the builds that ended more than `keep` seconds ago."""
    return tuple(
        build.id for build in builds if build.stopped is not None and build.stopped < now - keep
    )

"""When each owner's builds were last placed, by which the queue is fair between owners."""

from collections import defaultdict
from collections.abc import Mapping

from protocol.model.build import Build, Stage


class Served:
    """Derived from builds as they change; after a restart everybody begins anew."""

    def __init__(self) -> None:
        # owner -> priority -> when such a build of theirs was last placed
        self._last: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self._before: dict[str, float] = {}  # build that was just placed -> the same before

    def note(self, before: Build, build: Build) -> None:
        """A build changed. Where its node declined, it was not served, or nobody gains any lift."""
        last, priority = self._last[build.owner], build.request.guidance.priority
        if build.stage is Stage.PLACED and before.stage is Stage.QUEUED:
            self._before[build.id] = last.get(priority, build.created)
            last[priority] = build.history[-1].at
        elif before.stage is Stage.PLACED:
            earlier = self._before.pop(build.id, None)
            if build.stage is Stage.QUEUED and earlier is not None:
                last[priority] = earlier

    def owners(self) -> frozenset[str]:
        """Who has had a build since we began."""
        return frozenset(self._last)

    def of(self, owner: str) -> Mapping[int, float]:
        """Priority -> when such a build of theirs was last placed, seconds since the epoch."""
        return self._last.get(owner, {})

"""The builds that a program knows, as values, in memory, with waiting for their changes.

Node and scheduler both keep one: it decides how builds are found, listed and watched. What is on
disk is not its matter.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator

from protocol.errors import Invalid, NotFound
from protocol.messages import BuildPage, BuildQuery, Changes
from protocol.model import Build
from protocol.watch import Watch

_PAGE = 200


class Board:
    """All builds of a program by id, each the newest value."""

    def __init__(self) -> None:
        self.changed = Watch()  # counts every change of any build
        self.observe: Callable[[Build], None] = lambda build: None  # hears each newest value
        self._epoch = secrets.token_hex(4)  # cursors of another life are void
        self._builds: dict[str, Build] = {}
        self._order: OrderedDict[str, int] = OrderedDict()  # id -> count at its last change
        self._watches: dict[str, Watch] = {}

    def __contains__(self, build_id: str) -> bool:
        return build_id in self._builds

    def __len__(self) -> int:
        return len(self._builds)

    def __iter__(self) -> Iterator[Build]:
        return iter(tuple(self._builds.values()))

    def put(self, build: Build) -> Build:
        """Take this value for the build's newest, and wake whoever waits for it."""
        self._builds[build.id] = build
        self._order[build.id] = self.changed.count + 1
        self._order.move_to_end(build.id)
        self.changed.touch()
        if watch := self._watches.get(build.id):
            watch.touch()
        self.observe(build)
        return build

    def get(self, build_id: str) -> Build:
        """The newest value. Raises NotFound."""
        build = self._builds.get(build_id)
        if build is None:
            raise NotFound(f"there is no build {build_id[:64]!r} here", field="id")
        return build

    def forget(self, build_id: str) -> None:
        """Drop a build; its waiters see NotFound."""
        self._builds.pop(build_id, None)
        self._order.pop(build_id, None)
        if watch := self._watches.get(build_id):
            watch.touch()

    async def held(self, build_id: str, after: int | None, wait: float) -> Build:
        """The build; held up to `wait` seconds while its revision is still `after`. Raises
        NotFound.
        """
        build = self.get(build_id)
        if after is None or build.revision != after or wait <= 0:
            return build
        watch = self._watches.setdefault(build_id, Watch())
        try:
            await watch.wait(watch.count, wait)
        finally:  # somebody may wait for the next change already, on a watch of his own
            if watch.idle and self._watches.get(build_id) is watch:
                del self._watches[build_id]
        return self.get(build_id)

    def page(self, query: BuildQuery) -> BuildPage:
        """Builds, newest first: ids sort by age."""
        ids = sorted(
            (
                build.id
                for build in self._builds.values()
                if (not query.cursor or build.id < query.cursor)
                and (query.status is None or build.state is query.status)
            ),
            reverse=True,
        )
        chosen = ids[: query.limit]
        more = chosen[-1] if len(ids) > len(chosen) else ""
        return BuildPage(tuple(self._builds[key] for key in chosen), more)

    async def changes(self, cursor: str, wait: float) -> Changes:
        """What changed since the cursor, at most a page of it. Raises Invalid for a cursor that
        is none.
        """
        seen = self._seen(cursor)
        if self.changed.count == seen and wait > 0:
            await self.changed.wait(seen, wait)
        newer: list[str] = []
        for build_id in reversed(self._order):
            if self._order[build_id] <= seen:
                break
            newer.append(build_id)
        newer.reverse()
        page = newer[:_PAGE]
        last = self._order[page[-1]] if page else self.changed.count
        more = len(newer) > len(page)
        builds = tuple(self._builds[key] for key in page)
        return Changes(builds, f"{self._epoch}.{last if more else self.changed.count}", more)

    def _seen(self, cursor: str) -> int:
        if not cursor:
            return 0
        epoch, dot, count = cursor.partition(".")
        if not dot or not count.isdigit() or len(count) > 18:
            raise Invalid("the cursor is none of ours", field="cursor", expected="a cursor we gave")
        return int(count) if epoch == self._epoch else 0

"""The builds that a program knows, as values, in memory, with waiting for their changes.

Node and scheduler both keep one: it decides how builds are found, listed and watched. What is on
disk is not its matter.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from protocol.builds.catalog import Catalog, check
from protocol.builds.change_log import ChangeLog
from protocol.builds.quotas import Tally
from protocol.concurrency.watch import Watch
from protocol.errors import Conflict, Invalid, NotFound
from protocol.model.build import Build
from protocol.model.messages import BuildPage, BuildQuery, Changes, Sort

_PAGE = 200
_GONE = 10_000  # builds of which it is remembered that they are gone
_CURSOR = re.compile(r"(?P<epoch>[^.]*)\.(?P<count>\d{1,18})(\.(?P<began>\d{1,18}))?", re.ASCII)
_LOOKS = 2000  # builds that are looked at in one go


class Board:
    """All builds of a program by id, each the newest value."""

    def __init__(self) -> None:
        self.changed = Watch()  # counts every change of any build
        self.observe: Callable[[Build], None] = lambda build: None  # hears each newest value
        self.tally = Tally()
        self._builds: dict[str, Build] = {}
        self._catalog = Catalog()
        self._log = ChangeLog()
        self._watches: dict[str, Watch] = {}
        self._owners: OrderedDict[str, str] = OrderedDict()  # of builds that are gone

    def __contains__(self, build_id: str) -> bool:
        return build_id in self._builds

    def __len__(self) -> int:
        return len(self._builds)

    def __iter__(self) -> Iterator[Build]:
        return iter(tuple(self._builds.values()))

    def put(self, build: Build) -> Build:
        """Take this value for the build's newest, and wake whoever waits for it."""
        before = self._builds.get(build.id)
        self._catalog.change(before, build)
        self.tally.change(before, build)
        self._builds[build.id] = build
        self._log.changed(build.id, self.changed.count + 1)
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
        build = self._builds.pop(build_id, None)
        if build is not None:
            self._catalog.change(build, None)
            self.tally.change(build, None)
            self._log.went(build_id, self.changed.count + 1, _GONE)
            self._owners[build_id] = build.owner
            while len(self._owners) > _GONE:
                self._owners.popitem(last=False)
            self.changed.touch()
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

    async def page(self, query: BuildQuery) -> BuildPage:
        """The builds that are asked for; among very many, others get their turn meanwhile. Raises
        Conflict for a cursor that is none of this order's, or of another life.
        """
        by_change = query.sort in (Sort.CHANGED, Sort.UNCHANGED)
        found = self._by_change(query) if by_change else self._by_age(query)
        chosen: list[Build] = []
        fits, last, looked = check(query), "", 0
        for key, cursor in found:
            looked += 1
            if looked % _LOOKS == 0:
                await asyncio.sleep(0)
            build = self._builds.get(key)
            if build is None or not fits(build):
                continue
            if len(chosen) == query.limit:
                return BuildPage(tuple(chosen), last)
            chosen.append(build)
            last = cursor
        return BuildPage(tuple(chosen))

    def _by_age(self, query: BuildQuery) -> Iterator[tuple[str, str]]:
        """(id, cursor behind it): ids sort by age."""
        if "." in query.cursor:
            raise _other_cursor()
        newest_first = query.sort is Sort.NEWEST
        for key in self._catalog.ids(query, query.cursor, newest_first=newest_first):
            yield key, key

    def _by_change(self, query: BuildQuery) -> Iterator[tuple[str, str]]:
        """(id, cursor behind it). What changes while pages are read comes anew at the end of the
        order, or has gone to its beginning.
        """
        epoch, _, number = query.cursor.partition(".")
        ours = epoch == self._log.epoch and number.isdigit() and len(number) <= 18
        if query.cursor and not ours:
            raise _other_cursor()
        seen = int(number) if query.cursor else None
        if query.sort is Sort.UNCHANGED:
            entries = self._log.after(seen or 0)
        else:
            entries = self._log.before(self.changed.count + 1 if seen is None else seen)
        for count, key in entries:
            yield key, f"{self._log.epoch}.{count}"

    async def changes(self, cursor: str, wait: float, owner: str | None = None) -> Changes:
        """What changed since the cursor, at most a page of it; of what is gone only that of the
        owner, where one is given. Raises Invalid for a cursor that is none.
        """
        seen, began, reset = self._seen(cursor)
        if not reset and self.changed.count == seen and wait > 0:
            await self.changed.wait(seen, wait)
        began = began if seen else self.changed.count
        newer = list(islice(self._log.after(seen), _PAGE + 1))
        more = len(newer) > _PAGE
        page = newer[:_PAGE]
        end = page[-1][0] if more else self.changed.count
        behind = f"{end}.{began}" if end < began else str(end)
        gone = () if reset or not seen else self._log.gone_after(seen)
        return Changes(
            tuple(self._builds[key] for _, key in page),
            f"{self._log.epoch}.{behind}",
            more,
            tuple(key for count, key in gone if count <= end and self._was_of(key, owner)),
            reset,
        )

    def _was_of(self, gone: str, owner: str | None) -> bool:
        return owner is None or self._owners.get(gone) == owner

    def _seen(self, cursor: str) -> tuple[int, int, bool]:
        """The count that a cursor stands for; the one at which its reader began with nothing, 0
        where that has no weight; and whether the cursor says nothing here: it is of another life,
        or so old that it is not known any more what is gone since.

        Who began with nothing cannot miss what was gone by then, however early the page is that it
        has come to.
        """
        if not cursor:
            return 0, 0, False
        epoch, count, began = self._read_cursor(cursor)
        if not self._log.tells_since(epoch, max(count, began), self.changed.count):
            return 0, 0, True
        return count, began, False

    def _read_cursor(self, cursor: str) -> tuple[str, int, int]:
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise _bad_cursor()
        return found["epoch"], int(found["count"]), int(found["began"] or 0)


def _other_cursor() -> Conflict:
    return Conflict(
        "the cursor is of another order, or of another life of this program",
        field="cursor",
        expected="a cursor of this list: begin anew without one",
    )


def _bad_cursor() -> Invalid:
    return Invalid("the cursor is none of ours", field="cursor", expected="a cursor we gave")

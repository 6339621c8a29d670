"""The node's builds: in memory for reading, on disk for good.

Progress is only in memory. That a build was taken, that it is ended from outside and how it ended
is on disk before anything follows from it.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from node.records import Kept, Records, Stop
from protocol.builds.board import Board
from protocol.concurrency.errands import Errands
from protocol.errors import Busy, Unavailable
from protocol.model.build import Build, NoticeRecord, Stage
from protocol.model.record import Record
from protocol.model.request import Forward, Secrets

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Ledger:
    """Every build by id. For use on the event loop."""

    def __init__(self, records: Records) -> None:
        self.board = Board()
        self._records = records
        self._machine = _BOOT.read_text().strip() if _BOOT.exists() else ""
        self._kept = {kept.record.build.id: kept for kept in records.load()}
        self._keys: dict[tuple[str, str], str] = {}  # (owner, idempotency key) -> build
        # (scheduler, store of it that has their end on record; none: "") -> its builds
        self._shelves: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._errands = Errands("a step was not written down, which the end will be")
        for kept in self._kept.values():
            self._take(kept)

    def __contains__(self, build_id: str) -> bool:
        return build_id in self.board

    def get(self, build_id: str) -> Build:
        """The newest value. Raises NotFound."""
        return self.board.get(build_id)

    def known(self, build_id: str) -> Build | None:
        """The newest value, if there is one."""
        return self.board.get(build_id) if build_id in self.board else None

    def kept(self, build_id: str) -> Kept:
        """What is kept of it beyond the build."""
        return self._kept[build_id]

    def unended(self) -> tuple[Kept, ...]:
        """What an earlier life of the node left in the middle, oldest first."""
        stopped = Stage.STOPPED
        return tuple(k for k in self._kept.values() if k.record.build.stage is not stopped)

    def secrets_of(self, build_id: str) -> Secrets:
        """The secrets of a build, as long as they are needed."""
        return self._kept[build_id].record.secrets

    def away(self, build_id: str) -> str:
        """Why nobody watched the build's container: what happened since its attempt began."""
        same = self._kept[build_id].machine == self._machine
        return "the node was away" if same else "the machine was restarted"

    def spent(self, build_id: str) -> float:
        """Seconds since the build's attempt began; 0 where the machine has been restarted since."""
        kept = self._kept[build_id]
        return max(0.0, _uptime() - kept.begun) if kept.machine == self._machine else 0.0

    def made_with(self, owner: str, key: str, not_before: float) -> Build | None:
        """The client's build that was made with this idempotency key, no earlier than that."""
        known = self._keys.get((owner, key))
        build = self.board.get(known) if known is not None and known in self.board else None
        return build if build is not None and build.created >= not_before else None

    def unsettled(self, program: str, store: str) -> Iterator[Record]:
        """The builds that this scheduler placed here and whose end is not on record in this store
        of it, oldest first.
        """
        for (origin, settled), builds in tuple(self._shelves.items()):
            if origin == program and (not settled or settled != store):
                for key in sorted(builds):
                    yield replace(self._kept[key].record, build=self.board.get(key))

    # Changes

    async def add(
        self, build: Build, forward: Forward | None = None, secrets: Secrets | None = None
    ) -> Build:
        """A new build, or a later attempt; on disk when this returns, and not seen before. Raises
        Busy.
        """
        store = forward.store if forward is not None else ""
        record = Record(build, forward, store, revision=1, secrets=secrets or {})
        before = self._kept.get(build.id)
        pinned = before.pinned if before is not None else False
        kept = Kept(record, self._machine, _uptime(), pinned=pinned)
        try:
            await self._records.save(kept)
        except Unavailable as error:
            raise Busy(f"it cannot be written down now: {error.detail}") from error
        self._kept[build.id] = kept
        self._take(kept)
        return build

    def publish(self, build: Build) -> None:
        """A running build's newest value."""
        kept = self._kept[build.id]
        if _noted(kept.record.build) != _noted(build) and build.stage is not Stage.STOPPED:
            self._errands.do(partial(self.keep, build, None))
        self.board.put(_known_here(build, kept))

    async def keep(self, build: Build, stop: Stop | None) -> None:
        """On disk when this returns; what is older than what was kept before is passed over. Raises
        Unavailable.
        """
        before = self._kept[build.id]
        if build.revision < before.record.build.revision:
            return
        build = replace(build, notices=before.record.build.notices)
        record = replace(before.record.now(build), revision=before.record.revision + 1)
        await self._save(replace(before, record=record, stop=stop or before.stop))

    async def saved(self, build_id: str) -> None:
        """Return when the newest stage of a build is on disk. Raises NotFound, Unavailable."""
        build, before = self.board.get(build_id), self._kept[build_id]
        if before.record.build.stage is not build.stage:
            await self.keep(build, None)
        else:
            await self._save(_again(before, before.record.build))

    async def note_told(self, build_id: str, notices: tuple[NoticeRecord, ...]) -> None:
        """How far its notices are; whoever runs the build knows nothing of it. Raises NotFound,
        Unavailable.
        """
        build, before = self.board.get(build_id), self._kept[build_id]
        more = 1 if build.stage is Stage.STOPPED else 0  # before, its builder counts revisions
        told = before.record.build
        told = replace(told, notices=notices, revision=told.revision + more)
        self.board.put(replace(build, notices=notices, revision=build.revision + more))
        await self._save(_again(before, told))

    async def pin(self, build_id: str, pinned: bool) -> None:
        """On disk when this returns. Raises Unavailable: nothing has changed then."""
        before = self._kept[build_id]
        try:
            await self._save(replace(before, pinned=pinned))
        except Unavailable:
            self._kept[build_id] = replace(self._kept[build_id], pinned=before.pinned)
            raise

    async def acknowledged(self, build_id: str, store: str) -> None:
        """The scheduler that placed the build has it on record, in this store. Raises
        Unavailable.
        """
        before = self._kept[build_id]
        record = before.record.now(self.board.get(build_id)).known_to(store)
        await self._save(replace(before, record=replace(record, revision=record.revision + 1)))

    async def forget(self, build_id: str) -> None:
        """Drop a build. Raises Unavailable."""
        await self._records.forget((build_id,))
        del self._kept[build_id]
        for builds in self._shelves.values():
            builds.discard(build_id)
        self.board.forget(build_id)

    async def close(self) -> None:
        """Write what is under way."""
        await self._errands.finish()
        await self._records.close()

    def _take(self, kept: Kept) -> None:
        build = kept.record.build
        if build.key and kept.record.forward is None:
            self._keys[build.owner, build.key] = build.id
        self._shelve(kept.record)
        self.board.put(_known_here(build, kept))

    async def _save(self, kept: Kept) -> None:
        self._kept[kept.record.build.id] = kept
        self._shelve(kept.record)
        await self._records.save(kept)

    def _shelve(self, record: Record) -> None:
        if record.forward is None:
            return
        key = record.build.id
        origin, settled = record.forward.origin, record.store if record.acknowledged else ""
        for shelf, builds in self._shelves.items():
            if shelf != (origin, settled):
                builds.discard(key)
        self._shelves[origin, settled].add(key)


def _again(kept: Kept, build: Build) -> Kept:
    """To be written once more, with this value of the build."""
    record = kept.record.now(build)
    return replace(kept, record=replace(record, revision=record.revision + 1))


def _noted(build: Build) -> object:
    """What of a build that runs is written down: its stage, and that somebody may read already what
    it makes.
    """
    return build.stage, any(artifact.growing for artifact in build.artifacts)


def _known_here(build: Build, kept: Kept) -> Build:
    """Whether it is pinned, and who was told of it, is not its builder's matter."""
    notices = kept.record.build.notices
    if build.pinned is kept.pinned and build.notices == notices:
        return build
    return replace(build, pinned=kept.pinned, notices=notices)


def _uptime() -> float:
    """Seconds since the machine started, sleep included: no clock that somebody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

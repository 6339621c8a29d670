"""The scheduler's record of its builds: in memory for reading, in the store for good, with the
indexes that derive from it.

A new build is in the store before anybody sees it. Later changes are seen at once and written by
one task, together; whoever acts on a change - answers a client, forwards an attempt, acknowledges
an end - waits for `saved` first.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable

from msgspec.structs import replace

from protocol.builds.board import Board
from protocol.concurrency.watch import Watch
from protocol.errors import Busy, PoolError, Unavailable
from protocol.model.build import Build, NoticeRecord, Result, Stage
from protocol.model.record import Record
from protocol.model.request import Forward, Secrets, signing_secrets
from scheduler.core.queue import Share
from scheduler.core.served import Served
from scheduler.stores.base import Stale, Store

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds after which a failed write is tried again

Key = tuple[str, str]
"""Owner and idempotency key."""


class Ledger:
    """Every build by id. For use on the event loop; `keep_writing` runs as long as it is used."""

    def __init__(self, board: Board, store: Store) -> None:
        self.board = board
        self.store = store
        self.observe: Callable[[Build | None, Build], None] = lambda before, after: None
        self._records: dict[str, Record] = {}
        self._waiting: set[str] = set()
        self._on_node: defaultdict[str, set[str]] = defaultdict(set)  # node -> builds
        self._served = Served()
        self._keys: dict[Key, str] = {}  # -> the build that was made with it
        self._unsaved: set[str] = set()
        self._writing = asyncio.Lock()
        self._changes = Watch()
        self._written = Watch()
        self.deleted: deque[str] = deque(maxlen=10_000)  # builds that no late report brings back
        self._problem: PoolError | None = None  # why the last write failed
        for record in store.records():
            self._take(record)

    def __contains__(self, build_id: str) -> bool:
        return build_id in self.board

    def get(self, build_id: str) -> Build:
        """The newest value. Raises NotFound."""
        return self.board.get(build_id)

    def record(self, build_id: str) -> Record:
        """The build with what concerns schedulers above us. Raises NotFound."""
        build = self.board.get(build_id)
        return self._records[build_id].now(build)

    def secrets_of(self, build_id: str) -> Secrets:
        """The secrets of a build, as long as they are needed. Raises NotFound."""
        return self.record(build_id).secrets

    def lacks_secrets(self, build: Build) -> bool:
        """Whether the build's secrets are gone: a node told us of it when our store was lost."""
        needed = set(build.request.secrets) - signing_secrets(build.request)
        return not self._records[build.id].secrets.keys() >= needed

    # Changes

    async def add(
        self, build: Build, forward: Forward | None = None, secrets: Secrets | None = None
    ) -> Build:
        """A new build; it is on disk when this returns, and nobody sees it before. Raises Busy."""
        store = forward.store if forward is not None else ""
        record = Record(build, forward, store=store, revision=1, secrets=secrets or {})
        try:
            await self.store.put((record,))
        except Unavailable as error:
            raise Busy(f"it cannot be written down now: {error.detail}") from error
        self._take(record)
        self.observe(None, build)
        return build

    def put(self, build: Build) -> Build:
        """Record a build's newest value, which is written as soon as may be."""
        before = self.board.get(build.id)
        self._served.note(before, build)
        self._index(before, build)
        self.board.put(build)
        if _lasting(before) != _lasting(build):
            self._write_down(build.id)
        self.observe(before, build)
        return build

    async def note_told(self, build_id: str, notices: tuple[NoticeRecord, ...]) -> None:
        """How far its notices are. Raises NotFound."""
        build = self.get(build_id)
        self.put(replace(build, notices=notices, revision=build.revision + 1))

    def acknowledged(self, build_id: str, store: str) -> None:
        """The scheduler above that placed this build has it on record, in this store."""
        self._records[build_id] = self.record(build_id).known_to(store)
        self._write_down(build_id)

    def replaced(self, build: Build, forward: Forward, secrets: Secrets | None = None) -> Build:
        """The scheduler above placed its build here again: another attempt of the same build."""
        record = self._records[build.id]
        record = replace(record, forward=forward, store=forward.store, acknowledged=False)
        self._records[build.id] = replace(record, secrets=secrets or record.secrets)
        before = self.board.get(build.id)
        self._index(before, build)
        self._write_down(build.id)
        self.board.put(build)
        self.observe(before, build)
        return build

    async def forget(self, build_id: str) -> None:
        """Drop a build that has stopped."""
        build = self.board.get(build_id)
        async with self._writing:
            await self.store.forget((build_id,))
        self._records.pop(build_id, None)
        self._unsaved.discard(build_id)
        if build.key and self._keys.get((build.owner, build.key)) == build_id:
            del self._keys[build.owner, build.key]
        self.board.forget(build_id)

    # Idempotency

    def made_with(self, key: Key) -> Build | None:
        """The build that was made with this key."""
        known = self._keys.get(key)
        return self.board.get(known) if known is not None else None

    def forget_keys(self, before: float) -> None:
        """Keys of builds that were made before that moment may be used anew."""
        for key, known in tuple(self._keys.items()):
            if self.board.get(known).created < before:
                del self._keys[key]

    # Writing

    async def saved(self, build_id: str) -> None:
        """Return when what was put of this build before is on disk. Raises Unavailable."""
        while build_id in self._unsaved:
            seen = self._written.count
            await self._written.wait(seen, None)
            if self._problem is not None and build_id in self._unsaved:
                raise self._problem

    async def written(self, seconds: float) -> None:
        """Return after the next try to write, or when the time is over."""
        await self._written.wait(self._written.count, seconds)

    async def keep_writing(self) -> None:
        """Write what changed, all at once, again and again. What could not be written is tried
        again.
        """
        while True:
            seen = self._changes.count
            if not self._unsaved:
                await self._changes.wait(seen, None)
                continue
            # Whoever ends this task does not end a write in the middle: `close` waits for it.
            await asyncio.shield(asyncio.ensure_future(self._write()))
            if self._problem is not None:
                await self._changes.wait(self._changes.count, _AGAIN)

    async def close(self) -> None:
        """Write what is not on disk yet, once; when `keep_writing` has ended."""
        await self._write()

    async def _write(self) -> None:
        async with self._writing:
            await self._write_batch()
        self._written.touch()

    async def _write_batch(self) -> None:
        batch = tuple(self._unsaved)
        if not batch:
            return
        records = tuple(
            replace(self.record(key), revision=self._records[key].revision + 1) for key in batch
        )
        try:
            await self.store.put(records)
        except Exception as error:  # whatever it is, what waits hears of it, and writing goes on
            self._note_problem(error)
        else:
            self._problem = None
            for record in records:
                self._note_written(record)

    def _note_problem(self, error: Exception) -> None:
        known = isinstance(error, PoolError) and not isinstance(error, Stale)
        if not known:
            log.error("builds could not be written down: %s", error, exc_info=error)
        elif self._problem is None:
            log.warning("the store cannot be written: %s", error)
        self._problem = error if isinstance(error, PoolError) else PoolError(str(error))

    def _note_written(self, record: Record) -> None:
        key = record.build.id
        now = self._records.get(key)
        if now is None:
            return
        self._records[key] = replace(now, revision=record.revision, secrets=record.secrets)
        same = replace(self.record(key), build=record.build) == record
        if same and _lasting(self.board.get(key)) == _lasting(record.build):
            self._unsaved.discard(key)

    def _write_down(self, build_id: str) -> None:
        self._unsaved.add(build_id)
        self._changes.touch()

    # Indexes

    def _take(self, record: Record) -> None:
        build = record.build
        self._records[build.id] = record
        if build.key and (build.owner, build.key) not in self._keys:
            self._keys[build.owner, build.key] = build.id
        self._index(None, build)
        self.board.put(build)

    def _index(self, before: Build | None, build: Build) -> None:
        if before is not None and before.node is not None:
            self._on_node[before.node.id].discard(build.id)
        if build.node is not None and build.stage not in (Stage.QUEUED, Stage.STOPPED):
            self._on_node[build.node.id].add(build.id)
        if build.stage is Stage.QUEUED:
            self._waiting.add(build.id)
        else:
            self._waiting.discard(build.id)

    @property
    def problem(self) -> str:
        """Why changes cannot be written now; empty where they can."""
        return self._problem.detail if self._problem is not None else ""

    @property
    def waiting(self) -> int:
        """How many builds wait."""
        return len(self._waiting)

    def waiting_builds(self) -> tuple[Build, ...]:
        """The builds that wait, in no order."""
        return tuple(self.board.get(key) for key in self._waiting)

    def shares(self) -> dict[str, Share]:
        """What each owner has of the pool now."""
        running: defaultdict[str, int] = defaultdict(int)
        for builds in self._on_node.values():
            for key in builds:
                running[self.board.get(key).owner] += 1
        owners = running.keys() | self._served.owners()
        return {owner: Share(running[owner], self._served.of(owner)) for owner in owners}

    def on_node(self, node: str) -> frozenset[str]:
        """Ids of the builds whose attempt is on this node."""
        return frozenset(self._on_node.get(node, ()))

    def nodes_in_use(self) -> frozenset[str]:
        """Ids of the nodes that builds are on."""
        return frozenset(node for node, builds in self._on_node.items() if builds)

    def forward_of(self, build_id: str) -> Forward | None:
        """How the build came from a scheduler above, if it did."""
        record = self._records.get(build_id)
        return record.forward if record is not None else None

    def as_asked(self, build: Build) -> Build:
        """As the scheduler above knows it, if there is one: our attempt is one of its own. Where a
        node of ours lost it, that is between us and the node.
        """
        forward = self.forward_of(build.id)
        if forward is None:
            return build
        return replace(build, attempt=forward.attempt, excused=build.result is Result.LOST)


def _lasting(build: Build) -> Build:
    """What must outlive us: not the progress of an attempt, which its node tells again, but that
    somebody may read already what it makes.
    """
    if build.stage is Stage.STOPPED:
        return replace(build, revision=0)
    streamed = tuple(replace(one, size=0) for one in build.artifacts if one.growing)
    told_again = {"commands": (), "log_size": 0, "usage": None, "reason": ""}
    return replace(build, revision=0, artifacts=streamed, **told_again)

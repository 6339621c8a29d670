"""How long the scheduler keeps what it knows of builds that have stopped, and what its callers may
change about that. Logs and artifacts are on the nodes, which are told.
"""

import asyncio
import logging
import time

from msgspec.structs import replace

from protocol.after import check_deletable, record_lasts_until
from protocol.errors import NotFound, PoolError
from protocol.model import Build, Stage
from protocol.request import uploads
from protocol.service import Caller
from scheduler.config import SchedulerSettings
from scheduler.dispatch import Dispatcher

log = logging.getLogger(__name__)


class Keeping:
    """Pins, deletes and forgets. For use on the event loop."""

    def __init__(self, settings: SchedulerSettings, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._caller = dispatcher.caller
        self._pool = dispatcher.pool
        self._ledger = dispatcher.ledger

    async def pin(self, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        before = self._ledger.get(build_id)
        if before.pinned is pinned:
            return before
        # Ours first: to a node that says otherwise its next report would have it told again.
        self._put(build_id, pinned)
        try:
            await self._node_pins(before, pinned)
            await self._ledger.saved(build_id)
        except PoolError:
            self._put(build_id, before.pinned)
            raise
        return self._ledger.get(build_id)

    def _put(self, build_id: str, pinned: bool) -> None:
        build = self._ledger.get(build_id)
        self._ledger.put(replace(build, pinned=pinned, revision=build.revision + 1))

    async def _node_pins(self, build: Build, pinned: bool) -> None:
        if build.node is None:
            return
        try:
            await self._pool.client_of(build).pin(self._caller, build.id, pinned)
        except NotFound as error:  # it is on its way there, or its files are gone
            log.info("pinning %s: %s", build.id, error.detail)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        build = self._ledger.get(build_id)
        check_deletable(self._ledger.record(build_id), caller)
        if build.node is not None:
            try:
                await self._pool.client_of(build).delete(self._caller, build_id)
            except NotFound as error:
                log.info("deleting %s: %s", build_id, error.detail)
        if build_id in self._ledger:
            self._ledger.deleted.append(build_id)
            await self._dispatcher.forget(build_id)

    async def forget_old(self) -> None:
        """Drop builds, keys and uploads that are older than the settings, or they themselves, say.
        Raises Unavailable.
        """
        now = time.time()
        self._ledger.forget_keys(now - self._settings.key_keep)
        for build in self._ledger.board:
            end = record_lasts_until(build, self._settings.keep)
            if end is not None and end < now:
                await self._dispatcher.forget(build.id)
        live = (build for build in self._ledger.board if build.stage is not Stage.STOPPED)
        needed = frozenset().union(*(uploads(build.request) for build in live))
        old = now - self._settings.upload_keep
        await asyncio.to_thread(self._dispatcher.sources.blobs.expire, old, needed)

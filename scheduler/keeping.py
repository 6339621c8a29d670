"""How long the scheduler keeps what it knows of builds that have stopped, and what its callers may
change about that. Logs and artifacts are on the nodes, which are told.
"""

import asyncio
import logging
import time
from functools import partial

from msgspec.structs import replace

from protocol.builds.after import check_deletable, record_lasts_until
from protocol.concurrency.errands import Errands
from protocol.concurrency.locks import Locks
from protocol.errors import NotFound, PoolError
from protocol.model.build import Build
from protocol.model.references import still_needed
from protocol.ports.service import Caller
from scheduler.config import SchedulerSettings
from scheduler.dispatch.dispatcher import Dispatcher

log = logging.getLogger(__name__)


class Keeping:
    """Pins, deletes and forgets. For use on the event loop."""

    def __init__(self, settings: SchedulerSettings, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._caller = dispatcher.caller
        self._pool = dispatcher.pool
        self._ledger = dispatcher.ledger
        self._locks = Locks()  # one at a time for a build
        self._errands = Errands("a node was not told that a build is not pinned after all")

    async def pin(self, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        async with self._locks[build_id]:
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
                # It may have heard of it, and does not report what has long ended.
                self._errands.do(partial(self._node_pins, before, before.pinned))
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
        async with self._locks[build_id]:
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
            async with self._locks[build.id]:
                if self._is_over(build.id, now):
                    await self._dispatcher.forget(build.id)
        old, needed = now - self._settings.upload_keep, still_needed(self._ledger.board)
        await asyncio.to_thread(self._dispatcher.sources.blobs.expire, old, needed)

    def _is_over(self, build_id: str, now: float) -> bool:
        """Whether it is to be forgotten, as it is now: others may have had the loop since."""
        if build_id not in self._ledger:
            return False
        end = record_lasts_until(self._ledger.get(build_id), self._settings.keep)
        return end is not None and end < now

    async def close(self) -> None:
        """Stop what is under way."""
        await self._errands.cancel()

"""How long the node keeps what it has of builds that have stopped, and what its callers may change
about that.
"""

import asyncio
import logging
from pathlib import Path

from msgspec.structs import replace

from node.container import Place
from node.core.retention import expired, forgotten
from node.ledger import Ledger
from node.runner import Runner
from protocol.builds.after import check_deletable
from protocol.concurrency.locks import Locks
from protocol.model.build import Build, Result
from protocol.model.references import still_needed
from protocol.ports.service import Caller

log = logging.getLogger(__name__)


class Keeping:
    """Pins, deletes and forgets. For use on the event loop."""

    def __init__(self, place: Place, ledger: Ledger, runner: Runner, locks: Locks) -> None:
        """`locks`: who holds a build's is the only one to begin, pin or forget it."""
        self._place = place
        self._locks = locks
        self._settings = place.settings
        self._ledger = ledger
        self._board = ledger.board
        self._runner = runner

    async def pin(self, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        async with self._locks[build_id]:
            if self._ledger.get(build_id).pinned is not pinned:
                await self._ledger.pin(build_id, pinned)
                build = self._ledger.get(build_id)
                build = replace(build, pinned=pinned, revision=build.revision + 1)
                self._runner.follow(build)
                self._place.publish(build)
            return self._ledger.get(build_id)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        async with self._locks[build_id]:
            build = self._ledger.get(build_id)
            check_deletable(replace(self._ledger.kept(build_id).record, build=build), caller)
            await self.drop_files(build)
            await self._ledger.forget(build_id)

    async def forget_old(self) -> None:
        """Drop logs and artifacts, and later records, of builds that ended longer ago than the
        settings or they themselves say, and uploads that nobody used for long. Raises Unavailable,
        OSError.
        """
        now = self._place.clock()
        for key in expired(self._board, now, self._settings.keep):
            async with self._locks[key]:
                for build in self._still(key):
                    if expired((build,), now, self._settings.keep):
                        await self.drop_files(build)
        keep = max(self._settings.keep, self._settings.record_keep)
        for key in forgotten(self._board, now, keep):
            async with self._locks[key]:
                if forgotten(self._still(key), now, keep):
                    await self._ledger.forget(key)
        old = now - self._settings.upload_keep
        await asyncio.to_thread(self._place.blobs.expire, old, still_needed(self._board))

    def _still(self, build_id: str) -> tuple[Build, ...]:
        """The build as it is now, if it is there: others may have had the loop since."""
        build = self._ledger.known(build_id)
        return () if build is None else (build,)

    def failures(self, before: float) -> tuple[Build, ...]:
        """Builds that ended before that moment and did not succeed, oldest first; none that is
        pinned.
        """
        failed = [build for build in self._board if _failed(build, before)]
        return tuple(sorted(failed, key=lambda build: build.stopped or 0.0))

    async def drop_failed(self, build_id: str, before: float) -> None:
        """Remove what one of them left, if it still is one. Raises OSError."""
        async with self._locks[build_id]:
            for build in self._still(build_id):
                if _failed(build, before):
                    await self.drop_files(build)

    async def drop_files(self, build: Build) -> None:
        """Remove its log and artifacts. Raises OSError."""
        path = self._runner.forget_log(build)
        await asyncio.to_thread(self._remove, path, build.id)

    async def drop_earlier(self, attempt: Build) -> None:
        """Remove what an earlier attempt left, which the later one must not take for its own."""
        try:
            await self.drop_files(attempt)
        except OSError as error:
            log.warning("the log of an earlier attempt of %s stays: %s", attempt.id, error)

    def _remove(self, path: Path, build_id: str) -> None:
        self._place.artifacts.remove(build_id)
        path.unlink(missing_ok=True)


def _failed(build: Build, before: float) -> bool:
    ended = build.stopped is not None and build.stopped < before
    return ended and build.result is not Result.SUCCEEDED and not build.pinned

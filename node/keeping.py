"""How long the node keeps what it has of builds that have stopped, and what its callers may change
about that.
"""

import asyncio

from msgspec.structs import replace

from node.container import Place
from node.core.retention import expired, forgotten
from node.ledger import Ledger
from node.runner import Runner
from protocol.after import check_deletable
from protocol.model import Build, Result, Stage
from protocol.request import uploads
from protocol.service import Caller


class Keeping:
    """Pins, deletes and forgets. For use on the event loop."""

    def __init__(self, place: Place, ledger: Ledger, runner: Runner) -> None:
        self._place = place
        self._settings = place.settings
        self._ledger = ledger
        self._board = ledger.board
        self._runner = runner

    async def pin(self, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        if self._ledger.get(build_id).pinned is not pinned:
            await self._ledger.pin(build_id, pinned)
            build = self._ledger.get(build_id)
            build = replace(build, pinned=pinned, revision=build.revision + 1)
            self._runner.follow(build)
            self._place.publish(build)
        return self._ledger.get(build_id)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        build = self._ledger.get(build_id)
        check_deletable(replace(self._ledger.kept(build_id).record, build=build), caller)
        self.drop_files(build)
        await self._ledger.forget(build_id)

    async def forget_old(self) -> None:
        """Drop logs and artifacts, and later records, of builds that ended longer ago than the
        settings or they themselves say, and uploads that nobody used for long. Raises Unavailable.
        """
        now = self._place.clock()
        for key in expired(self._board, now, self._settings.keep):
            self.drop_files(self._ledger.get(key))
        keep = max(self._settings.keep, self._settings.record_keep)
        for key in forgotten(self._board, now, keep):
            await self._ledger.forget(key)
        live = (build for build in self._board if build.stage is not Stage.STOPPED)
        needed = frozenset().union(*(uploads(build.request) for build in live))
        old = now - self._settings.upload_keep
        await asyncio.to_thread(self._place.blobs.expire, old, needed)

    def failures(self, before: float) -> tuple[Build, ...]:
        """Builds that ended before that moment and did not succeed, oldest first; none that is
        pinned.
        """
        ended = [b for b in self._board if b.stopped is not None and b.stopped < before]
        failed = [b for b in ended if b.result is not Result.SUCCEEDED and not b.pinned]
        return tuple(sorted(failed, key=lambda build: build.stopped or 0.0))

    def drop_files(self, build: Build) -> None:
        """Remove its log and artifacts. Blocks."""
        self._runner.forget(build)
        self._place.artifacts.remove(build.id)

"""Keeps the disk from being filled by builds: looks at the engine's and the node's own file system
and at what each build has written, ends the one that overruns, and holds a reserve so that why can
still be written down.
"""

import asyncio
import logging
import os
from pathlib import Path

from node.attempt.builder import Builder
from node.container import Place
from node.engines.errors import EngineError
from node.runner import Runner
from node.state import NodeState
from protocol.model.lifecycle import Event

log = logging.getLogger(__name__)

_RESERVE = 8 << 20  # bytes of the reserve file
_SIZES = 10  # of the looks at the disk, each how many-th also looks at each build's size


class Reserve:
    """A file that takes up room until the room is needed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"

    def hold(self, free: int) -> None:
        """Take the room, where there is plenty; `free`: bytes. Blocks."""
        if self._path.exists() or free < 4 * _RESERVE:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _RESERVE)
        except OSError as error:
            log.warning("there is no room for a reserve: %s", error)
            self._path.unlink()
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give the room up, for what must be written now."""
        self._path.unlink(missing_ok=True)


class DiskWatch:
    """Looks again and again while builds run."""

    def __init__(self, place: Place, state: NodeState, runner: Runner, reserve: Reserve) -> None:
        self._place = place
        self._settings = place.settings
        self._state = state
        self._runner = runner
        self._reserve = reserve

    async def keep_looking(self) -> None:
        """For as long as the node lives."""
        looks = 0
        while True:
            await asyncio.sleep(self._settings.disk_check)
            looks += 1
            try:
                await self.look(sizes=looks % _SIZES == 0)
            except (EngineError, OSError) as error:
                log.warning("how full the disk is could not be seen: %s", error)

    async def look(self, *, sizes: bool) -> None:
        """Once; with `sizes` at each build's too, which costs more."""
        free = self._state.look_at_disk()
        self._reserve.hold(free)
        builders = self._runner.builders()
        full = free < self._settings.disk_floor
        if not builders or not (full or sizes):
            return
        used = {builder: await asyncio.to_thread(builder.usage) for builder in builders}
        for builder, size in used.items():
            if (limit := self._limit(builder)) and size > limit:
                words = f"it wrote {size >> 20} MiB to the disk, its limit is {limit >> 20} MiB"
                builder.stop(Event.FAIL, words)
        if full:
            most, size = max(used.items(), key=lambda item: item[1])
            words = f"the node's disk is full, {free >> 20} MiB are free"
            most.stop(Event.FAIL, f"{words}, and this build wrote the most, {size >> 20} MiB")

    def _limit(self, builder: Builder) -> int:
        """Bytes that a build may write; 0: as long as the disk is not full."""
        limits = (builder.build.request.guidance.needs.disk or 0, self._settings.build_disk)
        return min((limit for limit in limits if limit), default=0)

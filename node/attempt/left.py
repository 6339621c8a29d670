"""What an attempt leaves behind: that it ended is written down, then everything is removed that
nobody needs any more.
"""

import asyncio
import logging

from msgspec import Struct

from node.container import Place
from node.engines.errors import EngineError
from node.files.workfolder import WorkFolder
from node.inputs.provisions import Provisions
from protocol.errors import PoolError
from protocol.model.build import Build

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds after which a failed write of the end is tried again


class Left(Struct, frozen=True):
    """Of one attempt."""

    place: Place
    provisions: Provisions
    container: str  # empty: there is none
    folder: WorkFolder | None

    async def behind(self, ended: Build) -> None:
        """On disk that it ended, and nothing of it on the engine or in its folders, when this
        returns. Where the disk is full, what is removed makes the room.
        """
        written = await self._written(ended)
        await self._clean_up(ended)
        if not ended.artifacts:
            await asyncio.to_thread(self.place.artifacts.remove, ended.id)
        while not written:
            await asyncio.sleep(_AGAIN)
            written = await self._written(ended)

    async def _written(self, ended: Build) -> bool:
        try:
            await self.place.keep(ended, None)
        except PoolError as error:
            log.warning("build %s: its end: %s", ended.id, error.detail)
            return False
        return True

    async def _clean_up(self, ended: Build) -> None:
        """What stays is removed later by `node/cleaner.py`."""
        try:
            await asyncio.to_thread(self.provisions.forget_secrets)
            if self.container:
                await asyncio.to_thread(self.place.engine.remove, self.container)
            if self.folder is not None:
                await asyncio.to_thread(self.folder.remove)
            await asyncio.to_thread(self.provisions.remove)
        except (EngineError, OSError) as error:
            log.warning("build %s: cleaning up: %s", ended.id, error)

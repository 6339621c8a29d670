"""Removes what no build needs any more: containers and work folders that an end left behind, files
and records whose time is over, images that this node pulled and nobody used for long.
"""

import asyncio
import logging
import time

from node.container import LABEL, Place
from node.engines.errors import EngineError
from node.files.workfolder import remove_folder
from node.keeping import Keeping
from node.records import Records
from node.runner import Runner
from node.state import NodeState
from protocol.errors import PoolError

log = logging.getLogger(__name__)

_FRESH = 600.0  # seconds for which the log of a failed build is kept also where the disk is full


class Cleaner:
    """Looks again and again. What is in use is never touched: the runner says what that is."""

    def __init__(
        self,
        place: Place,
        runner: Runner,
        records: Records,
        keeping: Keeping,
        state: NodeState,
    ) -> None:
        self._place = place
        self._state = state
        self._runner = runner
        self._records = records
        self._keeping = keeping

    async def keep_cleaning(self, every: float) -> None:
        """For as long as the node lives; `every`: seconds."""
        while True:
            await asyncio.sleep(every)
            await self.clean()

    async def clean(self) -> None:
        """Once. Never raises: what could not be removed is tried again next time."""
        for task in (self._leftovers, self._keeping.forget_old, self._make_room, self._images):
            try:
                await task()
            except (EngineError, PoolError, OSError) as error:
                log.warning("cleaning up: %s", error)

    async def _leftovers(self) -> None:
        """Containers and folders of ours that no attempt uses: what began meanwhile is used."""
        engine = self._place.engine
        ours = {f"{LABEL}.node": self._place.node.id}
        containers = await asyncio.to_thread(engine.containers, ours)
        homes = (self._place.work, self._place.inputs)
        folders = [path for home in homes for path in home.iterdir() if path.is_dir()]
        secret = self._place.secrets.attempts()
        used = {f"{build}.{attempt}" for build, attempt in self._runner.attempts()}
        for container in containers:
            labels = container.labels
            attempt = f"{labels.get(f'{LABEL}.build')}.{labels.get(f'{LABEL}.attempt')}"
            if attempt not in used:
                log.info("removing the container %s", container.name)
                await asyncio.to_thread(engine.remove, container.id)
        for folder in folders:
            if folder.name not in used:
                await asyncio.to_thread(remove_folder, folder)
        for attempt in secret:
            if attempt not in used:
                await asyncio.to_thread(self._place.secrets.remove, attempt)

    async def _make_room(self) -> None:
        """Where the disk is too full to take a build, what failed builds left goes before its
        time, oldest first: a few full logs would keep the node busy for a week.
        """
        if self._state.look_at_disk() >= self._place.settings.disk_reserve:
            return
        before = time.time() - _FRESH
        for build in self._keeping.failures(before):
            log.warning("the disk is full: removing what build %s left", build.id)
            await self._keeping.drop_failed(build.id, before)
            if self._state.look_at_disk() >= self._place.settings.disk_reserve:
                return

    async def _images(self) -> None:
        """Images that this node pulled and no build used for as long as the setting says."""
        before = time.time() - self._place.settings.image_keep
        for name, used in (await self._records.images()).items():
            if used < before and name not in self._runner.images():
                log.info("removing the image %s", name)
                await asyncio.to_thread(self._place.engine.forget_image, name)
                await self._records.forget_image(name)

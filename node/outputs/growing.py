"""An artifact in the making: what is the same whether it is kept (`node/outputs/streaming.py`) or
goes to one reader (`node/outputs/piping.py`). What its command writes to is decided in
`node/files/supervisor.sh`.
"""

import asyncio
from collections.abc import Callable

from node.files.workfolder import WorkFolder
from protocol.concurrency.watch import Watch
from protocol.errors import Unavailable, Unsatisfiable
from protocol.model.build import Artifact
from protocol.model.lifecycle import Event
from protocol.ports.service import ByteRange, OpenArtifact

LOOK = 0.025  # seconds between looks whether there is more
TELL = 1.0  # seconds between notes of its size
PIECE = 256 << 10


class Streaming:
    """What one build streams. For use on the event loop."""

    def __init__(
        self, folder: WorkFolder, tell: Callable[[], None], stop: Callable[[Event, str], None]
    ) -> None:
        """`tell` is called when it has begun, and when it has grown; `stop` ends the build."""
        self.size = 0  # bytes that a reader can have, or of a FIFO: has had
        self.begun = False
        self.over = False  # no more bytes come
        self.moved = Watch()
        self.whole: Artifact | None = None  # of a FIFO, when its reader has had all of it
        self.stop = stop
        self.folder = folder
        self.name = folder.plan.stream
        self._tell = tell
        self._well: bool | None = None  # how the build ended
        self._watching = asyncio.create_task(self._watch())

    @property
    def artifact(self) -> Artifact:
        """As it is now."""
        return Artifact(self.name, self.size, "", growing=True)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """It, if it has begun."""
        return (self.artifact,) if self.begun else ()

    async def open(self, part: ByteRange | None) -> OpenArtifact:
        """For a reader. Raises Unsatisfiable, Conflict, Unavailable."""
        raise NotImplementedError

    async def finish(self) -> None:
        """The container has ended: return when all that it wrote is here, or with its reader."""
        self.rest()
        if not self.begun:
            self._begin()
        self._look()
        self.over = True
        self.moved.touch()

    def rest(self) -> None:
        """Look no more: the build is ending."""
        self._watching.cancel()

    def end(self, *, well: bool) -> None:
        """The build has ended: who reads may be told."""
        self.rest()
        if self._well is None:
            self._well, self.over = well, True
            self.moved.touch()

    async def ended_well(self) -> None:
        """Wait until the build has ended. Raises Unavailable where it did not end well."""
        while self._well is None:
            await self.moved.wait(self.moved.count, None)
        if not self._well:
            raise Unavailable("the build that streamed it did not end well")

    def _begin(self) -> None:
        """It begins, if its command has."""
        raise NotImplementedError

    def _look(self) -> None:
        """See how much there is."""

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        told, due = -1, 0.0
        while True:
            await asyncio.sleep(LOOK)
            if not self.begun:
                self._begin()
            self._look()
            if self.begun and self.size != told and loop.time() >= due:
                told, due = self.size, loop.time() + TELL
                self._tell()


def unsatisfiable(size: int) -> Unsatisfiable:
    """Why no such range can be had of it now; `size`: the bytes that are here."""
    return Unsatisfiable(
        f"it grows, and {size} bytes of it are here",
        size=None,
        field="Range",
        expected="first bytes that are here already, or no range",
    )

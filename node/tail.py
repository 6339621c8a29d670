"""Copies the log of a work folder to the served log while a container runs: one thread for each
attempt.
"""

import asyncio
import threading
from collections.abc import Callable

from node.logs import ServedLog
from node.workfolder import WorkFolder

_LOOK = 0.025  # seconds between looks at the work folder
_PROGRESS = 1.0  # seconds between notes of progress where nothing else changes
_PIECE = 1 << 20


class Tail:
    """Begins where the served log ends: a node that starts again misses nothing and copies nothing
    twice.
    """

    def __init__(
        self,
        folder: WorkFolder,
        served: ServedLog,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[], None],
    ) -> None:
        """`note` is called on the event loop whenever there is progress."""
        self.failed: asyncio.Future[str] = loop.create_future()  # why it could not go on
        self._folder = folder
        self._log = served
        self._loop = loop
        self._note = note
        self._over = threading.Event()  # the container has ended; drain and end
        self._thread = threading.Thread(target=self._run, name=f"tail {folder.root.name}")
        self._thread.start()

    async def finish(self) -> None:
        """The container has ended: copy what is left."""
        self._over.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._follow()
        except OSError as error:
            words = f"its log could not be written: {error.strerror or error}"
            self._loop.call_soon_threadsafe(self._fail, words)

    def _fail(self, words: str) -> None:
        if not self.failed.done():
            self.failed.set_result(words)

    def _follow(self) -> None:
        offset = max(0, self._log.size - self._folder.plan.log_base)
        ticks = 0
        seen: object = None
        noted = 0
        while True:
            last = self._over.wait(_LOOK)
            while data := self._folder.read_log(offset, _PIECE):
                self._log.append(data)
                offset += len(data)
            ticks += 1
            steps = self._folder.steps()
            due = ticks >= _PROGRESS / _LOOK and self._log.size != noted
            if steps != seen or due:
                seen, noted, ticks = steps, self._log.size, 0
                self._loop.call_soon_threadsafe(self._note)
            if last:
                return

"""Copies the log of a work folder to the served log while a container runs, without secrets, and
looks at what the container uses: one thread for each attempt.
"""

import asyncio
import threading
from collections.abc import Callable

from node.core.masking import Mask, MaskedStream
from node.files.logs import ServedLog
from node.files.workfolder import WorkFolder

_LOOK = 0.025  # seconds between looks at the work folder
_PROGRESS = 1.0  # seconds between notes of progress where nothing else changes
_MEASURE = 0.25  # seconds between looks at what the container uses
_HELD = 1.0  # seconds for which the end of what it printed is held back, as a secret's beginning
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
        mask: Mask,
        measure: Callable[[], object],
    ) -> None:
        """`note` is called on the event loop whenever there is progress; `measure` by the thread,
        several times a second and whenever a step ends; another answer of it is progress too.
        """
        self.failed: asyncio.Future[str] = loop.create_future()  # why it could not go on
        self._folder = folder
        self._log = served
        self._loop = loop
        self._note = note
        self._masked = MaskedStream(mask)
        self._measure = measure
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
        ticks = quiet = 0
        seen: object = None
        measured: object = None
        noted: object = 0, measured
        while True:
            last = self._over.wait(_LOOK)
            quiet += 1
            while data := self._folder.read_log(offset, _PIECE):
                self._show(self._masked.take(data))
                offset += len(data)
                quiet = 0
            if last or quiet == round(_HELD / _LOOK):
                self._show(self._masked.rest())
            ticks += 1
            steps = self._folder.steps()
            if steps != seen or ticks % round(_MEASURE / _LOOK) == 0:
                measured = self._measure()
            now = self._log.size, measured
            due = ticks >= _PROGRESS / _LOOK and now != noted
            if steps != seen or due:
                seen, noted, ticks = steps, now, 0
                self._loop.call_soon_threadsafe(self._note)
            if last:
                return

    def _show(self, data: bytes) -> None:
        if data:
            self._log.append(data)

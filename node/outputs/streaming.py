"""A stream that is kept: a file that the container appends to, read by as many as like while it
grows. Nobody is told that it is whole before the build has ended well.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

from node.files.workfolder import WorkFolder
from node.outputs.growing import PIECE, Streaming, unsatisfiable
from node.outputs.piping import Fifo
from protocol.errors import Unavailable
from protocol.model.lifecycle import Event
from protocol.ports.service import ByteRange, ByteStream, OpenArtifact
from protocol.transfer.streams import FileStream


def streaming(
    folder: WorkFolder, tell: Callable[[], None], stop: Callable[[Event, str], None]
) -> Streaming | None:
    """What the folder's plan streams; None where it does not."""
    if not folder.plan.stream:
        return None
    return (Fifo if folder.plan.pipe else _File)(folder, tell, stop)


class _File(Streaming):
    """A file that grows."""

    _descriptor = -1

    def _begin(self) -> None:
        with contextlib.suppress(OSError):  # not yet, or no plain file, which its taking will tell
            self._descriptor = self.folder.open_stream()
            self.begun = True

    def _look(self) -> None:
        if not self.begun or self.over:
            return
        size = os.fstat(self._descriptor).st_size
        if size < self.size:
            self.stop(Event.FAIL, "what it had streamed was cut short by one of its commands")
        elif size > self.size:
            self.size = size
            self.moved.touch()

    async def open(self, part: ByteRange | None) -> OpenArtifact:
        """From the beginning to the end that is not yet, or what is here of a range."""
        if self._descriptor < 0:
            raise Unavailable("it is being taken, or has ended; ask again")
        span = (0, None) if part is None or part.start < 0 else part.within(self.size)
        if span is None or (part is not None and part.start < 0):
            raise unsatisfiable(self.size)
        start, end = span
        descriptor = os.dup(self._descriptor)
        stream: ByteStream = (
            _FileReader(self, descriptor) if end is None else FileStream(descriptor, start, end)
        )
        return OpenArtifact(self.artifact, start, end, stream)

    async def finish(self) -> None:
        """See Streaming."""
        await super().finish()
        with contextlib.suppress(OSError):
            there = self.folder.open_stream()
            if not os.path.sameopenfile(there, self._descriptor):
                self.stop(Event.FAIL, "what it had streamed was replaced by one of its commands")
            os.close(there)

    def end(self, *, well: bool) -> None:
        """See Streaming."""
        super().end(well=well)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _FileReader:
    """Follows a file that grows, in its own time."""

    def __init__(self, source: Streaming, descriptor: int) -> None:
        self._source = source
        self._descriptor = descriptor

    async def __aiter__(self) -> AsyncIterator[bytes]:
        source, offset = self._source, 0
        while True:
            if room := min(PIECE, source.size - offset):
                data = await asyncio.to_thread(os.pread, self._descriptor, room, offset)
                if not data:
                    raise Unavailable("what was streamed is shorter than it was")
                offset += len(data)
                yield data
            elif source.over:
                break
            else:
                await source.moved.wait(source.moved.count, None)
        await source.ended_well()

    async def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

"""An artifact in the making, and those who read it meanwhile. What its command writes to is decided
in `node/supervisor.sh`.

Kept, it is a file that the container appends to, read by as many as like. Not kept, it is a FIFO
with one reader, in whose steps the command goes; what that reader was given is counted and
digested on the way. Nobody is told that it is whole before the build has ended well.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import select
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from node.artifacts import FileStream
from node.workfolder import WorkFolder
from protocol.errors import Conflict, Unavailable, Unsatisfiable
from protocol.lifecycle import Event
from protocol.model import Artifact
from protocol.service import ByteRange, ByteStream, OpenArtifact
from protocol.watch import Watch

_LOOK = 0.025  # seconds between looks at a file that grows
_TELL = 1.0  # seconds between notes of its size
_PIECE = 256 << 10
_PIPE = 1 << 20  # bytes that a command may be ahead of its reader
_TAKEN, _COUNTED = "stream.taken", "stream.counted"  # notes of ours, beside the container's folders


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
            await asyncio.sleep(_LOOK)
            if not self.begun:
                self._begin()
            self._look()
            if self.begun and self.size != told and loop.time() >= due:
                told, due = self.size, loop.time() + _TELL
                self._tell()


def streaming(
    folder: WorkFolder, tell: Callable[[], None], stop: Callable[[Event, str], None]
) -> Streaming | None:
    """What the folder's plan streams; None where it does not."""
    if not folder.plan.stream:
        return None
    return (_Pipe if folder.plan.pipe else _File)(folder, tell, stop)


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
            raise _unsatisfiable(self.size)
        start, end = span
        descriptor = os.dup(self._descriptor)
        stream: ByteStream = (
            _FileReader(self, descriptor) if end is None else FileStream(descriptor, start, end)
        )
        return OpenArtifact(self.artifact, start, end, stream)

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
            if room := min(_PIECE, source.size - offset):
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


class _Pipe(Streaming):
    """A FIFO. That its one reader came is written down first, so that after a restart of the node
    nobody believes that the rest is the whole.
    """

    _taken = False  # by a reader

    def _begin(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.folder.open_stream())
            self.begun = True
        if self.begun and not self._taken and (self.folder.root / _TAKEN).exists():
            self._taken = True
            if (said := _note(self.folder.root / _COUNTED)) is not None:
                self.whole = msgspec.msgpack.decode(said, type=Artifact)
            else:
                self.stop(Event.GIVE_UP, "the node was restarted while its stream was read")

    async def open(self, part: ByteRange | None) -> OpenArtifact:
        """For the one reader."""
        if part is not None:
            raise _unsatisfiable(0)
        if self._taken:
            raise Conflict(f"{self.name} has the one reader that it can have", field="name")
        if self.over:
            raise Unavailable("it has ended; nobody read it")
        self._taken = True
        try:
            await asyncio.to_thread(_write_note, self.folder.root / _TAKEN, b"")
            descriptor = self.folder.open_pipe()
        except OSError as error:
            self._taken = False
            raise Unavailable(f"it cannot be read now: {error}") from error
        return OpenArtifact(self.artifact, 0, None, _PipeReader(self, descriptor))

    def had(self, whole: Artifact) -> None:
        """The reader has all of it. Blocks until that is on disk."""
        _write_note(self.folder.root / _COUNTED, msgspec.msgpack.encode(whole))

    def all_read(self, whole: Artifact) -> None:
        """All of it was given to the reader, and that is on disk."""
        self.whole = whole
        self.moved.touch()

    async def finish(self) -> None:
        """See Streaming."""
        await super().finish()
        while self._taken and self.whole is None and self._well is None:
            await self.moved.wait(self.moved.count, None)


class _PipeReader:
    """The one reader: where it goes away too soon, the build fails."""

    def __init__(self, source: _Pipe, descriptor: int) -> None:
        self._source = source
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # over the user's share of pipes: a small one serves too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        source, digest = self._source, hashlib.sha256()
        while True:
            over = source.over  # before the last look: what is written before the end is seen
            if data := self._read():
                digest.update(data)
                source.size += len(data)
                yield data
            elif over:
                break
            else:
                await self._readable()
        whole = Artifact(source.name, source.size, digest.hexdigest(), kept=False)
        await asyncio.to_thread(source.had, whole)
        self._whole = True
        source.all_read(whole)
        await source.ended_well()

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _PIECE)
        except BlockingIOError:
            return b""

    async def _readable(self) -> None:
        """Wait until there may be more, or no more comes."""
        source, loop = self._source, asyncio.get_running_loop()
        waiting = asyncio.ensure_future(source.moved.wait(source.moved.count, _TELL))
        hung_up = any(mask & select.POLLHUP for _, mask in self._poll.poll(0))
        try:
            if hung_up:  # its writers are gone: readable for ever
                await asyncio.wait({waiting}, timeout=_LOOK)
                return
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._descriptor, _done, readable)
            either: set[asyncio.Future[Any]] = {waiting, readable}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            if self._descriptor >= 0:
                loop.remove_reader(self._descriptor)

    async def close(self) -> None:
        """Let go: a command that still writes is told that nobody reads."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            if not self._whole:
                words = f"the reader of its stream went away after {self._source.size} bytes"
                self._source.stop(Event.FAIL, words)


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _unsatisfiable(size: int) -> Unsatisfiable:
    return Unsatisfiable(
        f"it grows, and {size} bytes of it are here",
        size=None,
        field="Range",
        expected="first bytes that are here already, or no range",
    )


def _note(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_note(path: Path, text: bytes) -> None:
    """Whole, and on disk when this returns."""
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)

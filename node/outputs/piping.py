"""A stream that is not kept: a FIFO with one reader, in whose steps the command goes. What the
reader was given is counted and digested on the way.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import select
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from node.outputs.growing import LOOK, PIECE, TELL, Streaming, unsatisfiable
from protocol.errors import Conflict, Unavailable
from protocol.model.build import Artifact
from protocol.model.lifecycle import Event
from protocol.ports.service import ByteRange, OpenArtifact

_PIPE = 1 << 20  # bytes that a command may be ahead of its reader
_TAKEN, _COUNTED = "stream.taken", "stream.counted"  # notes of ours, beside the container's folders


class Fifo(Streaming):
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
            raise unsatisfiable(0)
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

    def __init__(self, source: Fifo, descriptor: int) -> None:
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
        try:
            await asyncio.to_thread(source.had, whole)
        except OSError as error:
            words = f"its node could not write down that its stream was read: {error.strerror}"
            source.stop(Event.GIVE_UP, words)
            raise Unavailable(words) from error
        self._whole = True
        source.all_read(whole)
        await source.ended_well()

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, PIECE)
        except BlockingIOError:
            return b""

    async def _readable(self) -> None:
        """Wait until there may be more, or no more comes."""
        source, loop = self._source, asyncio.get_running_loop()
        waiting = asyncio.ensure_future(source.moved.wait(source.moved.count, TELL))
        hung_up = any(mask & select.POLLHUP for _, mask in self._poll.poll(0))
        try:
            if hung_up:  # its writers are gone: readable for ever
                await asyncio.wait({waiting}, timeout=LOOK)
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

"""The folder in which a program keeps bytes by their digest: each file is named by its SHA-256, and
is there whole or not at all.

A file goes when nobody used it for long and no live build needs it. Bytes that lie elsewhere in the
program already, as a node's artifacts do, are linked into the folder when they are asked for.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from protocol.errors import Busy, Invalid, PoolError, TooLarge, Unavailable
from protocol.ports.service import ByteStream, Caller
from protocol.transfer.streams import FileStream

T = TypeVar("T")

DIGEST = re.compile(r"[0-9a-f]{64}")
_PART = "part."  # begins the name of a file that is not whole
_PIECE = 1 << 20  # bytes that are handed to a thread at once
_THREADS = 4


class BlobFolder:
    """`Blobs` in a folder. What blocks runs in threads; `path` and `expire` block."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int,
        reserve: int,
        elsewhere: Callable[[str], Path | None] = lambda digest: None,
    ) -> None:
        """`limit`: bytes of a file; `reserve`: bytes that stay free on the disk; `elsewhere`: where
        the program has these bytes besides, in a file that never changes.
        """
        self._folder = folder
        self._limit = limit
        self._reserve = reserve
        self._elsewhere = elsewhere
        # Of its own: a disk that is slow to take large files keeps nobody else waiting.
        self._threads = ThreadPoolExecutor(_THREADS, "blobs")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in folder.glob(f"{_PART}*"):  # an earlier life was killed on the way
            part.unlink()

    def path(self, sha256: str) -> Path | None:
        """The file with these bytes, used now; None where there is none."""
        path = self._folder / sha256
        if not DIGEST.fullmatch(sha256):
            return None
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        source = self._elsewhere(sha256)
        return path if source is not None and self._linked(source, path) else None

    def open(self, sha256: str) -> tuple[ByteStream, int] | None:
        """A reader of the bytes, and how many there are; None where they are not here."""
        path = self.path(sha256)
        if path is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        size = os.fstat(descriptor).st_size
        return FileStream(descriptor, 0, size), size

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """See Blobs."""
        if not digests:
            return frozenset()
        return await self._in_thread(self._missing, frozenset(digests))

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """See Blobs."""
        if sha256 and not DIGEST.fullmatch(sha256):
            raise Invalid(
                f"{sha256[:80]!r} is no digest", field="sha256", expected="64 lower-case hex digits"
            )
        self._check_size(size or 0)
        try:
            return await self._uploaded(stream, sha256, size)
        except OSError as error:
            words = f"it cannot be kept: {error.strerror or error}"
            raise Busy(words, retry_after=60) from error

    async def _uploaded(self, stream: ByteStream, sha256: str, size: int | None) -> str:
        await self._in_thread(self._check_room, size or 0)
        part = await self._in_thread(self._new_part)
        try:
            await self._fill(part, stream)
            digest, length = part.digest.hexdigest(), part.size
            _check_same(digest, length, sha256, size)
            await self._in_thread(part.publish, self._folder / digest)
        finally:
            await self._in_thread(part.drop)
        return digest

    async def _fill(self, part: "_Part", stream: ByteStream) -> None:
        """Take in all that the stream gives."""
        held = bytearray()
        async for piece in stream:
            held += piece
            if len(held) >= _PIECE:
                await self._in_thread(self._append, part, held)
                held = bytearray()
        await self._in_thread(self._append, part, held)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def expire(self, before: float, needed: Collection[str]) -> None:
        """Remove what nobody used since that moment and is not needed. Blocks."""
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                old = path.stat().st_mtime < before
                if old and path.name not in needed and DIGEST.fullmatch(path.name):
                    path.unlink()

    # Blocking

    def _missing(self, digests: frozenset[str]) -> frozenset[str]:
        return frozenset(digest for digest in digests if self.path(digest) is None)

    def _linked(self, source: Path, path: Path) -> bool:
        """Have the source's bytes under that path; False where there is no source any more."""
        part = self._folder / f"{_PART}{secrets.token_hex(8)}"
        try:
            try:
                os.link(source, part)
            except FileNotFoundError:
                return False
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, part)
            os.utime(part)
            part.replace(path)
            return True
        except OSError:
            return False
        finally:
            part.unlink(missing_ok=True)

    def _new_part(self) -> "_Part":
        descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self._folder)
        return _Part(os.fdopen(descriptor, "wb", buffering=0), Path(name))

    def _append(self, part: "_Part", data: bytearray) -> None:
        self._check_size(part.size + len(data))
        self._check_room(len(data))
        part.append(data)

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise TooLarge(
                f"it has more than {self._limit} bytes",
                field="body",
                expected=f"at most {self._limit} bytes",
            )

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free - size < self._reserve:
            raise Busy(
                f"the disk has no room for it: {free >> 20} MiB are free, and"
                f" {self._reserve >> 20} MiB of them stay free",
                retry_after=60,
            )


class _Part:
    """A file on its way into the folder."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file
        self._path = path

    def append(self, data: bytearray) -> None:
        """Write on."""
        self.digest.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(data)

    def publish(self, path: Path) -> None:
        """Give it its name, when it is on disk."""
        os.fsync(self._file.fileno())
        self._path.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def drop(self) -> None:
        """Close it, and remove it where it was not published."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Pipe:
    """Bytes that are handed in on one side and are a stream on the other: at most one piece waits.
    What is handed in after the reader has gone is dropped.
    """

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | PoolError] = asyncio.Queue(1)
        self._left = asyncio.Event()

    async def put(self, piece: bytes) -> None:
        """Hand in a piece; returns when there is room for the next."""
        if piece:
            await self._handed(piece)

    async def end(self) -> None:
        """That was all."""
        await self._handed(b"")

    async def break_off(self, cause: str) -> None:
        """There is no more, and it was not all."""
        await self._handed(Unavailable(cause))

    async def _handed(self, piece: bytes | PoolError) -> None:
        putting = asyncio.ensure_future(self._pieces.put(piece))
        left = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait({putting, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
            left.cancel()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._pieces.get():
            if isinstance(piece, PoolError):
                raise piece
            yield piece

    async def close(self) -> None:
        """The reader goes."""
        self._left.set()


def _check_same(digest: str, length: int, sha256: str, size: int | None) -> None:
    if size is not None and length != size:
        raise Invalid(f"{length} bytes came", field="body", expected=f"{size} bytes")
    if sha256 and digest != sha256:
        raise Invalid(
            f"the bytes have the digest {digest}", field="sha256", expected=f"bytes with {sha256}"
        )

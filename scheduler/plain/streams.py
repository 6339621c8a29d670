"""Log and image of a plain node on their way through: the part that was asked for, of a log that
grows and of an image whose server need not know ranges.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

from protocol.errors import NotFound, Unavailable, Unsatisfiable
from protocol.ports.service import ByteRange, ByteStream, OpenArtifact
from protocol.remote.exchange import number
from protocol.remote.response import ResponseStream
from protocol.transfer.streams import Slice
from scheduler.core.plain import PlainAttempt
from scheduler.plain.exchange import PlainExchange

_PIECE = 1 << 20

Log = Callable[[], Awaitable[bytes]]
"""The whole log as it is now."""
More = Callable[[int], Awaitable[bool]]
"""Returns when the log is longer than that; False: it has ended, and is not."""


class GrowingLog:
    """A log from an offset on, `limit` bytes at most; with `more` for as long as it grows."""

    def __init__(self, log: Log, first: bytes, offset: int, limit: int | None, more: More | None):
        """`first`: the whole log as it was when it was opened; `offset` is not behind its end."""
        self._log = log
        self._first = first
        self._offset = offset
        self._left = limit
        self._more = more

    async def __aiter__(self) -> AsyncIterator[bytes]:
        whole, offset, left = self._first, self._offset, self._left
        while left is None or left > 0:
            for start in range(offset, len(whole), _PIECE):
                piece = whole[start : start + min(_PIECE, _PIECE if left is None else left)]
                offset += len(piece)
                left = None if left is None else left - len(piece)
                if piece:
                    yield piece
            if self._more is None or left == 0 or not await self._more(offset):
                return
            whole = await self._log()
            if len(whole) <= offset:
                raise Unavailable("the source has less of its log than it had")

    async def close(self) -> None:
        """Nothing to let go of."""


async def counted(stream: ByteStream, limit: int) -> tuple[int, str]:
    """How many bytes a stream has, and their SHA-256. Raises Unavailable where it breaks off or
    has more than `limit` bytes.
    """
    size, digest, held = 0, hashlib.sha256(), bytearray()
    async for piece in stream:
        size += len(piece)
        if size > limit:
            raise Unavailable(f"the image has more than {limit} bytes")
        held += piece
        if len(held) >= _PIECE:
            await asyncio.to_thread(digest.update, bytes(held))
            held.clear()
    digest.update(held)
    return size, digest.hexdigest()


async def open_image(
    http: PlainExchange, attempt: PlainAttempt, name: str, part: ByteRange | None
) -> OpenArtifact:
    """The image of this attempt, or a part of it; where the server knows no ranges it is read from
    its beginning. Raises NotFound, Unsatisfiable, Unavailable also where it has another size now.
    """
    artifact = attempt.artifact
    if artifact is None or artifact.name != name:
        raise NotFound(f"the build has no artifact {name[:128]!r}", field="name")
    size = artifact.size
    span = (0, size) if part is None else part.within(size)
    if span is None:
        raise Unsatisfiable(f"the artifact has {size} bytes", size=size, field="Range")
    start, end = span
    wanted = {} if part is None else {"Range": f"bytes={start}-{end - 1}"}
    response = await http.open(attempt.image, wanted)
    if response.status == 206:
        said = response.headers.get("Content-Range", "").removeprefix("bytes ")
        if (said, number(response, "Content-Length")) != (f"{start}-{end - 1}/{size}", end - start):
            response.close()
            raise Unavailable(f"{http.url} answers another range than was asked for")
        return OpenArtifact(artifact, start, end, ResponseStream(response, end - start))
    length = response.content_length
    if length not in (None, size):
        response.close()
        raise Unavailable(f"the image has {length} bytes now, and had {size}")
    stream: ByteStream = ResponseStream(response, length)
    if part is not None or length is None:
        stream = Slice(stream, start, end, size)
    return OpenArtifact(artifact, start, end, stream)

"""Serving an artifact or a log: ranges, validators, back-pressure. Shared by all families that
have downloads.
"""

import base64
import re
import socket
import struct
from urllib.parse import quote

from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from protocol.api.base import Handler
from protocol.api.parts import send_parts
from protocol.errors import Unavailable
from protocol.model.build import Artifact, Build, Position
from protocol.ports.service import ByteRange, ByteStream, OpenArtifact
from protocol.transfer import splice
from protocol.transfer.streams import NoBytes, PartedStream

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_RESET = struct.pack("ii", 1, 0)  # linger, but for no time: what is not sent yet is dropped
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def requested_range(handler: Handler, artifact: Artifact) -> ByteRange | None:
    """The one range that the client asks for; None for the whole: several ranges, other units,
    or If-Range is stale.
    """
    condition = handler.request.headers.get("If-Range")
    stale = condition is not None and (artifact.growing or condition != etag(artifact))
    return None if stale else asked_range(handler.request)


def asked_range(request: HTTPServerRequest) -> ByteRange | None:
    """What the Range header of a GET asks for; None where it is not one range of bytes."""
    match = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or request.method != "GET":
        return None
    first, last = match.groups()
    if first:
        if last and int(last) < int(first):
            return None  # RFC 9110: an invalid range is ignored
        return ByteRange(int(first), int(last) + 1 if last else None)
    return ByteRange(-int(last)) if last and int(last) else _nothing(last)


def _nothing(last: str) -> ByteRange | None:
    """`bytes=-0` is valid and cannot be satisfied; `bytes=-` is not valid."""
    return ByteRange(1 << 62) if last else None


def etag(artifact: Artifact) -> str:
    """A strong validator: the digest."""
    return f'"{artifact.sha256}"'


def _is_known(handler: Handler, artifact: Artifact) -> bool:
    """Whether the client has it already: by If-None-Match, compared weakly."""
    said = handler.request.headers.get("If-None-Match", "")
    tags = {tag.strip().removeprefix("W/") for tag in said.split(",")}
    return not artifact.growing and bool(tags & {etag(artifact), "*"})


async def send_artifact(handler: Handler, build_id: str, artifact: Artifact, filename: str) -> None:
    """Answer with the artifact, or the part of it that the client asks for; one that grows in
    chunks, until it has.
    """
    if _is_known(handler, artifact):
        handler.set_status(304)
        _validators(handler, artifact)
        handler.finish()
        return
    part = requested_range(handler, artifact)
    if artifact.growing and handler.request.method == "HEAD":  # no reader comes of it
        _headers(handler, OpenArtifact(artifact, 0, None, NoBytes()), filename, partial=False)
        await handler.flush()
        handler.finish()
        return
    opened = await handler.service.open_artifact(handler.caller, build_id, artifact.name, part)
    try:
        _headers(handler, opened, filename, partial=part is not None)
        if handler.request.method != "HEAD":
            if opened.end is None:
                await handler.flush()  # the head, however long the first byte takes
            await pump(handler, opened.stream)
        handler.finish()
    finally:
        await opened.stream.close()


def _validators(handler: Handler, artifact: Artifact) -> None:
    """What tells this file from others: it may be kept, to be asked after."""
    handler.set_header("ETag", etag(artifact))
    handler.set_header("Cache-Control", "private, no-cache")


def _headers(handler: Handler, opened: OpenArtifact, filename: str, *, partial: bool) -> None:
    safe = _UNSAFE.sub("_", filename).lstrip("._-")[:200] or opened.artifact.name
    handler.set_status(206 if partial else 200)
    handler.set_header("Content-Type", "application/octet-stream")
    if opened.end is not None:
        handler.set_header("Content-Length", str(opened.end - opened.start))
    handler.set_header("Content-Disposition", f'attachment; filename="{quote(safe)}"')
    handler.set_header("Accept-Ranges", "bytes")
    if opened.artifact.growing:
        handler.set_header("Cache-Control", "no-store")
    else:
        _validators(handler, opened.artifact)
        digest = base64.b64encode(bytes.fromhex(opened.artifact.sha256)).decode()
        handler.set_header("Repr-Digest", f"sha-256=:{digest}:")
    if partial and opened.end is not None:
        size = "*" if opened.artifact.growing else opened.artifact.size
        handler.set_header("Content-Range", f"bytes {opened.start}-{opened.end - 1}/{size}")


async def part_of_log(handler: Handler, build: Build, start: int, end: int) -> bytes:
    """What the log of the build's newest attempt has there. Raises PoolError."""
    if start >= end:
        return b""
    position = Position(build.attempt, start)
    opened = await handler.service.open_log(handler.caller, build.id, position, limit=end - start)
    try:
        return b"".join([piece async for piece in opened.stream])
    finally:
        await opened.stream.close()


async def pump(handler: Handler, stream: ByteStream) -> None:
    """Send the stream as fast as the client takes it. A source that breaks off cuts the
    connection: never a short file that looks whole.
    """
    client = _client(handler)
    able = splice.AVAILABLE and not isinstance(client, SSLIOStream)
    try:
        if able and isinstance(stream, PartedStream):
            await handler.unless_gone(send_parts(handler, client, stream))
        elif able and (source := _direct(stream)) is not None:
            await _splice(handler, source)
        else:
            await _copy(handler, stream)
    except Unavailable as error:
        cut(handler)
        raise StreamClosedError(error) from error


def cut(handler: Handler) -> None:
    """Break the connection off without an end. With HTTP/1.0 the orderly end of a connection is the
    end of a log, so there it is a reset.
    """
    client = _client(handler)
    if handler.request.version == "HTTP/1.0" and not client.closed():
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


async def _copy(handler: Handler, stream: ByteStream) -> None:
    _client(handler).set_nodelay(True)
    await handler.unless_gone(_pieces(handler, stream))  # once: two tasks a piece would cost more


async def _pieces(handler: Handler, stream: ByteStream) -> None:
    async for piece in stream:
        handler.write(piece)
        await handler.flush()


def _direct(stream: ByteStream) -> splice.Source | None:
    """The stream as something that need not be copied, where it can be that."""
    return stream.direct() if isinstance(stream, splice.DirectStream) else None


async def _splice(handler: Handler, source: splice.Source) -> None:
    """The head and what is here of the body go the usual way; the rest past us, on a duplicate of
    the connection's socket. The connection serves the next request afterwards.
    """
    try:
        handler.write(source.ahead)
        await handler.flush()
        client = _client(handler)
        if client.closed():
            raise StreamClosedError
        if source.length:
            await handler.unless_gone(splice.send(source, client.socket.fileno()))
    finally:
        source.close()
    connection = handler.request.connection
    connection._expected_content_remaining = 0  # type: ignore[union-attr]


def _client(handler: Handler) -> IOStream:
    stream: IOStream = handler.request.connection.stream  # type: ignore[union-attr]
    return stream

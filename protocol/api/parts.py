"""Sending a stream that comes in parts: small ones are written, large ones the system moves, each
as one chunk where the length of the whole is not known.
"""

from contextlib import aclosing

from tornado.iostream import IOStream, StreamClosedError

from protocol.api.base import Handler
from protocol.transfer import splice
from protocol.transfer.splice import Source
from protocol.transfer.streams import PartedStream


async def send_parts(handler: Handler, client: IOStream, stream: PartedStream) -> None:
    """Send them all, as fast as the client takes them. `client`: its connection, without TLS.

    Raises Unavailable where the source breaks off, StreamClosedError where the client does.
    """
    client.set_nodelay(True)  # or what was just written may wait for an acknowledgement
    async with aclosing(stream.parts()) as parts:  # type: ignore[type-var]
        async for part in parts:
            if isinstance(part, Source):
                await _move(handler, client, part)
            else:
                handler.write(part)
                await handler.flush()


async def _move(handler: Handler, client: IOStream, source: Source) -> None:
    """One part, past Tornado: its framing of the body is done here."""
    connection = handler.request.connection
    assert connection is not None
    total = len(source.ahead) + source.length
    framed = connection._chunking_output  # type: ignore[attr-defined]
    try:
        await client.write((b"%x\r\n" % total if framed else b"") + source.ahead)
        if client.closed():
            raise StreamClosedError
        if source.length:
            await splice.send(source, client.socket.fileno())
    finally:
        source.close()
    if framed:
        client.write(b"\r\n")
    elif connection._expected_content_remaining is not None:  # type: ignore[attr-defined]
        connection._expected_content_remaining -= total  # type: ignore[attr-defined]

"""The body of an answer as a byte stream: read piece by piece, or handed over with its socket."""

import os
from collections.abc import AsyncIterator

import aiohttp

from protocol.errors import Unavailable
from protocol.transfer.splice import SMALLEST, Source


async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes. Raises aiohttp.ClientError, OSError."""
    try:
        async for piece in response.content.iter_any():
            yield piece
    except RuntimeError as error:  # so aiohttp says that the connection ended between two of them
        raise aiohttp.ServerDisconnectedError(str(error)) from error


class ResponseStream:
    """The body of an answer, piece by piece. `length`: what it must have, where that is known."""

    def __init__(self, response: aiohttp.ClientResponse, length: int | None) -> None:
        self._response = response
        self._length = length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        try:
            async for piece in pieces(self._response):
                received += len(piece)
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise _broke_off(error) from error
        if self._length is not None and received != self._length:
            raise Unavailable(f"the source broke off after {received} of {self._length} bytes")

    def direct(self) -> Source | None:
        """What has arrived of the body, and the socket where the rest will arrive. None for TLS,
        for a small body or one without a length, and where the connection is done with already.
        """
        connection, content = self._response.connection, self._response.content
        transport = connection.transport if connection else None
        length = self._length or 0
        if transport is None or transport.is_closing() or content.exception():
            return None
        if length < SMALLEST or transport.get_extra_info("sslcontext"):
            return None
        ahead = bytearray()
        try:
            while piece := content.read_nowait():
                ahead += piece
        except (aiohttp.ClientError, OSError) as error:
            raise _broke_off(error) from error
        if content.is_eof():
            return Source(bytes(ahead), -1, None, 0)
        transport.pause_reading()  # nothing was read since the loop: it does not wait
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        return Source(bytes(ahead), descriptor, None, length - len(ahead))

    async def close(self) -> None:
        """Close the connection unless the body was read to its end."""
        self._response.close()


def _broke_off(error: BaseException) -> Unavailable:
    if isinstance(error, aiohttp.ClientPayloadError):  # it says how HTTP marks the end of a body
        return Unavailable("the source broke off before its end")
    words = error.strerror if isinstance(error, OSError) else ""
    return Unavailable(f"the source broke off: {words or error}")

"""HTTP with a plain node: each request on a connection of its own, no redirect followed, nothing
read beyond its limit.

What goes wrong on the way is `Unavailable`, and `Unreachable` where nothing can have been heard.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from protocol import wire
from protocol.errors import (
    Busy,
    Denied,
    Invalid,
    NotFound,
    PoolError,
    Unavailable,
)
from protocol.remote.connecting import session, unavailable
from protocol.remote.exchange import read
from protocol.remote.response import pieces

T = TypeVar("T")

ANSWER_LIMIT = 32 << 20
"""Bytes that the status of a build may have, with the output of all its commands."""
_WORDS = 4096  # bytes of an answer that are read to see what a server says
_SHOWN = 160  # characters of it that are told
_PIECE = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
_ON_THE_WAY = (408, 502, 504)  # said by what is between us: the create may have been heard


class PlainExchange:
    """Requests to one server."""

    def __init__(self, url: str, patience: float) -> None:
        """`patience`: seconds of silence that are borne within an answer."""
        self.url = url
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End what is under way."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, kind: type[T]) -> T:
        """The JSON that is there. Raises NotFound, Unavailable also where it makes no sense."""
        body = await self._whole(path)
        try:
            if len(body) > _PIECE:
                return await asyncio.to_thread(wire.decode, body, kind)
            return wire.decode(body, kind)
        except Invalid as error:
            raise Unavailable(
                f"{self.url}{path} makes no sense: {error.detail[:_SHOWN]}"
            ) from error

    async def create(self, specification: dict[str, Any]) -> str:
        """The Location that answers `POST /create`.

        Raises Unreachable, Busy, Denied (it never takes this), PoolError (it failed to take it) and
        Unavailable where it may have begun the build.
        """
        body, headers = wire.encode(specification), {"Content-Type": wire.JSON}
        try:
            async with asyncio.timeout(self._patience):
                response = await self._request("POST", "/create", headers, body)
                async with response:
                    said = await _head(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable(self.url, error) from error
        if response.status in _REDIRECTS:
            return response.headers.get("Location", "")
        raise self._refusal(response.status, said)

    async def open(self, path: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """An answer of 200 or 206 whose body is streamed. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._patience):
                response = await self._request("GET", path, headers, None)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable(self.url, error) from error
        coded = response.headers.get("Content-Encoding", "identity") != "identity"
        if response.status not in (200, 206) or coded:
            response.close()
            words = "in a code that nobody asked for" if coded else f"with {response.status}"
            raise Unavailable(f"{self.url}{path} answers {words}")
        return response

    async def _whole(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._patience):
                response = await self._request("GET", path, {"Accept": wire.JSON}, None)
                async with response:
                    if response.status == 404:
                        raise NotFound(f"{self.url} knows no {path}")
                    if response.status != 200:
                        said = _shown(await _head(response))
                        words = f"{self.url}{path} answers {response.status}: {said}"
                        raise Unavailable(words)
                    return await read(response, ANSWER_LIMIT)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable(self.url, error) from error

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        # A path is as its server wrote it, and nothing of it is a way to somewhere else.
        where = URL(self.url + path, encoded=True)
        return await self._connection().request(
            method,
            where,
            headers={"Accept-Encoding": "identity", **headers},
            data=body,
            allow_redirects=False,
        )

    def _connection(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No connection is used again: a create that meets one which was just closed was not
            # heard, and nobody could tell.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = session(connector, silence=self._patience)
        return self._session

    def _refusal(self, status: int, said: bytes) -> PoolError:
        words = f"{self.url} answers the create with {status}: {_shown(said)}"
        if status in (429, 503):
            return Busy(words)
        if 200 <= status < 300 or status in _ON_THE_WAY:
            return Unavailable(words)
        return Denied(words) if status < 500 else PoolError(words)


async def _head(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of an answer; the rest is of no interest."""
    body = bytearray()
    async for piece in pieces(response):
        body += piece
        if len(body) >= _WORDS:
            break
    return bytes(body[:_WORDS])


def _shown(said: bytes) -> str:
    """What a server says, on one line."""
    return " ".join(said.decode(errors="replace").split())[:_SHOWN] or "nothing"

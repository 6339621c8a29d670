"""Calling URLs that clients gave: how long it may take, how many at a time. Which addresses are
called is the guard's (`protocol/remote/guard.py`).

No redirect is followed, no cookie kept, no proxy asked. Each receiver has a few calls at a time, so
that a slow one does not hold up others.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import aiohttp

from protocol.errors import Unavailable
from protocol.model.urls import WebUrl
from protocol.remote.guard import Guard
from protocol.remote.response import pieces

_EACH = 4  # calls of one receiver at the same time
_HEADERS = {"User-Agent": "imagepool"}


class Callout:
    """An HTTP client for such URLs. For use on one event loop."""

    def __init__(self, seconds: float, limit: int, guard: Guard) -> None:
        """`seconds`: how long one call may take; `limit`: calls at the same time. The guard is
        closed with us.
        """
        self._guard = guard
        self._seconds = seconds
        self._all = asyncio.Semaphore(limit)
        self._receivers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._guard.close()

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        """The status that the receiver answers; its body is not read. Raises Unavailable where
        there is none, Invalid and Denied where this URL is not called: in words for whoever gave
        it.
        """
        async with self._answer("POST", url, data=content, headers=dict(headers)) as response:
            return response.status

    async def get(self, url: str, limit: int) -> tuple[int, bytes]:
        """Status and body, of which no more than `limit` bytes are read. Raises as `post` does."""
        async with self._answer("GET", url, headers={"Accept": "application/json"}) as response:
            body = bytearray()
            async for piece in pieces(response):
                body += piece
                if len(body) >= limit:
                    break
            return response.status, bytes(body[:limit])

    @asynccontextmanager
    async def _answer(
        self, method: str, url: str, *, headers: dict[str, str], data: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        place = self._guard.check(url, "url")
        async with self._receiver(place), self._all:
            try:
                async with self._open().request(
                    method, place.text, headers=headers, data=data, allow_redirects=False
                ) as response:
                    yield response
            except TimeoutError as error:
                raise Unavailable(f"no answer within {self._seconds:g} s") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unavailable(str(error) or type(error).__name__) from error

    def _receiver(self, place: WebUrl) -> asyncio.Semaphore:
        """One turn of those that the receiver has; waiting for it uses up no other's."""
        turns = self._receivers.get(place.origin)
        if turns is None:
            turns = self._receivers[place.origin] = asyncio.Semaphore(_EACH)
        return turns

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._guard.connector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=self._seconds),
            )
        return self._session

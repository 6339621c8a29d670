"""Calling URLs that clients gave: what is refused, how long it may take, how many at a time.

No redirect is followed, no cookie kept, no proxy asked. Each receiver has a few calls at a time, so
that a slow one does not hold up others; names are looked up in threads of our own, so that a slow
name server does not hold up builds.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from protocol.errors import Unavailable
from protocol.model.checks import check_url

_EACH = 4  # calls of one receiver at the same time
_LOOKUPS = 16  # threads
_HEADERS = {"User-Agent": "imagepool"}


def check_target(url: str) -> None:
    """Whether we may call this URL. Raises Invalid, Denied.

    Every call comes by here: the place for what the operator allows.
    """
    check_url(url, "url")


class Callout:
    """An HTTP client for such URLs. For use on one event loop."""

    def __init__(self, seconds: float, limit: int) -> None:
        """`seconds`: how long one call may take; `limit`: calls at the same time."""
        self._seconds = seconds
        self._all = asyncio.Semaphore(limit)
        self._receivers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        """The status that the receiver answers; its body is not read. Raises Unavailable where
        there is none, and what `check_target` raises: in words for whoever gave the URL.
        """
        async with self._answer("POST", url, data=content, headers=dict(headers)) as response:
            return response.status

    async def get(self, url: str, limit: int) -> tuple[int, bytes]:
        """Status and body, of which no more than `limit` bytes are read. Raises as `post` does."""
        async with self._answer("GET", url, headers={"Accept": "application/json"}) as response:
            body = bytearray()
            while len(body) < limit and (piece := await response.content.read(limit - len(body))):
                body += piece
            return response.status, bytes(body)

    @asynccontextmanager
    async def _answer(
        self, method: str, url: str, *, headers: dict[str, str], data: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        check_target(url)
        async with self._receiver(url), self._all:
            try:
                async with self._open().request(
                    method, url, headers=headers, data=data, allow_redirects=False
                ) as response:
                    yield response
            except TimeoutError as error:
                raise Unavailable(f"no answer within {self._seconds:g} s") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unavailable(str(error) or type(error).__name__) from error

    def _receiver(self, url: str) -> asyncio.Semaphore:
        """One turn of those that the receiver has; waiting for it uses up no other's."""
        parts = urlsplit(url)
        name = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        turns = self._receivers.get(name)
        if turns is None:
            turns = self._receivers[name] = asyncio.Semaphore(_EACH)
        return turns

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True, resolver=_OwnThreads()),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=self._seconds),
            )
        return self._session


class _OwnThreads(AbstractResolver):
    """The system's look-up of names, in threads that nothing else needs."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "look-up")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Called by aiohttp. Raises OSError."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, _looked_up, host, port, family
        )
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, protocol, address in found
        ]

    async def close(self) -> None:
        """Called by aiohttp."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _looked_up(host: str, port: int, family: int) -> list[tuple[int, int, str]]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    plain = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return [
        (kind, protocol, socket.getnameinfo(address, plain)[0])
        for kind, _, protocol, _, address in found
    ]

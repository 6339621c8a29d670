"""HTTP between programs: requests that are answered with typed values, errors as the classes that
the other side raised, whatever goes wrong on the way as `Unavailable`. Redirects are never
followed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import aiohttp

from protocol import wire
from protocol.errors import (
    ERRORS,
    Busy,
    PoolError,
    Unavailable,
    Unreachable,
    Unsatisfiable,
)
from protocol.model.messages import Problem
from protocol.ports.service import ByteStream
from protocol.remote.connecting import Secured, foreign, session, socket_of, unavailable
from protocol.remote.guard import Guard
from protocol.remote.response import pieces

T = TypeVar("T")

Query: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
"""Arguments of a URL; in pairs where one may be there twice."""

ANSWER = 10.0
"""Seconds that an answer may take beyond what it may be held, where nothing else is said."""
STALL = 60.0
"""Seconds in which something of a streamed body moves, or its last piece is answered."""
ANSWER_LIMIT = 64 << 20
"""Bytes that an answer that is read whole may have."""
_PIECE = 1 << 20
_DETAIL = 4000  # characters of each word of an error that another program tells


class Exchange:
    """Connections to one program, opened when they are needed."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        patience: float,
        secured: Secured | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`headers`: of every request; `patience`: the seconds that an answer may take beyond what
        it may be held. None for `secured`: whoever answers there is believed; for `guard`: any
        address is called.
        """
        self._guard = guard
        self._secured = secured
        self._url = url
        self._patience = patience
        self._headers = {"Accept": wire.MSGPACK, **headers}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, kind: type[T], query: Query, *, held: float = 0) -> T:
        """What a GET answers; it may be held for so many seconds."""
        return _typed(await self._exchange("GET", path, query, None, held), kind)

    async def post(
        self, path: str, value: Any, kind: type[T] | None, headers: Mapping[str, str] = {}
    ) -> Any:
        """What a POST of this value answers; without a kind, nothing."""
        packed = wire.encode(value, wire.MSGPACK)
        body = await self._exchange("POST", path, {}, packed, 0, headers)
        return None if kind is None else _typed(body, kind)

    async def put(self, path: str, value: Any, kind: type[T]) -> T:
        """What a PUT of this value answers."""
        packed = wire.encode(value, wire.MSGPACK)
        return _typed(await self._exchange("PUT", path, {}, packed, 0), kind)

    async def delete(self, path: str) -> None:
        """A DELETE that is answered with nothing."""
        await self._exchange("DELETE", path, {}, None, 0)

    async def send(
        self, method: str, path: str, stream: ByteStream, size: int | None, kind: type[T]
    ) -> T:
        """What a request with a streamed body answers. The stream's own error is raised as it is;
        Unavailable where nothing moved for a time.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        body = _Sent(stream, size)
        try:
            async with asyncio.timeout(STALL) as body.patience:
                async with await self._request(method, path, {}, headers, body) as response:
                    return _typed(await read(response, ANSWER_LIMIT), kind)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if body.broke_off is not None:
                raise body.broke_off from error
            raise unavailable(self._url, error) from error

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Query,
        body: bytes | None,
        held: float,
        headers: Mapping[str, str] = {},
    ) -> bytes:
        """A request that is answered whole."""
        try:
            async with asyncio.timeout(held + self._patience):
                response = await self._request(method, path, query, headers, body)
                async with response:
                    return await read(response, ANSWER_LIMIT)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable(self._url, error) from error

    async def open(
        self,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        *,
        held: float | None = 0,
    ) -> aiohttp.ClientResponse:
        """A request whose answer is streamed; it may be held for so many seconds, None: for as long
        as the other side lives.
        """
        try:
            async with asyncio.timeout(None if held is None else held + self._patience):
                return await self._request("GET", path, query, headers, None)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable(self._url, error) from error

    async def _request(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        body: "bytes | _Sent | None",
    ) -> aiohttp.ClientResponse:
        if isinstance(body, bytes):
            headers = {**headers, "Content-Type": wire.MSGPACK}
        response = await self._connection().request(
            method,
            self._url + path,
            params=query,
            headers=headers,
            data=body,
            allow_redirects=False,
            ssl=self._secured.context() if self._secured else True,
            server_hostname=self._secured.name if self._secured else None,
        )
        if 200 <= response.status < 300:
            return response
        async with response:
            raise _error(response, await read(response, ANSWER_LIMIT), self._url)

    def _connection(self) -> aiohttp.ClientSession:
        if self._session is None:
            made = self._guard.connector if self._guard else aiohttp.TCPConnector
            connector = made(limit=0, keepalive_timeout=30, socket_factory=socket_of)
            self._session = session(connector, self._headers)
        if self._session.closed:
            raise Unreachable(f"{self._url} is not asked any more")
        return self._session


class _Sent:
    """A stream on its way out: whoever waits for its end is told of each piece that has moved."""

    def __init__(self, stream: ByteStream, size: int | None) -> None:
        self.patience: asyncio.Timeout | None = None
        self.broke_off: PoolError | None = None
        self._stream = stream
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = 0
        try:
            async for piece in self._stream:
                sent += len(piece)
                yield piece
                if self.patience is not None:
                    self.patience.reschedule(asyncio.get_running_loop().time() + STALL)
            if self._size not in (None, sent):  # the other side would wait for the rest
                raise Unavailable(f"{sent} bytes came, and not {self._size}")
        except PoolError as error:
            self.broke_off = error
            raise


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises Unavailable where it has more bytes than that."""
    body = bytearray()
    async for piece in pieces(response):
        body += piece
        if len(body) > limit:
            where = f"{response.url.origin()}{response.url.raw_path}"
            raise Unavailable(f"{where}: the answer is over {limit} bytes")
    return bytes(body)


def number(response: aiohttp.ClientResponse, header: str) -> int:
    """What a header says; where it says no number, the answer is given up. Raises Unavailable."""
    value = whole(response.headers.get(header, ""))
    if value is None:
        response.close()
        raise Unavailable(f"the answer has no {header}")
    return value


def whole(text: str) -> int | None:
    """A whole number that somebody else wrote; None where it is none, or has more digits than any
    size or place has. Whoever answers may be anybody: nothing else may come of it.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _typed(body: bytes, kind: type[T]) -> T:
    try:
        return wire.decode(body, kind, wire.MSGPACK, limit=ANSWER_LIMIT)
    except PoolError as error:
        raise foreign(f"an answer makes no sense: {error.detail}") from error


def _error(response: aiohttp.ClientResponse, body: bytes, url: str) -> PoolError:
    """The error that the other side raised; Unavailable where it speaks another language."""
    try:
        packed = response.headers.get("Content-Type", "") == wire.MSGPACK
        plain = wire.decode(body, dict, wire.MSGPACK if packed else wire.JSON)
        problem = wire.convert(plain, Problem)
        kind = ERRORS[problem.type.rpartition(":")[2]]
    except (PoolError, KeyError):
        said = " ".join(body[:200].decode("utf-8", "replace").split())
        return foreign(f"{url} answered {response.status}, and not as a program of ours: {said!r}")
    detail = problem.detail[:_DETAIL]
    words = {"field": problem.field[:_DETAIL], "expected": problem.expected[:_DETAIL]}
    if issubclass(kind, Unsatisfiable):
        size = whole(response.headers.get("Content-Range", "").rpartition("/")[2])
        return Unsatisfiable(detail, size=size, **words)
    if issubclass(kind, Busy):
        after = whole(response.headers.get("Retry-After", ""))
        return kind(detail, retry_after=5 if after is None else after, **words)
    return kind(detail, **words)

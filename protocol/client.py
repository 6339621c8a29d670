"""The build service over HTTP: what the scheduler calls its nodes with, and the command line calls
either with.

Errors arrive as the classes that the other side raised; whatever goes wrong on the way is
`Unavailable`. Redirects are never followed.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp

from protocol import idempotency, wire
from protocol.api import access
from protocol.errors import (
    ERRORS,
    Busy,
    NotFound,
    PoolError,
    Unavailable,
    Unreachable,
    Unsatisfiable,
)
from protocol.messages import (
    Acknowledgement,
    BuildPage,
    BuildQuery,
    Cancellation,
    Changes,
    Cordon,
    Explanation,
    Forwarded,
    Problem,
    Registration,
    Report,
    Roster,
)
from protocol.model import Artifact, Build, BuildRequest, Forward, Position
from protocol.response import ResponseStream
from protocol.service import ByteRange, Caller, OpenArtifact, OpenLog

T = TypeVar("T")

ANSWER = 10.0
"""Seconds that an answer may take beyond what it may be held, where nothing else is said."""
CONNECT = 2.0
"""Seconds that a connection may take; less than a scheduler's patience, to know which it was."""
ANSWER_LIMIT = 64 << 20
"""Bytes that an answer that is read whole may have."""
_PIECE = 1 << 20


class HttpService:
    """`BuildService` at a URL.

    `caller`: who calls (an id of program and store, or an owner); `patience`: the seconds that an
    answer may take beyond what it may be held.
    """

    def __init__(self, url: str, *, caller: Caller | None = None, patience: float = ANSWER) -> None:
        self.url = url.rstrip("/")
        self._patience = patience
        self._headers = {"Accept": wire.MSGPACK, **(access.headers(caller) if caller else {})}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
    ) -> Build:
        """See BuildService."""
        if forward is None:
            headers = {idempotency.HEADER: key} if key else {}
            return await self._post("/api/v1/builds", request, Build, headers)
        return await self._post("/create", Forwarded(request, forward), Build)

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""
        query = {"wait": f"{wait:g}"} | ({} if after is None else {"after": str(after)})
        return await self._get(_build(build_id), Build, query, held=wait)

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """See BuildService."""
        parameters = {"limit": str(query.limit), "cursor": query.cursor}
        if query.status is not None:
            parameters["status"] = query.status.value
        return await self._get("/api/v1/builds", BuildPage, parameters)

    async def cancel(self, caller: Caller, build_id: str, attempt: int | None = None) -> Build:
        """See BuildService."""
        return await self._post(_build(build_id) + "/cancel", Cancellation(attempt), Build)

    async def open_log(
        self,
        caller: Caller,
        build_id: str,
        position: Position,
        *,
        limit: int | None = None,
        follow: bool = False,
    ) -> OpenLog:
        """See BuildService."""
        query = {"position": str(position)}
        if limit is not None:
            query["limit"] = str(limit)
        if follow:
            query["follow"] = "1"
        response = await self._open(_build(build_id) + "/log", query, {})
        attempt, offset = (_number(response, name) for name in ("Log-Attempt", "Log-Offset"))
        return OpenLog(attempt, offset, ResponseStream(response, None))

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        answer = await self._get(
            _build(build_id) + "/artifacts", dict[str, tuple[Artifact, ...]], {}
        )
        return answer.get("artifacts", ())

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""
        headers = {} if part is None else {"Range": _range_header(part)}
        path = f"{_build(build_id)}/artifacts/{quote(name, safe='')}"
        response = await self._open(path, {}, headers)
        length = _number(response, "Content-Length")
        start, size = 0, length
        if response.status == 206:
            span, _, whole = response.headers.get("Content-Range", "").rpartition("/")
            first = span.removeprefix("bytes ").partition("-")[0]
            if not (first.isdigit() and whole.isdigit()):
                response.close()
                raise Unavailable(f"{self.url} answered a range without saying which")
            start, size = int(first), int(whole)
        artifact = Artifact(name, size, response.headers.get("ETag", "").strip('"'))
        return OpenArtifact(artifact, start, start + length, ResponseStream(response, length))

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService."""
        query = {} if after is None else {"after": after, "wait": f"{wait:g}"}
        return await self._get("/status", Report, query, held=wait)

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """See BuildService."""
        query = {"cursor": cursor, "wait": f"{wait:g}"}
        return await self._get("/api/v1/changes", Changes, query, held=wait)

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        return await self._get(_build(build_id) + "/explain", Explanation, {})

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        await self._post("/api/v1/acknowledgements", acknowledgement, None)

    # Schedulers only; not verbs of the build service

    async def roster(self) -> Roster:
        """Every node that the scheduler knows of."""
        return await self._get("/api/v1/nodes", Roster, {})

    async def register(self, registration: Registration) -> None:
        """Make a node known to the scheduler."""
        await self._post("/api/v1/nodes", registration, None)

    async def cordon(self, node: str, reason: str) -> None:
        """Keep new builds from a node of the scheduler, by id or name."""
        await self._post(f"{_node(node)}/cordon", Cordon(reason), None)

    async def uncordon(self, node: str) -> None:
        """Allow new builds on it again."""
        await self._post(f"{_node(node)}/uncordon", {}, None)

    # The wire

    async def _get(
        self, path: str, kind: type[T], query: Mapping[str, str], *, held: float = 0
    ) -> T:
        return _typed(await self._exchange("GET", path, query, None, held), kind)

    async def _post(
        self, path: str, value: Any, kind: type[T] | None, headers: Mapping[str, str] = {}
    ) -> Any:
        packed = wire.encode(value, wire.MSGPACK)
        body = await self._exchange("POST", path, {}, packed, 0, headers)
        return None if kind is None else _typed(body, kind)

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None,
        held: float,
        headers: Mapping[str, str] = {},
    ) -> bytes:
        """A request that is answered whole."""
        try:
            async with asyncio.timeout(held + self._patience):
                response = await self._request(method, path, query, headers, body)
                async with response:
                    return await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unavailable(error) from error

    async def _open(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """A request whose answer is streamed."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._request("GET", path, query, headers, None)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unavailable(error) from error

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> aiohttp.ClientResponse:
        if body is not None:
            headers = {**headers, "Content-Type": wire.MSGPACK}
        response = await self._connection().request(
            method,
            self.url + path,
            params=query,
            headers=headers,
            data=body,
            allow_redirects=False,
        )
        if 200 <= response.status < 300:
            return response
        async with response:
            raise _error(response, await _read(response), self.url)

    def _connection(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT, sock_connect=CONNECT)
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=timeout,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=_PIECE,
                trust_env=False,
            )
        return self._session

    def _unavailable(self, error: BaseException) -> Unavailable:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Unreachable(f"{self.url} cannot be reached: no connection in {CONNECT:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Unreachable(f"{self.url} cannot be reached: {error.os_error.strerror or error}")
        text = str(error) or "no answer in time"
        return Unavailable(f"{self.url} does not answer: {text}")


def _build(build_id: str) -> str:
    if not (build_id.isascii() and build_id.isalnum() and len(build_id) <= 64):
        raise NotFound(f"there is no build {build_id[:64]!r}", field="id")
    return f"/api/v1/builds/{build_id}"


def _node(name: str) -> str:
    return f"/api/v1/nodes/{quote(name, safe='')}"


def _range_header(part: ByteRange) -> str:
    if part.start < 0:
        return f"bytes={part.start}"
    return f"bytes={part.start}-" + ("" if part.end is None else str(part.end - 1))


def _number(response: aiohttp.ClientResponse, header: str) -> int:
    text = response.headers.get(header, "")
    if not text.isdigit():
        response.close()
        raise Unavailable(f"the answer has no {header}")
    return int(text)


def _typed(body: bytes, kind: type[T]) -> T:
    try:
        return wire.decode(body, kind, wire.MSGPACK, limit=ANSWER_LIMIT)
    except PoolError as error:
        raise Unavailable(f"an answer makes no sense: {error.detail}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > ANSWER_LIMIT:
            raise Unavailable(f"an answer is over {ANSWER_LIMIT} bytes")
    return bytes(body)


def _error(response: aiohttp.ClientResponse, body: bytes, url: str) -> PoolError:
    """The error that the other side raised; Unavailable where it speaks another language."""
    try:
        plain = wire.decode(body, dict, wire.JSON)
        problem = wire.convert(plain, Problem)
        kind = ERRORS[problem.type.rpartition(":")[2]]
    except (PoolError, KeyError):
        return Unavailable(f"{url} answered {response.status}: {body[:200]!r}")
    words = {"field": problem.field, "expected": problem.expected}
    if issubclass(kind, Unsatisfiable):
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
        return Unsatisfiable(problem.detail, size=int(size) if size.isdigit() else 0, **words)
    if issubclass(kind, Busy):
        after = response.headers.get("Retry-After", "")
        return Busy(problem.detail, retry_after=int(after) if after.isdigit() else 5, **words)
    return kind(problem.detail, **words)

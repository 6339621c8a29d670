"""The build service over HTTP: what the scheduler calls its nodes with, and the command line calls
either with.

Errors arrive as the classes that the other side raised; whatever goes wrong on the way is
`Unavailable`. Redirects are never followed.
"""

from collections.abc import Collection
from urllib.parse import quote

from protocol.api import callers
from protocol.api.native import listing
from protocol.errors import (
    NotFound,
    Unavailable,
)
from protocol.model import idempotency
from protocol.model.build import Artifact, Build, Position
from protocol.model.messages import (
    Acknowledgement,
    AuthorityState,
    BuildPage,
    BuildQuery,
    Cancellation,
    Changes,
    Cordon,
    Explanation,
    Forwarded,
    Invitation,
    Registration,
    Report,
    Revocation,
    Roster,
    RosterEntry,
)
from protocol.model.request import BuildRequest, Forward, Order, Secrets
from protocol.ports.service import ByteRange, ByteStream, Caller, OpenArtifact, OpenLog
from protocol.remote.connecting import Secured
from protocol.remote.exchange import ANSWER, Exchange, number, whole
from protocol.remote.guard import Guard
from protocol.remote.people import RemotePeople
from protocol.remote.response import ResponseStream
from protocol.remote.ticketed import Ticketed


class HttpService:
    """`BuildService` at a URL.

    `caller`: who calls (an id of program and store, or an owner); `patience`: the seconds that an
    answer may take beyond what it may be held; `token`: what proves who calls; `guard`: which
    addresses may be called; `ticketed`: artifacts come without TLS where the other side gives
    tickets for them.
    """

    def __init__(
        self,
        url: str,
        *,
        caller: Caller | None = None,
        patience: float = ANSWER,
        secured: Secured | None = None,
        token: str = "",
        guard: Guard | None = None,
        ticketed: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        said = callers.headers(caller) if caller else {}
        if token:
            said["Authorization"] = f"Bearer {token}"
        self._http = Exchange(self.url, said, patience, secured, guard)
        self._ticketed = Ticketed(self._http, self.url, patience, guard) if ticketed else None
        self.people = RemotePeople(self._http)

    async def close(self) -> None:
        """Close the connections."""
        if self._ticketed is not None:
            await self._ticketed.close()
        await self._http.close()

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
    ) -> Build:
        """See BuildService."""
        if forward is None:
            headers = {idempotency.HEADER: key} if key else {}
            order = Order(request.recipe, request.guidance, secrets or {})
            return await self._http.post("/api/v1/builds", order, Build, headers)
        return await self._http.post("/create", Forwarded(request, forward, secrets or {}), Build)

    async def preview(self, caller: Caller, request: BuildRequest) -> Explanation:
        """See BuildService. Secrets stand for themselves: only their names are looked at."""
        order = Order(request.recipe, request.guidance, dict.fromkeys(request.secrets, "-"))
        return await self._http.post("/api/v1/builds/preview", order, Explanation)

    async def retry(
        self, caller: Caller, build_id: str, key: str = "", secrets: Secrets | None = None
    ) -> Build:
        """See BuildService."""
        headers = {idempotency.HEADER: key} if key else {}
        body = {"secrets": secrets or {}}
        return await self._http.post(_build(build_id) + "/retry", body, Build, headers)

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        verb = "pin" if pinned else "unpin"
        return await self._http.post(f"{_build(build_id)}/{verb}", {}, Build)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        await self._http.delete(_build(build_id))

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""
        query = {"wait": f"{wait:g}"} | ({} if after is None else {"after": str(after)})
        return await self._http.get(_build(build_id), Build, query, held=wait)

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """See BuildService."""
        return await self._http.get("/api/v1/builds", BuildPage, listing.parameters(query))

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """See BuildService."""
        return await self._http.post(
            _build(build_id) + "/cancel", Cancellation(attempt, superseded), Build
        )

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
        held = None if follow else 0  # the build may wait, for as long as builds do
        response = await self._http.open(_build(build_id) + "/log", query, {}, held=held)
        attempt, offset = (number(response, name) for name in ("Log-Attempt", "Log-Offset"))
        length = response.content_length
        return OpenLog(attempt, offset, ResponseStream(response, length), length)

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        answer = await self._http.get(
            _build(build_id) + "/artifacts", dict[str, tuple[Artifact, ...]], {}
        )
        return answer.get("artifacts", ())

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService. Only of a whole it can be seen by its digest whether it was changed:
        parts come by TLS.
        """
        if self._ticketed is not None and part is None:
            opened = await self._ticketed.open(build_id, name)
            if opened is not None:
                return opened
        headers = {} if part is None else {"Range": _range_header(part)}
        path = f"{_build(build_id)}/artifacts/{quote(name, safe='')}"
        response = await self._http.open(path, {}, headers)
        if "Content-Length" not in response.headers:
            grown = Artifact(name, 0, "", growing=True)
            return OpenArtifact(grown, 0, None, ResponseStream(response, None))
        length = number(response, "Content-Length")
        start, size, growing = 0, length, False
        if response.status == 206:
            span, _, all_of_it = response.headers.get("Content-Range", "").rpartition("/")
            first = whole(span.removeprefix("bytes ").partition("-")[0])
            growing, last = all_of_it == "*", whole(all_of_it)
            if first is None or (last is None and not growing):
                response.close()
                raise Unavailable(f"{self.url} answered a range without saying which")
            start, size = first, first + length if last is None else last
        digest = response.headers.get("ETag", "").strip('"')
        artifact = Artifact(name, size, digest, growing=growing)
        return OpenArtifact(artifact, start, start + length, ResponseStream(response, length))

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService."""
        query = {} if after is None else {"after": after, "wait": f"{wait:g}"}
        return await self._http.get("/status", Report, query, held=wait)

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """See BuildService."""
        query = {"cursor": cursor, "wait": f"{wait:g}"}
        return await self._http.get("/api/v1/changes", Changes, query, held=wait)

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        return await self._http.get(_build(build_id) + "/explain", Explanation, {})

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        await self._http.post("/api/v1/acknowledgements", acknowledgement, None)

    # Blobs

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """See Blobs."""
        if not digests:
            return frozenset()
        body = {"digests": sorted(digests)}
        answer = await self._http.post("/api/v1/blobs/missing", body, dict[str, tuple[str, ...]])
        return frozenset(answer.get("missing", ()))

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """See Blobs."""
        method, path = ("PUT", f"/{quote(sha256, safe='')}") if sha256 else ("POST", "")
        answer = await self._http.send(method, "/api/v1/blobs" + path, stream, size, dict[str, str])
        return answer.get("sha256", "")

    # Schedulers only; not verbs of the build service

    async def roster(self) -> Roster:
        """Every node that the scheduler knows of."""
        return await self._http.get("/api/v1/nodes", Roster, {})

    async def node(self, node: str) -> RosterEntry:
        """One of them, by id or name."""
        return await self._http.get(_node(node), RosterEntry, {})

    async def register(self, registration: Registration) -> None:
        """Make a node known to the scheduler."""
        await self._http.post("/api/v1/nodes", registration, None)

    async def cordon(self, node: str, reason: str) -> None:
        """Keep new builds from a node of the scheduler, by id or name."""
        await self._http.post(f"{_node(node)}/cordon", Cordon(reason), None)

    async def drain(self, node: str, reason: str) -> None:
        """Cordon it, to be empty: it is `drained` then."""
        await self._http.post(f"{_node(node)}/drain", Cordon(reason), None)

    async def uncordon(self, node: str) -> None:
        """Allow new builds on it again."""
        await self._http.post(f"{_node(node)}/uncordon", {}, None)

    async def invitation(self, *, new: bool = False) -> Invitation:
        """What brings another machine into the pool; `new`: with another token than before."""
        path = "/api/v1/pool/invitation"
        if new:
            made: Invitation = await self._http.post(path, {}, Invitation)
            return made
        return await self._http.get(path, Invitation, {})

    async def admit(self, node: str) -> None:
        """Let a node in that waits for it."""
        await self._http.post(f"{_node(node)}/admit", {}, None)

    async def revoke(self, node: str, reason: str) -> None:
        """Put a node out of the pool."""
        await self._http.post(f"{_node(node)}/revoke", Revocation(reason), None)

    async def authority(self, step: str = "") -> AuthorityState:
        """The pool's authority, after a step of replacing it: "begin" or "next"."""
        path = "/api/v1/pool/authority"
        if step:
            after: AuthorityState = await self._http.post(f"{path}/{step}", {}, AuthorityState)
            return after
        return await self._http.get(path, AuthorityState, {})


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

"""The Traffic Ops family: `POST /api/1.x/isos`, `GET /api/1.x/osversions`, `POST
/api/1.x/user/login` and `/user/logout`, and `GET /iso/NAME`, where an `isoURL` leads.
"""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct
from msgspec.structs import replace
from tornado.iostream import StreamClosedError

from protocol import wire
from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.callers import is_foreign
from protocol.api.content import cut, part_of_log, pump, send_artifact
from protocol.api.log_in import log_in
from protocol.api.people_port import PeoplePort
from protocol.api.route import Route
from protocol.api.traffic_ops import files
from protocol.api.traffic_ops.recipe import COMMAND, LABEL, to_order
from protocol.api.traffic_ops.settings import TrafficOpsSettings
from protocol.api.traffic_ops.wanted import Wanted, read
from protocol.errors import Denied, NotFound, PoolError, Unauthenticated, Unavailable
from protocol.model.build import Build, Result, State
from protocol.model.messages import BuildQuery
from protocol.ports.service import Caller

COOKIE = "mojolicious"
"""Who logged in by this family is known by it."""
RESOLV_CONF = Path("/etc/resolv.conf")

VERSION = r"(1\.[1-5]|2\.0|3\.[01]|4\.[01])"
"""Those of Traffic Ops, in a path."""
_MADE = "Generate ISO was successful."
_LAST = 1024  # bytes of a failed build's log that are looked at for its last line
_LOG_IN = "Unauthorized, please log in."
_FORBIDDEN = "Forbidden"


class LogIn(Struct, frozen=True):
    """The body of `POST /user/login`."""

    u: str
    p: str


class Family(Handler):
    """What the family's handlers share: its headers, its cookie, and alerts."""

    CORS: ClassVar[bool] = True
    PRODUCES: ClassVar[tuple[str, ...]] = ()

    def set_default_headers(self) -> None:
        """As the document has them."""
        super().set_default_headers()
        self.set_header("Access-Control-Allow-Credentials", "true")
        self.set_header(
            "Access-Control-Allow-Headers", "Origin, X-Requested-With, Content-Type, Accept"
        )
        self.set_header("Access-Control-Allow-Methods", "POST,GET,OPTIONS,PUT,DELETE")
        self.set_header("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate")

    @property
    def own(self) -> TrafficOpsSettings:
        """What the operator set for this family: a table of each program's settings."""
        settings: Any = self.limits
        table: TrafficOpsSettings = settings.traffic_ops
        return table

    @property
    def people(self) -> PeoplePort:
        """Those of this program."""
        port: PeoplePort = self.context.extras["people"]
        return port

    def who_asks(self) -> Caller:
        """Whoever has the family's cookie, or else as everywhere."""
        cookie = self.request.cookies.get(COOKIE)
        if cookie is None or "Authorization" in self.request.headers:
            return super().who_asks()
        self.check_own_page()
        return self.people.callers.by_session(self.request, cookie.value)

    def check_own_page(self) -> None:
        """Raises Denied where a page of another origin asks, which may not use the cookie."""
        if is_foreign(self.request, self.limits.public_url):
            raise Denied("pages of other origins may not use this cookie", field="Origin")

    def render_error(self, status: int, error: PoolError) -> None:
        """An alert, in the original's words where it had some."""
        text = error.detail
        if isinstance(error, Unauthenticated):
            text = _LOG_IN
        elif isinstance(error, Denied) and not error.field:  # for the role of who asks
            text = _FORBIDDEN
        self.alerts(status, "error", [text])

    def alerts(self, status: int, level: str, texts: Iterable[str], response: Any = None) -> None:
        """End the request with these, and with a response where there is one."""
        body: dict[str, Any] = {"alerts": [{"level": level, "text": text} for text in texts]}
        if response is not None:
            body["response"] = response
        self.answer(status, body)

    def answer(self, status: int, body: dict[str, Any]) -> None:
        """End the request with this, and its digest."""
        data = wire.encode(body)
        self.set_status(status)
        self.set_header("Content-Type", wire.JSON)
        self.set_header("Vary", "Accept-Encoding")
        digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
        self.set_header("Whole-Content-Sha512", digest)
        self.finish(data)


class Login(Family):
    """Saying who one is."""

    async def post(self, _version: str) -> None:
        """A cookie for the right password."""
        self.check_own_page()
        given = self.decoded(LogIn)
        try:
            await log_in(self, self.people, given.u, given.p, cookie=COOKIE)
        except Unauthenticated:
            self.alerts(401, "error", ["Invalid username or password."])
            return
        self.alerts(200, "success", ["Successfully logged in."])


class Logout(Family):
    """Being nobody again."""

    async def post(self, _version: str) -> None:
        """End the session; for who has none it is over already."""
        cookie = self.request.cookies.get(COOKIE)
        if cookie is not None:
            with suppress(Denied):
                await self.people.accounts.end_session(cookie.value)
        self.clear_cookie(COOKIE, path="/", samesite="Strict")
        self.alerts(200, "success", ["You are logged out."])


class OsVersions(Family):
    """What ISOs can be made of."""

    def get(self, _version: str) -> None:
        """Titles, with what a request calls them."""
        versions = self.own.os_versions
        self.answer(200, {"response": {one.title: name for name, one in versions.items()}})


class Isos(Family):
    """Asking for an ISO."""

    async def post(self, version: str) -> None:
        """Build it, and send it while it is made, or say where it can be had."""
        given = self.read(self.whole_body(), dict[str, Any])
        wanted = read(given, self.own.os_versions)
        if not isinstance(wanted, Wanted):
            self.alerts(400, "error", wanted)
            return
        if not version.startswith("1."):
            wanted = replace(wanted, stream=True)
        self.url("")  # a Host header that names no host is refused before anything is started
        build = await self._begun(wanted)
        async with AsyncExitStack() as opened:  # closed after the cancel: nobody's fault but ours
            try:
                if wanted.stream:
                    await self._stream(build, wanted.iso, opened)
                else:
                    await self._link(build, wanted.iso)
            except _Broken as error:  # the build's end says why
                cut(self)
                raise StreamClosedError(error) from error
            except BaseException:  # nobody gets it any more
                with suppress(PoolError):
                    await self.service.cancel(self.caller, build.id)
                raise

    async def _begun(self, wanted: Wanted) -> Build:
        order = to_order(wanted, self.own, self.own.name_servers or _own_name_servers())
        return await self.service.submit(self.caller, order.request, secrets=order.secrets)

    async def _link(self, build: Build, name: str) -> None:
        ended = await self._until(build, lambda _: False)
        if ended.result is not Result.SUCCEEDED:
            raise await self._failed(ended)
        response = {"isoURL": self.url(f"/iso/{name}"), "isoName": name}
        self.alerts(200, "success", [_MADE], response)

    async def _stream(self, build: Build, name: str, stack: AsyncExitStack) -> None:
        """The head goes out with the first byte: until then a failure can be told."""
        begun = await self._until(build, lambda build: bool(build.artifacts))
        if not begun.artifacts:
            raise await self._failed(begun)
        opened = await self.service.open_artifact(self.caller, build.id, name)
        stack.push_async_callback(opened.stream.close)
        pieces = aiter(opened.stream)
        first = await self._first(pieces, build)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        await pump(self, _Begun(first, pieces))
        self.finish()

    async def _first(self, pieces: AsyncIterator[bytes], build: Build) -> bytes:
        """Raises PoolError where none comes."""
        try:
            return await self.unless_gone(anext(pieces))
        except (Unavailable, StopAsyncIteration):
            raise await self._failed(await self._until(build, lambda _: False)) from None

    async def _until(self, build: Build, seen: Callable[[Build], bool]) -> Build:
        """The build as soon as it looks like that, or has ended."""
        while not seen(build) and build.state is not State.STOPPED:
            held = self.service.get(
                self.caller, build.id, after=build.revision, wait=self.limits.wait_limit
            )
            build = await self.unless_gone(held)
        return build

    async def _failed(self, build: Build) -> PoolError:
        """Why there is no ISO, with the last that was said where it is made."""
        reason = build.reason or "nothing was written"
        for command in build.commands:
            if command.name == COMMAND and command.start is not None:
                end = command.end if command.end is not None else build.log_size
                start = max(command.start, end - _LAST)
                with suppress(PoolError):  # the log is out of reach
                    lines = (await part_of_log(self, build, start, end)).split(b"\n")
                    said = [line.decode(errors="replace") for line in lines if line.strip()]
                    reason = ": ".join([reason, *said[-1:]])
        return PoolError(f"unable to generate ISO: {reason}; see /api/v1/builds/{build.id}/log")


class Iso(Family):
    """Where an `isoURL` leads."""

    async def get(self, name: str) -> None:
        """The newest ISO of this name that the caller had made."""
        query = BuildQuery(
            limit=1,
            status=State.STOPPED,
            result=Result.SUCCEEDED,
            owner=self.caller.owner,
            labels=(f"{LABEL}={name}",),
        )
        for build in (await self.service.list(self.caller, query)).builds:
            for artifact in build.artifacts:
                if artifact.kept:
                    await send_artifact(self, build.id, artifact, name)
                    return
        raise NotFound(f"there is no ISO {name[:128]!r}", field="name")

    head = get


class _Broken(Exception):
    """The ISO broke off where it came from."""


class _Begun:
    """A stream of which the first piece is here already. Raises _Broken."""

    def __init__(self, first: bytes, pieces: AsyncIterator[bytes]) -> None:
        self._first = first
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        try:
            async for piece in self._pieces:
                yield piece
        except PoolError as error:
            raise _Broken(error.detail) from error

    async def close(self) -> None:
        """Whoever opened the stream closes it."""


def _own_name_servers() -> tuple[str, ...]:
    try:
        return files.name_servers(RESOLV_CONF.read_text(encoding="utf-8", errors="replace"))
    except OSError:  # a machine without
        return ()


ROUTES = (
    Route(f"/api/{VERSION}/isos", Isos, {"POST": Permission.ISOS}),
    Route(f"/api/{VERSION}/osversions", OsVersions, {"GET": Permission.ROSTER}),
    Route(f"/api/{VERSION}/user/login", Login, {"POST": Permission.STATUS}),
    Route(f"/api/{VERSION}/user/logout", Logout, {"POST": Permission.STATUS}),
    Route(r"/iso/([^/]{1,255})", Iso, {"GET": Permission.READ, "HEAD": Permission.READ}),
)

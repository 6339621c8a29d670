"""What all API families share: routes with permissions, bodies with limits, answers by media type,
errors by one table.

A family is a module with a `ROUTES` tuple of `Route`. Its handlers derive from `Handler`, get the
service as `self.service`, and translate: body to request, build to reply. Errors are rendered by
`render_error`, which a family overrides for its own dialect.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

from tornado import web
from tornado.iostream import StreamClosedError

from protocol import wire
from protocol.api import access, callers
from protocol.api.negotiation import preferred
from protocol.api.operation import check_arguments
from protocol.api.own_url import own_url
from protocol.api.problems import STATUS, problem, translated
from protocol.api.route import Context, Route
from protocol.api.standing import Standing
from protocol.errors import (
    Busy,
    Denied,
    Invalid,
    PoolError,
    TooLarge,
    Unauthenticated,
    Unsatisfiable,
)
from protocol.model import idempotency
from protocol.ports.service import Caller, Role

log = logging.getLogger(__name__)
T = TypeVar("T")

DRAIN = 64 << 20
"""Bytes over the limit that are still read, and dropped, before a body is refused."""

STRANGERS = 64 << 10
"""Bytes of a body that counts, of those whom nobody knows: enough to log in, or to ask to join.
Many of them together have as many bytes in memory as they may have connections, times this.
"""

FORM = "application/x-www-form-urlencoded"
"""What curl says of a body unless it is told otherwise."""

_YES = {"1", "true", "yes"}
_NO = {"0", "false", "no"}
_NUMBER = re.compile(r"\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,3})?", re.ASCII)


@web.stream_request_body
class Handler(web.RequestHandler):
    """A request of any family: checked before its body is read, answered in JSON or msgpack."""

    CORS: ClassVar[bool] = False  # pages of other origins may use this family
    NOTED: ClassVar[bool] = False  # what it does is written down whoever asks, not for people only
    PRODUCES: ClassVar[tuple[str, ...]] = (wire.JSON, wire.MSGPACK)
    """Media types of which a client of `/api/` must take one; none: it gets what there is."""

    def initialize(self, context: Context, route: Route) -> None:
        """Called by Tornado for each request."""
        self.context = context
        self.service = context.service
        self.limits = context.settings
        self.route = route
        self.caller = Caller(owner="", role=Role.NOBODY)
        self.body = bytearray()
        self.received = 0
        self.heard = False  # the head says nothing that is wrong
        self.gone = asyncio.Event()  # set when the client has hung up
        self._standing: Standing | None = None  # while it is answered
        self.setup(**route.options)

    def setup(self, **options: Any) -> None:
        """For families: take the route's options."""

    def set_default_headers(self) -> None:
        """Called by Tornado before the method, and again for errors."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        if self.CORS:
            self.set_header("Access-Control-Allow-Origin", "*")
            self.set_header("Access-Control-Expose-Headers", "Location, Content-Range, ETag")

    def prepare(self) -> None:
        """Called when the headers are there and the body is not: what is refused here costs
        nothing.
        """
        if self.request.method == "OPTIONS" and self.CORS:
            return
        permission = self.route.permissions.get(self.request.method or "")
        if permission is None:
            raise web.HTTPError(405)
        self.caller = self.context.callers.caller_of(self.request)
        access.check(self.caller, permission)
        self._standing = Standing(partial(self._may_still, self.caller, permission), self._cut)
        self._check_origin()
        self._check_accepted()
        operation = self.route.operations.get(self.request.method or "")
        if operation is not None and self.route.path.startswith("/api/v1/"):
            check_arguments(operation, self.request.query_arguments)
        bound = self.bound()
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > bound:
            raise self.too_large(bound - DRAIN)
        self.request.connection.set_max_body_size(bound)  # type: ignore[union-attr]
        self.heard = True

    def bound(self) -> int:
        """Bytes of a body that are read at all; a handler that passes them on may take more."""
        return self.most + DRAIN

    def _may_still(self, before: Caller, permission: access.Permission) -> bool:
        """Whether who asked would be let in now, as the same."""
        if self.request.connection.stream.closed():  # type: ignore[union-attr]
            return False
        try:
            caller = self.context.callers.caller_of(self.request)
            access.check(caller, permission)
        except PoolError:
            return False
        return (caller.owner, caller.program) == (before.owner, before.program)

    def _cut(self) -> None:
        self.request.connection.stream.close()  # type: ignore[union-attr]

    def _check_origin(self) -> None:
        """Raises Denied where a page of another origin would change something. It could not read
        the answer, but does not need to.
        """
        harmless = self.request.method in callers.HARMLESS or self.CORS
        if not harmless and callers.is_foreign(self.request, self.limits.public_url):
            raise Denied(
                "pages of other origins may not ask for this here",
                field="Origin",
                expected="none, or that of this program",
            )

    def _check_accepted(self) -> None:
        strict = self.route.path.startswith("/api/") and self.PRODUCES
        if strict and preferred(self.request.headers.get("Accept", ""), self.PRODUCES) is None:
            raise web.HTTPError(406)

    def data_received(self, chunk: bytes) -> None:
        """Called for each piece of the body: what is over the limit is read and dropped, so that
        the client hears why.
        """
        self.received += len(chunk)
        if self.received > self.most:
            self.body.clear()
        else:
            self.body += chunk

    def options(self, *_: str) -> None:
        """A browser asks whether a page of another origin may call."""
        if not self.CORS:
            raise web.HTTPError(405)
        self.set_status(204)
        self.set_header(
            "Access-Control-Allow-Methods", ", ".join([*sorted(self.route.permissions), "OPTIONS"])
        )
        self.set_header(
            "Access-Control-Allow-Headers",
            "Origin, Accept, Content-Type, X-Requested-With, X-CSRF-Token, Range, Idempotency-Key",
        )
        self.set_header("Access-Control-Max-Age", "600")

    def on_connection_close(self) -> None:
        """Called when the client hangs up before the answer: what waits for its body ends."""
        super().on_connection_close()
        self.gone.set()
        self._end_standing()

    def on_finish(self) -> None:
        """Called by Tornado when all is said."""
        self._end_standing()

    def _end_standing(self) -> None:
        if self._standing is not None:
            self._standing.end()

    # Reading what the client said

    def media_type(self) -> str:
        """The body's media type; JSON where none is given, and where curl says that it is a
        form.
        """
        given = self.request.headers.get("Content-Type", wire.JSON)
        return given.partition(";")[0].strip().lower()

    def decoded(self, kind: type[T]) -> T:
        """The body as a value of this type. Raises Invalid."""
        media_type = self.media_type()
        if media_type == FORM:
            media_type = wire.JSON
        return self.read(self.whole_body(), kind, media_type)

    def read(self, body: bytes, kind: type[T], media_type: str = wire.JSON) -> T:
        """A value of this type, from what is a body or was in one. Raises Invalid."""
        limits = self.limits
        return wire.decode(
            body,
            kind,
            media_type,
            limit=limits.body_limit,
            nesting=limits.nesting_limit,
            values=limits.value_limit,
        )

    @property
    def most(self) -> int:
        """Bytes of a body that count, of this caller."""
        limit = self.limits.body_limit
        return min(limit, STRANGERS) if self.caller.role is Role.NOBODY else limit

    def whole_body(self) -> bytes:
        """The body. Raises TooLarge."""
        if self.received > self.most:
            raise self.too_large(self.most)
        return bytes(self.body)

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """A number in the query. Raises Invalid where it is none, or outside its bounds."""
        text = self.get_query_argument(name, None, strip=False)
        if text is None:
            return default
        value = float(text) if _NUMBER.fullmatch(text) else float("nan")
        if not low <= value <= high:
            raise Invalid(
                f"{name} is {text[:40]!r}",
                field=name,
                expected=f"a number from {low:g} to {high:g}",
            )
        return value

    def whole(self, name: str, *, high: int = 1 << 62) -> int | None:
        """A whole number from 0 in the query; None where it is not given. Raises Invalid."""
        text = self.get_query_argument(name, None, strip=False)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= high):
            raise Invalid(
                f"{name} is {text[:40]!r}", field=name, expected=f"a whole number from 0 to {high}"
            )
        return int(text)

    def truth(self, name: str) -> bool:
        """Yes or no in the query; no where it is not given. Raises Invalid."""
        text = self.get_query_argument(name, "no", strip=False)
        if text not in _YES | _NO:
            raise Invalid(f"{name} is {text[:40]!r}", field=name, expected="true or false")
        return text in _YES

    def idempotency_key(self) -> str:
        """What the client knows this create by; empty where it gave nothing. Raises Invalid."""
        given = self.request.headers.get(idempotency.HEADER)
        return "" if given is None else idempotency.check_key(given)

    def wait_seconds(self) -> float:
        """How long the client lets this request be held."""
        limit = self.limits.wait_limit
        return min(self.number("wait", 0, low=0, high=86400), limit)

    # Answering

    def wants_msgpack(self) -> bool:
        """Whether the client would rather have msgpack than JSON."""
        accept = self.request.headers.get("Accept", "")
        return preferred(accept, (wire.JSON, wire.MSGPACK)) == wire.MSGPACK

    def reply(self, value: Any, status: int = 200) -> None:
        """End the request with this value, in the format that the client asked for."""
        media_type = wire.MSGPACK if self.wants_msgpack() else wire.JSON
        self.set_status(status)
        self.set_header("Content-Type", media_type)
        self.set_header("Vary", "Accept")
        self.finish(wire.encode(value, media_type))

    def url(self, path: str) -> str:
        """The URL of a path of this program, as the client can reach it."""
        if self.limits.relative_urls:
            return path
        return (self.limits.public_url.rstrip("/") or own_url(self.request)) + path

    async def unless_gone(
        self,
        awaitable: Awaitable[T],
        *,
        every: float | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> T:
        """The awaitable's value, with something done every so many seconds meanwhile; where the
        client hangs up first, it is cancelled and the request dropped (StreamClosedError).
        """
        task = asyncio.ensure_future(awaitable)
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            while not task.done() and not gone.done():
                await asyncio.wait({task, gone}, timeout=every, return_when=asyncio.FIRST_COMPLETED)
                if not task.done() and not gone.done():
                    meanwhile()
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
        if not task.done() or task.cancelled():
            raise StreamClosedError
        return task.result()

    # Errors

    def render_error(self, status: int, error: PoolError) -> None:
        """End the request with an error in this family's dialect; here
        `application/problem+json`, or the same in msgpack.
        """
        media_type = wire.MSGPACK if self.wants_msgpack() else wire.PROBLEM
        self.set_header("Content-Type", media_type)
        self.set_header("Vary", "Accept")
        self.finish(wire.encode(problem(status, error), media_type))

    def send_error(self, status_code: int = 500, **details: Any) -> None:
        """Called by Tornado with whatever a handler raised: to one who hung up nothing is said."""
        error = details.get("exc_info", (None, None, None))[1]
        if isinstance(error, StreamClosedError):
            self.request.connection.stream.close()  # type: ignore[union-attr]
        elif not self.heard and self._may_read_on():
            # What is refused by its head is answered when the body is there, and dropped: Tornado
            # closes the connection of who is answered before, and that takes the answer with it.
            self.data_received = lambda chunk: None  # type: ignore[method-assign]
            answer = partial(super().send_error, status_code, **details)
            self.request._body_future.add_done_callback(lambda _: answer())
        else:
            super().send_error(status_code, **details)

    def _may_read_on(self) -> bool:
        """Whether the body is not there yet, and not too large to be read for nothing."""
        length = self.request.headers.get("Content-Length", "0")
        small = length.isdigit() and int(length) <= DRAIN
        waits = "Expect" in self.request.headers  # for our word
        return small and not waits and not self.request._body_future.done()

    def write_error(self, status_code: int, **details: Any) -> None:
        """Called by Tornado with whatever a handler raised."""
        error = details.get("exc_info", (None, None, None))[1]
        if not isinstance(error, PoolError):
            error = translated(status_code, error)
        status = STATUS[type(error)] if type(error) is not PoolError else status_code
        self.set_status(status)
        if isinstance(error, Unauthenticated):
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, Busy):
            self.set_header("Retry-After", str(error.retry_after))
        if isinstance(error, Unsatisfiable) and error.size is not None:
            self.set_header("Content-Range", f"bytes */{error.size}")
        if status == 405:
            error.expected = ", ".join(sorted(self.route.permissions))
            self.set_header("Allow", error.expected)
        self.render_error(status, error)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Called by Tornado for whatever a handler raised: only what nobody foresaw is worth a
        trace.
        """
        if isinstance(value, PoolError | web.HTTPError):
            log.info("%s %s: %s", self.request.method, self.request.path, value)
        elif not isinstance(value, StreamClosedError):
            log.error("%s %s", self.request.method, self.request.path, exc_info=(typ, value, tb))

    def too_large(self, limit: int) -> TooLarge:
        """The error of a body over the limit, in bytes."""
        return TooLarge(
            f"the body is over {limit} bytes", field="body", expected=f"at most {limit} bytes"
        )

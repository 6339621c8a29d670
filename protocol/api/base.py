"""What all API families share: routes with permissions, bodies with limits, answers by media type,
errors by one table.

A family is a module with a `ROUTES` tuple of `Route`. Its handlers derive from `Handler`, get the
service as `self.service`, and translate: body to request, build to reply. Errors are rendered by
`render_error`, which a family overrides for its own dialect.
"""

import asyncio
import logging
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
from protocol.api.reading import DRAIN, Reading
from protocol.api.route import Context, Route
from protocol.api.standing import Standing
from protocol.errors import Busy, Denied, PoolError, Unauthenticated, Unsatisfiable
from protocol.ports.service import Caller, Role
from protocol.trust.accounts import without_tokens

log = logging.getLogger(__name__)
T = TypeVar("T")


@web.stream_request_body
class Handler(Reading):
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
        self.caller = self.who_asks()
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

    def who_asks(self) -> Caller:
        """By what the request carries; a family may know people by something of its own besides."""
        return self.context.callers.caller_of(self.request)

    def _may_still(self, before: Caller, permission: access.Permission) -> bool:
        """Whether who asked would be let in now, as the same."""
        if self.request.connection.stream.closed():  # type: ignore[union-attr]
            return False
        try:
            caller = self.who_asks()
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
            words = without_tokens(f"{self.request.method} {self.request.path}: {value}")
            log.info("%s", words)
        elif not isinstance(value, StreamClosedError):
            log.error("%s %s", self.request.method, self.request.path, exc_info=(typ, value, tb))

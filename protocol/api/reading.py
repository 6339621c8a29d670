"""What a request says - body, query, headers - as values, within the limits of who says it."""

import re
from typing import TypeVar

from tornado import web

from protocol import wire
from protocol.api.route import ApiSettings
from protocol.errors import Invalid, TooLarge
from protocol.model import idempotency
from protocol.ports.service import Caller, Role

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


class Reading(web.RequestHandler):
    """The part of a handler that reads. Whoever derives from it sets these for each request."""

    limits: ApiSettings
    caller: Caller
    body: bytearray  # so far, as long as it is within its limit
    received: int  # bytes of the body so far

    def data_received(self, chunk: bytes) -> None:
        """Called for each piece of the body: what is over the limit is read and dropped, so that
        the client hears why.
        """
        self.received += len(chunk)
        if self.received > self.most:
            self.body.clear()
        else:
            self.body += chunk

    def bound(self) -> int:
        """Bytes of a body that are read at all; a handler that passes them on may take more."""
        return self.most + DRAIN

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

    def too_large(self, limit: int) -> TooLarge:
        """The error of a body over the limit, in bytes."""
        return TooLarge(
            f"the body is over {limit} bytes", field="body", expected=f"at most {limit} bytes"
        )

"""Errors on their way to a client: the one table from class to HTTP status, and foreign errors
made ours.
"""

import logging
import secrets
from http.client import responses

from tornado import web

from protocol import wire
from protocol.errors import (
    Busy,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PoolError,
    TooLarge,
    TooOften,
    Unauthenticated,
    Unavailable,
    Unproven,
    Unreachable,
    Unsatisfiable,
    Unsupported,
)
from protocol.model.messages import Problem

log = logging.getLogger(__name__)

STATUS: dict[type[PoolError], int] = {
    PoolError: 500,
    Invalid: 400,
    TooLarge: 413,
    Unsupported: 415,
    Unsatisfiable: 416,
    Unauthenticated: 401,
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    Busy: 503,
    TooOften: 429,
    Unavailable: 502,
    Unreachable: 502,
    Unproven: 502,
}


def problem(status: int, error: PoolError) -> Problem:
    """What a client is told of an error (RFC 9457)."""
    kind = type(error)
    title = (kind.__doc__ or "").strip().splitlines()[0]
    return Problem(
        type=f"urn:imagepool:{kind.__name__}",
        title=responses.get(status, title) if kind is PoolError else title,
        status=status,
        detail=error.detail,
        field=error.field,
        pointer=wire.pointer(error.field),
        expected=error.expected,
    )


def translated(status: int, error: BaseException | None) -> PoolError:
    """Tornado's own errors, and bugs, as one of ours: nothing of a trace reaches a client."""
    if isinstance(error, web.MissingArgumentError):
        return Invalid(
            f"{error.arg_name} is missing", field=error.arg_name or "", expected="to be given"
        )
    if status == 404:
        return NotFound("there is nothing at this path", field="path")
    if status == 406:
        return PoolError(
            "none of the media types that you accept is served here",
            field="Accept",
            expected=f"{wire.JSON} or {wire.MSGPACK}",
        )
    if 400 <= status < 500 and status != 405:
        return Invalid("the request could not be read", field="request", expected="valid HTTP")
    if status == 405:
        return PoolError("this method is not served here", field="method")
    reference = secrets.token_hex(4)
    log.error("answering 500, reference %s", reference)
    return PoolError(f"something went wrong here; the program's log has it as {reference}")

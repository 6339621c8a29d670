"""Errors on their way to a client: the one table from class to HTTP status, and foreign errors
made ours.
"""

import logging
import secrets

from tornado import web

from protocol.errors import (
    Busy,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PoolError,
    TooLarge,
    Unavailable,
    Unreachable,
    Unsatisfiable,
    Unsupported,
)

log = logging.getLogger(__name__)

STATUS: dict[type[PoolError], int] = {
    PoolError: 500,
    Invalid: 400,
    TooLarge: 413,
    Unsupported: 415,
    Unsatisfiable: 416,
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    Busy: 503,
    Unavailable: 502,
    Unreachable: 502,
}


def translated(status: int, error: BaseException | None) -> PoolError:
    """Tornado's own errors, and bugs, as one of ours: nothing of a trace reaches a client."""
    if isinstance(error, web.MissingArgumentError):
        return Invalid(
            f"{error.arg_name} is missing", field=error.arg_name or "", expected="to be given"
        )
    if status == 404:
        return NotFound("there is nothing at this path", field="path")
    if 400 <= status < 500 and status != 405:
        return Invalid("the request could not be read", field="request", expected="valid HTTP")
    if status == 405:
        return PoolError("this method is not served here", field="method")
    reference = secrets.token_hex(4)
    log.error("answering 500, reference %s", reference)
    return PoolError(f"something went wrong here; the program's log has it as {reference}")

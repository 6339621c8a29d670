"""The one tree of errors that cross an interface of this project.

The docstring of a class is the title that people read; the instance says what happened. Each API
family renders these in its own dialect; the HTTP status of each class is decided once, in
`protocol/api/problems.py`::

    PoolError
    ├── Invalid            the request is wrong: names the field and what was expected
    │   ├── TooLarge       a body or value is over its limit
    │   ├── Unsupported    a media type or method that is not served
    │   └── Unsatisfiable  a byte range outside the artifact
    ├── Unauthenticated    nothing, or nothing valid, says who the caller is
    ├── Denied             the caller may not do this, or the operator does not allow it
    ├── NotFound           no such build, artifact, node
    ├── Conflict           the request contradicts what is already there
    ├── Busy               no room now: try again after the stated time
    │   └── TooOften       the caller asks, or fails, more often than is allowed
    └── Unavailable        somebody behind us (engine, node, scheduler) does not answer
        └── Unreachable    there was not even a connection: what we said was never heard
            └── Unproven   who answers does not prove to be whom we mean


"""


class PoolError(Exception):
    """The request could not be served."""

    def __init__(self, detail: str, *, field: str = "", expected: str = "") -> None:
        """`field` names what was wrong (`commands[0].name`), `expected` what would have been
        right.
        """
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.expected = expected


class Invalid(PoolError):
    """The request is not valid."""


class TooLarge(Invalid):
    """The request is too large."""


class Unsupported(Invalid):
    """This is not served here."""


class Unsatisfiable(Invalid):
    """The range cannot be satisfied."""

    def __init__(
        self, detail: str, *, size: int | None, field: str = "", expected: str = ""
    ) -> None:
        """`size`: the whole artifact's, in bytes; None where it still grows."""
        super().__init__(detail, field=field, expected=expected)
        self.size = size


class Unauthenticated(PoolError):
    """It is not known who asks."""


class Denied(PoolError):
    """This is not allowed."""


class NotFound(PoolError):
    """There is no such thing."""


class Conflict(PoolError):
    """This contradicts what is already there."""


class Busy(PoolError):
    """There is no room now."""

    def __init__(
        self, detail: str, *, retry_after: int = 5, field: str = "", expected: str = ""
    ) -> None:
        """`retry_after`: seconds after which another try makes sense."""
        super().__init__(detail, field=field, expected=expected)
        self.retry_after = retry_after


class TooOften(Busy):
    """This was asked too often."""


class Unavailable(PoolError):
    """Somebody this depends on does not answer."""

    foreign = False  # what answers there is no program of ours: likely the address is wrong


class Unreachable(Unavailable):
    """There is no connection to it."""


class Unproven(Unreachable):
    """It does not prove who it is."""


ERRORS: dict[str, type[PoolError]] = {
    cls.__name__: cls
    for cls in (
        PoolError,
        Invalid,
        TooLarge,
        Unsupported,
        Unsatisfiable,
        Unauthenticated,
        Denied,
        NotFound,
        Conflict,
        Busy,
        TooOften,
        Unavailable,
        Unreachable,
        Unproven,
    )
}

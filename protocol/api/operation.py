"""What a route says of itself, as values: the document of the API is made of them
(`protocol/api/openapi.py`), with the types that validate.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol import wire
from protocol.errors import Invalid

BYTES = "application/octet-stream"

BOTH = (wire.JSON, wire.MSGPACK)

Truth = Annotated[str, Meta(pattern=r"^(1|true|yes|0|false|no)$(?!\n)")]
Whole = Annotated[int, Meta(ge=0, le=1 << 62)]
Seconds = Annotated[float, Meta(ge=0, le=86400)]
PositionText = Annotated[str, Meta(pattern=r"^([0-9]{1,18}:)?[0-9]{1,18}$(?!\n)")]


class Argument(Struct, frozen=True):
    """Something in the query or the head of a request; never required."""

    name: str
    kind: Any  # the type that its value must be of
    about: str
    place: str = "query"  # or "header"


class Answer(Struct, frozen=True):
    """What comes with a status."""

    about: str
    kind: Any = None  # type of the body; None: there is none, or it is bytes
    media_types: tuple[str, ...] = BOTH
    headers: Mapping[str, str] = {}  # name -> what it says


class Operation(Struct, frozen=True):
    """What a method of a route does."""

    about: str  # the first line is the title
    answers: Mapping[int, Answer]
    arguments: tuple[Argument, ...] = ()
    body: Any = None  # type of the request's body; None: it has none, or it is not JSON
    body_media_types: tuple[str, ...] = ()  # empty: JSON and msgpack, where there is a type
    body_optional: bool = False
    errors: tuple[int, ...] = ()  # statuses beyond those that follow from the rest


HOLD = Argument("wait", Seconds, "seconds that the answer may be held while nothing changes")
AFTER = Argument("after", Whole, "the revision that you know: held while it is that one")
KEY = Argument(
    "Idempotency-Key",
    Annotated[str, Meta(pattern=r"^[!-~]{1,255}$(?!\n)")],
    "of your choice: for a day the same key and request give the same build",
    "header",
)
OWNER = Argument(
    "Imagepool-Owner",
    Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$(?!\n)")],
    "whose builds these are",
    "header",
)


def check_arguments(operation: Operation, given: Iterable[str]) -> None:
    """Raises Invalid for an argument of the query that the operation does not have: one that is
    misspelt would change what is answered, and nobody would notice.
    """
    known = [argument.name for argument in operation.arguments if argument.place == "query"]
    for name in given:
        if name not in known:
            raise Invalid(
                f"there is no argument {name[:40]!r} here",
                field=name[:40],
                expected=f"one of: {', '.join(known)}" if known else "no arguments",
            )


def done(about: str) -> Mapping[int, Answer]:
    """The answers of what has nothing to say but that it was done."""
    return {204: Answer(about)}


def answered(kind: Any, about: str) -> Mapping[int, Answer]:
    """The answers of what tells a value."""
    return {200: Answer(about, kind)}

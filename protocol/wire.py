"""Bytes to typed values and back: JSON for people and their programs, msgpack between programs, by
media type.

msgpack unpacks, with its limits; msgspec makes typed values of plain ones. Whatever is wrong with
the bytes ends as `Invalid`, with the same words for both formats: the field by its path
(`commands[0].name`) and what was expected.
"""

import math
import re
from itertools import islice
from typing import Any, TypeVar

import msgpack
import msgspec

from protocol.errors import Invalid, Unsupported
from protocol.wording import refusal

JSON = "application/json"
MSGPACK = "application/msgpack"
PROBLEM = "application/problem+json"

NESTING = 64
"""Lists and maps in each other that a body may have, unless a setting says otherwise."""
VALUES = 500_000
"""Values and names in it, likewise. These are read in half a second; a body of 16 MiB could have so
many that it takes 20.
"""

T = TypeVar("T")


def encode(value: Any, media_type: str = JSON) -> bytes:
    """The bytes of a value: structs become maps, enums their values."""
    if media_type == MSGPACK:
        packed = msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)))
        return packed if packed is not None else b""
    return msgspec.json.encode(value)


def decode(
    body: bytes,
    kind: type[T],
    media_type: str = JSON,
    *,
    limit: int = 16 << 20,
    nesting: int = NESTING,
    values: int = VALUES,
) -> T:
    """A value of this type; `limit`: bytes; `nesting`: lists and maps in each other; `values`:
    values and names in it. Raises Invalid (naming the field), Unsupported (media type).
    """
    if media_type == MSGPACK:
        return convert(_shallow(_unpacked(body, limit, values), nesting), kind)
    if media_type != JSON:
        raise Unsupported(
            f"the body is {media_type!r}", field="Content-Type", expected=f"{JSON} or {MSGPACK}"
        )
    if _crowded(body, values):
        raise _too_many(values)
    return convert(_shallow(_parsed(body), nesting), kind)


def convert(plain: Any, kind: type[T]) -> T:
    """A typed value of a plain one (maps, lists, strings, numbers). Raises Invalid, naming the
    field.
    """
    try:
        return msgspec.convert(plain, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise refusal(str(error), kind) from error


def pointer(field: str) -> str:
    """The JSON pointer (RFC 6901) of a field path: `commands[0].name` -> `/commands/0/name`."""
    parts = [part for part in re.split(r"[.\[\]]+", field) if part]
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _number(text: str) -> float | int:
    """A number with a fraction or an exponent; a whole one is an integer, as in JSON Schema."""
    value = float(text)
    if not math.isfinite(value):
        raise msgspec.DecodeError("a number is out of range")
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


_JSON = msgspec.json.Decoder(float_hook=_number)


def _parsed(body: bytes) -> Any:
    if not body.strip():
        raise Invalid("the body is not JSON: it is empty", field="body", expected="a JSON object")
    try:
        return _JSON.decode(body)
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", field="body", expected="UTF-8 text") from error
    except RecursionError as error:
        raise Invalid("the body is nested too deep", field="body", expected="plain JSON") from error
    except msgspec.MsgspecError as error:
        raise Invalid(
            f"the body is not JSON: {error}", field="body", expected="a JSON object"
        ) from error


def _shallow(plain: Any, nesting: int) -> Any:
    """The value itself, where it is nested no deeper. Raises Invalid."""
    level = [plain] if isinstance(plain, list | dict) else []
    for _ in range(nesting):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for values in inner for each in values if isinstance(each, list | dict)]
        if not level:
            return plain
    raise Invalid(
        "the body is nested too deep",
        field="body",
        expected=f"at most {nesting} lists and maps in each other",
    )


_MARKS = (b",", b":", b"[", b"{")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[,:\[{]', re.DOTALL)


def _crowded(body: bytes, most: int) -> bool:
    """Whether JSON has too many values and names: certainly where there are more than twice as
    many, never where there are no more. A comma within a string is none.
    """
    if sum(body.count(mark) for mark in _MARKS) <= most:
        return False
    tokens = islice(_TOKEN.finditer(body), 2 * most + 2)  # each has two at most, and the whole
    return sum(1 for _ in tokens) == 2 * most + 2


class _Counting:
    """Lists and maps as they are unpacked: refused before they are too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = 2 * most  # a list counts in what it is in, and by itself

    def __call__(self, unpacked: Any) -> Any:
        self._left -= 1 + len(unpacked) * (2 if isinstance(unpacked, dict) else 1)
        if self._left < 0:
            raise _too_many(self._most)
        return unpacked


def _too_many(most: int) -> Invalid:
    return Invalid("the body has too many values", field="body", expected=f"at most {most}")


def _unpacked(body: bytes, limit: int, values: int) -> Any:
    counting = _Counting(values)
    try:
        unpacker = msgpack.Unpacker(
            max_buffer_size=limit,
            max_array_len=values,
            max_map_len=values,
            list_hook=counting,
            object_hook=counting,
            strict_map_key=True,
        )
        unpacker.feed(body)
        value = unpacker.unpack()
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise _no_msgpack(_what_is_wrong(error, body)) from error
    if unpacker.tell() != len(body):
        raise _no_msgpack(f"{len(body) - unpacker.tell()} bytes follow behind its end")
    return value


def _what_is_wrong(error: Exception, body: bytes) -> str:
    match error:
        case msgpack.OutOfData():
            return "it ends too early" if body else "it is empty"
        case msgpack.StackError() | RecursionError():
            return "it is nested too deep"
        case msgpack.FormatError():
            return "a byte in it begins no value"
        case UnicodeDecodeError():
            return "a text in it is not UTF-8"
        case _ if "map key" in str(error):
            return "a name in a map is no text"
        case _:
            return str(error) or "it cannot be read"


def _no_msgpack(why: str) -> Invalid:
    return Invalid(f"the body is not msgpack: {why}", field="body", expected="one msgpack map")

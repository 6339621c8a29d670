"""Bytes to typed values and back: JSON for people and their programs, msgpack between programs, by
media type.

msgpack unpacks, with its limits; msgspec makes typed values of plain ones. Whatever is wrong with
the bytes ends as `Invalid`, with the same words for both formats: the field by its path
(`commands[0].name`) and what was expected.
"""

import math
import re
from typing import Any, TypeVar

import msgpack
import msgspec

from protocol.errors import Invalid, Unsupported

JSON = "application/json"
MSGPACK = "application/msgpack"
PROBLEM = "application/problem+json"

T = TypeVar("T")

_AT = re.compile(r" - at (`key` in )?`\$(?P<path>.*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")
_UNKNOWN = re.compile(r"contains unknown field `(?P<name>[^`]*)`")


def encode(value: Any, media_type: str = JSON) -> bytes:
    """The bytes of a value: structs become maps, enums their values."""
    if media_type == MSGPACK:
        packed = msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)))
        return packed if packed is not None else b""
    return msgspec.json.encode(value)


def decode(body: bytes, kind: type[T], media_type: str = JSON, *, limit: int = 16 << 20) -> T:
    """A value of this type. Raises Invalid (naming the field), Unsupported (media type)."""
    if media_type == MSGPACK:
        return convert(_unpacked(body, limit), kind)
    if media_type != JSON:
        raise Unsupported(
            f"the body is {media_type!r}", field="Content-Type", expected=f"{JSON} or {MSGPACK}"
        )
    return convert(_parsed(body), kind)


def convert(plain: Any, kind: type[T]) -> T:
    """A typed value of a plain one (maps, lists, strings, numbers). Raises Invalid, naming the
    field.
    """
    try:
        return msgspec.convert(plain, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error


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


def _unpacked(body: bytes, limit: int) -> Any:
    try:
        unpacker = msgpack.Unpacker(max_buffer_size=limit, strict_map_key=True)
        unpacker.feed(body)
        value = unpacker.unpack()
        if unpacker.tell() != len(body):
            raise ValueError(f"{len(body) - unpacker.tell()} bytes follow")
        return value
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Invalid(
            f"the body is not msgpack: {error or type(error).__name__}",
            field="body",
            expected="one msgpack map",
        ) from error


def _invalid(message: str) -> Invalid:
    """msgspec's sentence as an error that names the field: "Expected `str`, got `int` - at
    `$.commands[0].name`".
    """
    at = _AT.search(message)
    path = at["path"].lstrip(".") if at else ""
    text = message[: at.start()] if at else message
    if missing := _MISSING.search(text):
        field = ".".join(filter(None, (path, missing["name"])))
        return Invalid(f"{field} is missing", field=field, expected="to be given")
    if unknown := _UNKNOWN.search(text):
        field = ".".join(filter(None, (path, unknown["name"])))
        return Invalid(f"{field} is not known here", field=field, expected="not to be given")
    field = path or "body"
    expected = text.partition(", got ")[0].removeprefix("Expected ").strip()
    return Invalid(f"{field}: {text[:300]}", field=field, expected=expected[:300])

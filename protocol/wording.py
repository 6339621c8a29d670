"""What msgspec refuses, in words: which field, and what was expected of it.

A pattern is said in words where it was made by `matching`; what a tagged union or an enum takes is
listed. Everything else is told as msgspec tells it.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Meta, inspect

from protocol.errors import Invalid

_AT = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>.*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")
_UNKNOWN = re.compile(r"contains unknown field `(?P<name>[^`]*)`")
_PATTERN = re.compile(r"Expected `str` matching regex (?P<pattern>.*)", re.DOTALL)
_VALUE = re.compile(r"Invalid (enum )?value (?P<value>.*)", re.DOTALL)
_LENGTH = re.compile(r"`(str|bytes|array|object)` of length (>=|<=) (\d+)")
_KINDS = {
    "str": ("a text", "characters"),
    "bytes": ("bytes", "of them"),
    "array": ("a list", "values"),
    "object": ("an object", "names"),
}
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(?:\d+|\.\.\.)\]")

_PATTERNS: dict[str, str] = {}  # pattern, as msgspec quotes it -> words


def matching(pattern: str, words: str) -> Meta:
    """A text of this pattern, which is called so where it is refused and in the API's document."""
    _PATTERNS[repr(pattern)] = words
    return Meta(pattern=pattern, description=words)


def refusal(message: str, kind: Any) -> Invalid:
    """msgspec's sentence about a value for this type as an error that names the field: "Expected
    `str`, got `int` - at `$.commands[0].name`".
    """
    at = _AT.search(message)
    path = at["path"].lstrip(".") if at else ""
    text = _LENGTH.sub(_length, message[: at.start()] if at else message)
    if missing := _MISSING.search(text):
        field = ".".join(filter(None, (path, missing["name"])))
        return Invalid(
            f"{field} is missing", field=field, expected=_values(kind, field) or "to be given"
        )
    if unknown := _UNKNOWN.search(text):
        field = ".".join(filter(None, (path, unknown["name"])))
        return Invalid(f"{field} is not known here", field=field, expected="not to be given")
    field = path or "body"
    where = f"a name in {field}" if at and at["key"] else field
    if pattern := _PATTERN.fullmatch(text):
        words = _PATTERNS.get(pattern["pattern"], "`str` matching " + pattern["pattern"])
        return Invalid(f"{where} has not its form", field=field, expected=words[:300])
    if _VALUE.fullmatch(text):
        expected = _values(kind, path) or "another value"
        return Invalid(f"{where}: {text[:300]}", field=field, expected=expected)
    expected = text.partition(", got ")[0].removeprefix("Expected ").strip()
    return Invalid(f"{where}: {text[:300]}", field=field, expected=expected[:300])


_described = functools.cache(inspect.type_info)


def _length(match: re.Match[str]) -> str:
    kind, unit = _KINDS[match[1]]
    return f"{kind} of at {'least' if match[2] == '>=' else 'most'} {match[3]} {unit}"


def _values(kind: Any, path: str) -> str:
    """What there is to choose from at this place, in words; empty where it is no choice."""
    places = [_described(kind)]
    for step in _STEP.finditer(path):
        inner = (each for place in places for each in _inner(place, step[1] or ""))
        tags = [] if step[1] is None else [_tag(each, step[1]) for each in _flat(places)]
        places = list(inner) or [each for each in tags if each is not None]
    found = [value for place in _flat(places) for value in _choice(place)]
    return "one of: " + ", ".join(dict.fromkeys(found)) if found else ""


def _flat(places: list[inspect.Type]) -> Iterator[inspect.Type]:
    for place in places:
        if isinstance(place, inspect.UnionType):
            yield from _flat(list(place.types))
        elif isinstance(place, inspect.Metadata):
            yield from _flat([place.type])
        else:
            yield place


def _inner(place: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """What lies below a place: under this name, or with none, in a list."""
    for each in _flat([place]):
        if isinstance(each, inspect.StructType):
            yield from (field.type for field in each.fields if field.encode_name == name)
        elif isinstance(each, inspect.DictType):
            yield each.value_type
        elif isinstance(each, inspect.VarTupleType | inspect.ListType) and not name:
            yield each.item_type


def _tag(place: inspect.Type, name: str) -> inspect.Type | None:
    """A struct's own tag, as the one value that its field takes."""
    if isinstance(place, inspect.StructType) and place.tag_field == name:
        return inspect.LiteralType((place.tag,))
    return None


def _choice(place: inspect.Type) -> tuple[str, ...]:
    if isinstance(place, inspect.LiteralType):
        return tuple(str(value) for value in place.values)
    if isinstance(place, inspect.EnumType):
        return tuple(str(value.value) for value in place.cls)
    return ()

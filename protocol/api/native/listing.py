"""How a query for builds is said in a URL: read, written, and linked to its next page."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints
from urllib.parse import urlencode

import msgspec

from protocol import wire
from protocol.api.operation import Argument
from protocol.errors import Invalid
from protocol.model.messages import BuildQuery

_NAMES = {
    "limit": "limit",
    "cursor": "cursor",
    "id": "id",
    "status": "status",
    "result": "result",
    "owner": "owner",
    "label": "labels",
    "node": "node",
    "since": "since",
    "until": "until",
    "text": "text",
    "sort": "sort",
}
"""Argument -> field of `BuildQuery`."""
ARGUMENTS = tuple(_NAMES)
_ABOUT = {
    "limit": "how many",
    "cursor": "`next` of the page before",
    "id": "the beginning or the end of their id",
    "status": "their status",
    "result": "how they ended",
    "owner": "whose they are",
    "label": "a label that they have, `NAME` or `NAME=VALUE`; may be there more than once",
    "node": "id or name of the node that they are on",
    "since": "created then or later, seconds since the epoch",
    "until": "created before that",
    "text": "part of their note, in whatever case",
    "sort": "by creation or by the last change; with a minus, the newest first",
}
_REPEATED = {"label"}
_NUMBERS = {"limit", "since", "until"}
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,3})?", re.ASCII)


def query(arguments: Mapping[str, Sequence[str]]) -> BuildQuery:
    """What a URL's arguments ask for. Raises Invalid, naming the argument."""
    plain: dict[str, Any] = {}
    for name, field in _NAMES.items():
        if given := arguments.get(name, ()):
            plain[field] = list(given) if name in _REPEATED else _value(name, given[-1])
    try:
        return wire.convert(plain, BuildQuery)
    except Invalid as error:
        field = error.field.replace("labels", "label", 1)
        raise Invalid(
            error.detail.replace(error.field, field, 1), field=field, expected=error.expected
        ) from error


def arguments() -> tuple[Argument, ...]:
    """The same, as a route says it."""
    kinds = get_type_hints(BuildQuery, include_extras=True)
    return tuple(Argument(name, kinds[field], _ABOUT[name]) for name, field in _NAMES.items())


def parameters(query: BuildQuery) -> list[tuple[str, str]]:
    """The arguments that `query` reads it from."""
    plain, default = msgspec.to_builtins(query), msgspec.to_builtins(BuildQuery())
    found: list[tuple[str, str]] = []
    for name, field in _NAMES.items():
        if plain[field] != default[field]:
            values = plain[field] if name in _REPEATED else (plain[field],)
            found += [(name, str(value)) for value in values]
    return found


def link(path: str, query: BuildQuery, cursor: str) -> str:
    """A Link header (RFC 8288) that names the next page."""
    asked = urlencode(parameters(msgspec.structs.replace(query, cursor=cursor)))
    return f'<{path}?{asked}>; rel="next"'


def _value(name: str, text: str) -> Any:
    """A number where one is meant; what is none is left for the types to refuse."""
    if name not in _NUMBERS or not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)

"""Reading what `imagepool build` is given: an order of the native API, or a specification of the
image-creator API, as JSON, TOML or YAML.
"""

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protocol.errors import Invalid
from protocol.model.request import Order

FORMATS = {".json": "json", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def read_order(name: str, kind: str | None = None) -> Order:
    """The order in a file, - for standard input; `kind`: its format, where the name does not tell.
    Raises Invalid, naming file and field.
    """
    from imagepool.client.orders import order_of

    chosen = kind or FORMATS.get(Path(name).suffix.lower())
    if chosen is None:
        raise Invalid(
            f"{name}: what is it?",
            field="file",
            expected=f"a name that ends in {', '.join(FORMATS)}, or --format",
        )
    try:
        return order_of(_plain(_text(name), name, chosen))
    except Invalid as error:
        if name in error.detail:
            raise
        raise type(error)(
            f"{name}: {error.detail}", field=error.field, expected=error.expected
        ) from error


def _text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode()
    except OSError as error:
        raise Invalid(
            f"{name}: {error.strerror}", field="file", expected="a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{name}: {error}", field="file", expected="UTF-8 text") from error


def _plain(text: str, name: str, kind: str) -> dict[str, Any]:
    try:
        plain = _PARSERS[kind](text)
    except ValueError as error:
        raise Invalid(f"{name}: {error}", field="file", expected=kind.upper()) from error
    if not isinstance(plain, dict):
        raise Invalid(f"{name} holds no map", field="file", expected="recipe, or commands")
    return plain


def _json(text: str) -> Any:
    from protocol import wire

    try:
        return wire.decode(text.encode(), Any)
    except Invalid as error:
        json.loads(text)  # it says in which line
        raise ValueError(error.detail) from error


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


_PARSERS: dict[str, Callable[[str], Any]] = {"json": _json, "toml": tomllib.loads, "yaml": _yaml}

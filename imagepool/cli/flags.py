"""What the flags of `imagepool build` say, put into an order. Pure but for the files and variables
that they name.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocol import wire
from protocol.errors import Invalid
from protocol.model.recipe import (
    Command,
    FetchedContent,
    ImageBase,
    ImageOutput,
    InputFile,
    IsoOutput,
    NoOutput,
    OutboxOutput,
    Output,
    PathsOutput,
    StreamOutput,
)
from protocol.model.request import Guidance, Needs, Order

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTkmgt])(?:i?B)?")
_POWERS = {"K": 10, "M": 20, "G": 30, "T": 40}
_URLS = ("http://", "https://")
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_NEEDS = {
    "architecture": "as `uname -m` says it, such as x86_64",
    "labels": "labels with commas between them, each of letters, digits and . _ / -",
    "cpus": "a number of processors up to 1024, such as 1.5",
    "memory": "bytes, from 16M on, such as 512M or 2G",
    "disk": "bytes, such as 500M or 20G",
    "processes": "a whole number, from 2 on",
    "network": "yes or no",
    "time_limit": "seconds, up to 30 days",
}
"""What --needs takes, and of what form."""
_TITLE = 60  # characters of a command's text that make its name


class Flags(Struct, frozen=True):
    """The flags as they were typed; see `imagepool build --help`."""

    image: str | None = None
    commands: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    priority: int | None = None
    note: str | None = None
    keep_going: bool | None = None


def applied(order: Order, flags: Flags, environment: Mapping[str, str] = os.environ) -> Order:
    """The order with what the flags say: they add commands, inputs that are fetched, labels, needs
    and secrets, and replace all else. Raises Invalid, naming the flag.
    """
    recipe, guidance = order.recipe, order.guidance
    commands = (*recipe.commands, *(command(text) for text in flags.commands))
    recipe = replace(recipe, commands=commands, inputs=(*recipe.inputs, *fetched(flags.inputs)))
    if flags.image is not None:
        recipe = replace(recipe, base=ImageBase(flags.image))
    if flags.outputs:
        recipe = replace(recipe, output=output(flags.outputs))
    if flags.keep_going is not None:
        recipe = replace(recipe, keep_going=flags.keep_going)
    given = {"priority": flags.priority, "note": flags.note}
    guidance = replace(
        guidance,
        needs=needs(guidance.needs, flags.needs),
        labels={**guidance.labels, **pairs(flags.labels, "label")},
        **{name: value for name, value in given.items() if value is not None},
    )
    values = {**order.secrets, **secrets(flags.secrets, environment)}
    made = Order(recipe, wire.convert(_plain(guidance), Guidance), values)
    return wire.convert(_plain(made), Order)  # what the types say holds for flags too


def command(text: str) -> Command:
    """A command of -c: a script's text, @FILE, or @URL."""
    if text.startswith("@") and text[1:].startswith(_URLS):
        return Command(text[1:].rpartition("/")[2] or text[1:], url=text[1:])
    if text.startswith("@"):
        path = Path(text[1:])
        return Command(path.name, text=_read(path, "command"))
    title = " ".join(text.split())[:_TITLE] or "nothing"
    return Command(title, text=text if text.startswith("#!") else f"#!/bin/sh\nset -e\n{text}\n")


def output(given: tuple[str, ...]) -> Output:
    """What --output says: KIND, KIND=NAME or, also several times, paths=PATTERN."""
    kinds = [text.partition("=") for text in given]
    if all(kind == "paths" and value for kind, _, value in kinds):
        return PathsOutput(tuple(value for _, _, value in kinds))
    kind, equals, value = kinds[0]
    named: dict[str, Any] = {"name": value} if equals else {}
    match kind:
        case _ if len(kinds) > 1:
            pass
        case "iso" if not equals:
            return IsoOutput()
        case "none" if not equals:
            return NoOutput()
        case "outbox":
            return OutboxOutput(**named)
        case "stream":
            return StreamOutput(**named)
        case "image":
            named = {"kind": "image", **({"format": value} if equals else {})}
            return wire.convert(named, ImageOutput)
    raise Invalid(
        f"--output is {' '.join(given)!r}",
        field="output",
        expected="iso, none, outbox[=NAME], stream[=NAME], image[=docker|rootfs], or paths=PATTERN,"
        " which alone may be there several times",
    )


def needs(known: Needs, given: tuple[str, ...]) -> Needs:
    """What --needs says, beside what is known."""
    plain, typed = _plain(known), pairs(given, "needs")
    for name, text in typed.items():
        plain[name] = _need(name, text)
    try:
        return wire.convert(plain, Needs)
    except Invalid as error:
        name = error.field.partition("[")[0]
        detail = f"--needs {error.detail}"
        if name in _NEEDS and name in typed:
            detail = f"--needs {name} is {typed[name]!r}"
        expected = _NEEDS.get(name) or f"one of: {', '.join(_NEEDS)}"
        raise Invalid(detail, field=f"needs.{error.field}", expected=expected) from error


def secrets(given: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """What --secret says: NAME=@FILE, or NAME of a variable. A value itself would be seen by
    everybody who lists processes.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if value.startswith("@"):
            found[name] = _read(Path(value[1:]), f"secret {name}")
        elif equals:
            raise Invalid(
                f"--secret {name} would show its value to others",
                field="secret",
                expected="NAME=@FILE, or NAME, whose value is in the variable of that name",
            )
        elif name not in environment:
            raise Invalid(
                f"there is no variable {name}", field="secret", expected="NAME=@FILE or a variable"
            )
        else:
            found[name] = environment[name]
    return found


def local(given: tuple[str, ...]) -> dict[str, Path]:
    """The inputs of --input that are on this machine, by name; of a folder, all files in it."""
    found: dict[str, Path] = {}
    for name, place in _places(given):
        if place.startswith(_URLS):
            continue
        path = Path(place)
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            found |= {f"{name}/{file.relative_to(path).as_posix()}": file for file in inside}
        else:
            found[name] = path
    return found


def fetched(given: tuple[str, ...]) -> Iterable[InputFile]:
    """The inputs of --input that the node fetches."""
    for name, place in _places(given):
        if place.startswith(_URLS):
            yield InputFile(name, FetchedContent(place))


def _places(given: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    for text in given:
        name, equals, place = text.partition("=")
        if text.startswith(_URLS) or not equals:
            name, place = text.rstrip("/").rpartition("/")[2], text
        yield name, place


def _need(name: str, text: str) -> Any:
    """A need's value out of its text; what cannot be read is left for the type to refuse."""
    if name == "labels":
        return [part for part in text.split(",") if part]
    if name == "network":
        return _TRUTH.get(text.lower(), text)
    if name == "architecture":
        return text
    if size := _SIZE.fullmatch(text):
        return int(float(size[1]) * (1 << _POWERS[size[2].upper()]))
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def pairs(given: tuple[str, ...], flag: str) -> dict[str, str]:
    """NAME=VALUE of a flag that may be there several times. Raises Invalid."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Invalid(f"--{flag} is {text!r}", field=flag, expected="NAME=VALUE")
        found[name] = value
    return found


def _read(path: Path, flag: str) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise Invalid(
            f"--{flag}: {path}: {error.strerror}", field=flag, expected="a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(f"--{flag}: {path} is no text", field=flag, expected="UTF-8") from error


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)

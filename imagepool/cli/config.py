"""`config`: which settings hold, and where each value comes from."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from imagepool.cli.connect import as_json as json_flag
from imagepool.cli.exits import USAGE, Failure
from imagepool.cli.programs import FLAGS, given, options
from imagepool.cli.watch import print_json
from imagepool.cli.words import table
from protocol.errors import PoolError

_HIDDEN = ("token", "secret", "password", "credentials", "join")
"""Ends of the names of settings whose values nobody is to read off a screen."""


_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")
"""In a URL, with the name before it."""


class Setting(Struct, frozen=True):
    """A setting as it holds."""

    name: str
    value: Any
    source: str  # "default", "file FILE", "environment VARIABLE", "flag"


@click.group(
    epilog="""\b
Examples:
  imagepool config node
  imagepool config scheduler --config scheduler.toml
  imagepool config client --json"""
)
def config() -> None:
    """Show the settings that hold for a program that is started like this, here and now, and where
    each value comes from: default, file, environment, flag; later ones win.
    """


@config.command(epilog="\b\nExample:\n  imagepool config node --config node.toml --slots 4")
@options(FLAGS["node"])
@json_flag
def node(config: Path | None, as_json: bool, **flags: Any) -> None:
    """What holds for `imagepool node`."""
    from node.config import NodeSettings

    _show(NodeSettings, "node", config, given(flags), as_json)


@config.command(epilog="\b\nExample:\n  imagepool config scheduler --config scheduler.toml")
@options(FLAGS["scheduler"])
@json_flag
def scheduler(config: Path | None, as_json: bool, **flags: Any) -> None:
    """What holds for `imagepool scheduler`."""
    from scheduler.config import SchedulerSettings

    _show(SchedulerSettings, "scheduler", config, given(flags), as_json)


@config.command(epilog="\b\nExample:\n  imagepool config client --url http://192.0.2.1:8080")
@click.option("--url", metavar="URL", help="The scheduler or node.")
@json_flag
def client(url: str | None, as_json: bool) -> None:
    """What holds for commands that speak to a pool. Without a url, mDNS finds a scheduler of that
    pool.
    """
    from imagepool.client.credentials import TOKEN
    from imagepool.client.finding import POOL, URL
    from protocol.program.settings import ProgramSettings

    def of(name: str, variable: str, default: Any) -> Setting:
        if variable in os.environ:
            hidden = name.endswith(_HIDDEN) and os.environ[variable]
            value = "(hidden)" if hidden else os.environ[variable]
            return Setting(name, value, f"environment {variable}")
        return Setting(name, default, "default")

    _print(
        (
            Setting("url", url, "flag") if url else of("url", URL, ""),
            of("token", TOKEN, ""),
            of("pool", POOL, ProgramSettings().pool),
            of("no_color", "NO_COLOR", ""),
        ),
        as_json,
    )


def _show(kind: Any, name: str, file: Path | None, flags: Mapping[str, Any], as_json: bool) -> None:
    from protocol.program.settings import load

    try:
        settings = load(kind, name, file=file, flags=flags)
    except PoolError as error:
        raise Failure(error, USAGE, as_json=as_json) from error
    _print(tuple(settings_of(settings, name, file, flags)), as_json)


def settings_of(
    settings: Any, name: str, file: Path | None, flags: Mapping[str, Any]
) -> Iterator[Setting]:
    """Each setting with its source, in the order of the program's class."""
    import tomllib

    from protocol.program.settings import ALIASES, PREFIX

    in_file = tomllib.loads(file.read_text("utf-8")).get(name, {}) if file else {}
    for field in settings.__struct_fields__:
        value = getattr(settings, field)
        variables = (PREFIX + field.upper(), ALIASES.get(field, ""))
        variable = next((each for each in variables if each in os.environ), None)
        source = "default"
        if field in flags:
            source = "flag"
        elif variable is not None:
            source = f"environment {variable}"
        elif field in in_file:
            source = f"file {file}"
        hidden = field.endswith(_HIDDEN) and value
        yield Setting(field, "(hidden)" if hidden else _without_password(value), source)


def _without_password(value: Any) -> Any:
    """The value; of URLs in it, not who is to be there and by which password."""
    if isinstance(value, tuple):
        return tuple(map(_without_password, value))
    return _PASSWORD.sub("(hidden)@", value) if isinstance(value, str) else value


def _print(settings: tuple[Setting, ...], as_json: bool) -> None:
    if as_json:
        print_json({"settings": settings})
        return
    rows = [(each.name, json.dumps(_plain(each.value)), each.source) for each in settings]
    click.echo(table(("SETTING", "VALUE", "SOURCE"), rows))


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)

"""`build`: what a file or flags say, built, watched and downloaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagepool.cli import terminal, words
from imagepool.cli.connect import with_pool
from imagepool.cli.exits import FAILED
from imagepool.cli.files import read_order
from imagepool.cli.flags import Flags, applied, local
from imagepool.cli.saving import Target, said, saved, target_of
from imagepool.cli.watch import going_on, print_json, watch, watch_as_json
from protocol.errors import Invalid
from protocol.model.build import Build, Result
from protocol.model.request import Order

if TYPE_CHECKING:
    from imagepool import AsyncClient

_RECIPE = (
    click.option("--image", metavar="NAME", help="The container image to build in."),
    click.option(
        "-c",
        "--command",
        "commands",
        multiple=True,
        metavar="TEXT|@FILE|@URL",
        help="A command to run, after those of FILE; a text without #! is for /bin/sh.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=PATH|URL",
        help="A file, or a folder's files, that the build finds below /inbox/.",
    ),
    click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="KIND[=VALUE]",
        help="The result: iso, none, outbox[=NAME], stream[=NAME],"
        " image[=docker|rootfs], paths=PATTERN (repeatable).",
    ),
    click.option("--keep-going", is_flag=True, default=None, help="Go on after a failed command."),
)
_GUIDANCE = (
    click.option(
        "--needs",
        multiple=True,
        metavar="NAME=VALUE",
        help="architecture, labels (a,b), cpus, memory (2G), disk, processes,"
        " network (yes, no), time_limit (seconds).",
    ),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME[=@FILE]",
        help="A secret out of a file, or the variable NAME; a file in $IMAGEPOOL_SECRETS.",
    ),
    click.option(
        "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Kept with the build."
    ),
    click.option("--note", metavar="TEXT", help="Kept with the build, and listed."),
    click.option("--priority", type=int, metavar="N", help="Higher is built earlier."),
    click.option(
        "--idempotency-key",
        "key",
        default="",
        metavar="TEXT",
        help="The same key and request give the same build for a day.",
    ),
)
_WATCHING = (
    click.option(
        "-o",
        "--download",
        metavar="PATH",
        help="Save the result as this file; with a / at the end, or of a folder: all of it there.",
    ),
    click.option(
        "--watch/--no-watch",
        "watched",
        default=None,
        help="Show the log while it runs. [default: unless --json]",
    ),
    click.option("--detach", is_flag=True, help="Print the build's id and do not wait."),
    click.option("--dry-run", is_flag=True, help="Say what would become of it; build nothing."),
    click.option(
        "--format",
        "kind",
        type=click.Choice(["json", "toml", "yaml"]),
        help="What FILE is, where its name does not tell.",
    ),
)


def _options(command: Any) -> Any:
    for option in reversed((*_RECIPE, *_GUIDANCE, *_WATCHING)):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  imagepool build build.yaml -o hello.iso
  imagepool build -c 'echo hello' --output none
  imagepool build build.yaml -o results/
  imagepool build --image debian:12 --input conf=app.conf -c @make.sh \\
      --output paths=/srv/app.tar --needs memory=2G -o app.tar
  ID=$(imagepool build build.json --detach)

Ctrl-C ends the watching, not the build. Exit codes: 0 it succeeded (with --detach: it was
accepted), 1 it did not."""
)
@click.argument("file", required=False)
@_options
@with_pool
async def build(
    pool: "AsyncClient",
    file: str | None,
    kind: str | None,
    download: str | None,
    watched: bool | None,
    detach: bool,
    dry_run: bool,
    key: str,
    as_json: bool,
    **flags: Any,
) -> int:
    """Build what FILE (JSON, TOML or YAML; - for standard input) and flags say, and watch it.

    The log goes to standard output, all else to standard error.
    """
    target = None if download is None else _target(download, detach)
    typed = Flags(**flags)
    order, files = applied(_order(file, kind, typed), typed), local(typed.inputs)
    if dry_run:
        return await _preview(pool, order, files, as_json)
    if target is not None:
        target.prepare()
    accepted = await pool.submit(order, files=files, key=key)
    if detach:
        _print_accepted(accepted, as_json)
        return 0
    terminal.note(f"build {accepted.id}")
    ended = await _ended(pool, accepted.id, watched, as_json)
    if target is not None and ended.artifacts:
        async for path, artifact in saved(pool, ended, target):
            terminal.note(said(path, artifact))
    return 0 if ended.result is Result.SUCCEEDED else FAILED


def _target(typed: str, detach: bool) -> Target:
    if detach:
        raise Invalid(
            "--detach does not wait for what --download is to save",
            field="download",
            expected="imagepool download ID, later",
        )
    return target_of(typed)


def _order(file: str | None, kind: str | None, flags: Flags) -> Order:
    if file is not None:
        return read_order(file, kind)
    if not (flags.commands or flags.image):
        raise Invalid(
            "there is nothing to build", field="file", expected="FILE, or --command, or --image"
        )
    return Order()


async def _ended(pool: "AsyncClient", build_id: str, watched: bool | None, as_json: bool) -> Build:
    """Watch as it was said, and tell how it ended."""
    from protocol.api.native.views import view

    if as_json and watched:
        return await watch_as_json(pool, build_id)
    if watched or (watched is None and not as_json):
        return await watch(pool, build_id)
    with going_on(build_id):
        ended = await pool.wait(build_id)
    if as_json:
        print_json(view(ended))
    else:
        style = terminal.STYLES.get(words.status(ended), {})
        terminal.note(words.ending(ended), **style)
    return ended


async def _preview(
    pool: "AsyncClient", order: Order, files: Mapping[str, Path], as_json: bool
) -> int:
    explanation = await pool.preview(order, files=files)
    if as_json:
        print_json({"request": order.request, "preview": explanation})
    else:
        terminal.show(words.explained(explanation, terminal.state))
    return 0


def _print_accepted(accepted: Build, as_json: bool) -> None:
    from protocol.api.native.views import view

    if as_json:
        print_json(view(accepted))
    else:
        terminal.show(accepted.id)

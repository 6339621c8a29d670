"""Commands that change what becomes of a build: `cancel`, `retry`, `pin`, `unpin`, `delete`."""

import os
from typing import TYPE_CHECKING

import click

from imagepool.cli import words
from imagepool.cli.connect import with_pool
from imagepool.cli.flags import secrets as read_secrets
from imagepool.cli.watch import print_json
from protocol.model.build import Build

if TYPE_CHECKING:
    from imagepool import AsyncClient


def _print(build: Build, text: str, as_json: bool) -> None:
    from protocol.api.native.views import view

    if as_json:
        print_json(view(build))
    else:
        click.echo(text)


@click.command(epilog="\b\nExample:\n  imagepool cancel ID")
@click.argument("build_id", metavar="ID")
@with_pool
async def cancel(pool: "AsyncClient", build_id: str, as_json: bool) -> None:
    """End a build; one that has stopped stays as it is."""
    build = await pool.cancel(build_id)
    _print(build, words.ending(build), as_json)


@click.command(
    epilog="""\b
Examples:
  imagepool retry ID
  imagepool log -f $(imagepool retry ID --secret token=@token.txt)"""
)
@click.argument("build_id", metavar="ID")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME[=@FILE]",
    help="A secret out of a file, or the variable NAME: the pool kept none.",
)
@with_pool
async def retry(
    pool: "AsyncClient", build_id: str, secrets: tuple[str, ...], as_json: bool
) -> None:
    """Build again what a stopped build was asked for, and print the new build's id."""
    build = await pool.retry(build_id, secrets=read_secrets(secrets, os.environ) or None)
    _print(build, build.id, as_json)


@click.command(epilog="\b\nExample:\n  imagepool pin ID")
@click.argument("build_id", metavar="ID")
@with_pool
async def pin(pool: "AsyncClient", build_id: str, as_json: bool) -> None:
    """Keep a build, its log and artifacts until it is unpinned."""
    _print(await pool.pin(build_id), f"build {build_id} is kept", as_json)


@click.command(epilog="\b\nExample:\n  imagepool unpin ID")
@click.argument("build_id", metavar="ID")
@with_pool
async def unpin(pool: "AsyncClient", build_id: str, as_json: bool) -> None:
    """Keep a build, its log and artifacts no longer than those of others."""
    build = await pool.unpin(build_id)
    _print(build, f"build {build_id} is kept as long as others are", as_json)


@click.command(epilog="\b\nExample:\n  imagepool delete ID")
@click.argument("build_id", metavar="ID")
@with_pool
async def delete(pool: "AsyncClient", build_id: str, as_json: bool) -> None:
    """Forget a build that has stopped, its log and artifacts."""
    await pool.delete(build_id)
    if as_json:
        print_json({"deleted": build_id})
    else:
        click.echo(f"build {build_id} is forgotten")

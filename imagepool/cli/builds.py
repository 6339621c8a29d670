"""Commands that speak to a pool: `build`, `status`, `log`, `download`, `cancel`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from imagepool.cli import show
from imagepool.cli.connect import with_pool
from imagepool.cli.exits import FAILED
from imagepool.cli.requests import read_request
from imagepool.transfer import follow_log, save_artifact
from protocol import wire
from protocol.api.native import view
from protocol.client import HttpService
from protocol.errors import NotFound
from protocol.messages import BuildQuery
from protocol.model import Build, Result, State
from protocol.service import LOCAL

_HOLD = 30.0  # seconds that a question may be held while nothing changes

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to save the image.")
@click.option("--detach", is_flag=True, help="Print the build's id and do not wait.")
@as_json
@with_pool
async def build(
    pool: HttpService, file: Any, output: Path | None, detach: bool, as_json: bool
) -> int:
    """Build what FILE says (JSON or TOML; - for standard input), and watch it.

    The log goes to standard output, all else to standard error.
    """
    accepted = await pool.submit(LOCAL, read_request(file.read(), file.name))
    if detach:
        click.echo(accepted.id)
        return 0
    show.note(f"build {accepted.id}")
    ended = await watch(pool, accepted, quiet=as_json)
    if as_json:
        click.echo(wire.encode(view(ended)))
    else:
        show.note(show.ending(ended))
    if output is not None and ended.artifacts:
        await save_artifact(pool, ended.id, ended.artifacts[0], output, show.progress)
        show.note(f"saved {output}, sha256 {ended.artifacts[0].sha256}")
    return 0 if ended.result is Result.SUCCEEDED else FAILED


async def watch(pool: HttpService, build: Build, *, quiet: bool) -> Build:
    """Print the log while the build runs; the build when it has stopped."""
    printing = asyncio.create_task(follow_log(pool, build.id, _print if not quiet else _drop))
    place = ""
    while build.state is not State.STOPPED:
        if build.state is State.WAITING and build.reason and build.reason != place:
            place = build.reason
            show.note(f"waiting: {place}")
        build = await pool.get(LOCAL, build.id, after=build.revision, wait=_HOLD)
    await printing
    return build


@click.command()
@click.argument("build_id", metavar="[ID]", required=False)
@as_json
@with_pool
async def status(pool: HttpService, build_id: str | None, as_json: bool) -> None:
    """Show a build and why it waits, or all builds, newest first."""
    if build_id is None:
        page = await pool.list(LOCAL, BuildQuery())
        builds = [view(build) for build in page.builds]
        click.echo(wire.encode({"builds": builds}) if as_json else show.build_table(page.builds))
        return
    build = await pool.get(LOCAL, build_id)
    if as_json:
        click.echo(wire.encode(view(build)))
    else:
        click.echo(show.build_card(build, await pool.explain(LOCAL, build_id)))


@click.command()
@click.argument("build_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on while the build runs.")
@with_pool
async def log(pool: HttpService, build_id: str, follow: bool) -> None:
    """Print the log of a build, byte for byte."""
    await follow_log(pool, build_id, _print, follow=follow)


@click.command()
@click.argument("build_id", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; else ID.iso.")
@with_pool
async def download(pool: HttpService, build_id: str, output: Path | None) -> None:
    """Download what a build made, checking its digest; a download that broke off goes on where
    it was.
    """
    artifacts = await pool.artifacts(LOCAL, build_id)
    if not artifacts:
        build = await pool.get(LOCAL, build_id)
        raise NotFound(f"the build is {build.state.value} and has no image: {build.reason}")
    target = output or Path(f"{build_id}{Path(artifacts[0].name).suffix}")
    await save_artifact(pool, build_id, artifacts[0], target, show.progress)
    click.echo(f"{artifacts[0].sha256}  {target}")


@click.command()
@click.argument("build_id", metavar="ID")
@with_pool
async def cancel(pool: HttpService, build_id: str) -> None:
    """End a build; one that has stopped stays as it is."""
    click.echo(show.ending(await pool.cancel(LOCAL, build_id)))


def _print(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _drop(data: bytes) -> None:
    """For --json: the log is not wanted."""

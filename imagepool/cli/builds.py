"""Commands that look at builds: `log`, `ls`, `show`, `explain`, `download`."""

import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagepool.cli import terminal, words
from imagepool.cli.connect import with_pool
from imagepool.cli.saving import saved, target_of
from imagepool.cli.watch import going_on, print_json
from protocol.model.build import Build, Result, State
from protocol.model.messages import BuildQuery

if TYPE_CHECKING:
    from imagepool import AsyncClient

_PAGE = 200  # builds that are asked for at once


@click.command(
    epilog="""\b
Examples:
  imagepool log ID
  imagepool log -f ID
  imagepool log ID --command 2
  imagepool log ID --command 'build iso'"""
)
@click.argument("build_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on while the build runs.")
@click.option(
    "--command",
    metavar="N|NAME",
    help="Only what this command printed: its number, from 1, or its name.",
)
@with_pool
async def log(
    pool: "AsyncClient", build_id: str, follow: bool, command: str | None, as_json: bool
) -> None:
    """Print the log of a build, byte for byte. With --json a line for each of the log's."""
    with going_on(build_id):
        if as_json:
            async for line in pool.lines(build_id, follow=follow, command=command):
                print_json({"line": line})
            return
        attempt = 0
        async for piece in pool.log(build_id, follow=follow, command=command):
            if attempt and piece.attempt != attempt:
                terminal.note(f"attempt {piece.attempt}: the log begins anew")
            attempt = piece.attempt
            sys.stdout.buffer.write(piece.data)
            sys.stdout.buffer.flush()


@click.command(
    epilog="""\b
Examples:
  imagepool ls
  imagepool ls --status running --node ada
  imagepool ls --label team=web --limit 10 --json"""
)
@click.option("--status", type=click.Choice([state.value for state in State]), help="Only these.")
@click.option(
    "--result", type=click.Choice([result.value for result in Result]), help="Only these."
)
@click.option("--owner", metavar="NAME", help="Only builds of this owner.")
@click.option("--node", metavar="NAME", help="Only builds on this node, by name or id.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="Only builds with this label."
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@with_pool
async def ls(
    pool: "AsyncClient",
    status: str | None,
    result: str | None,
    labels: tuple[str, ...],
    limit: int,
    as_json: bool,
    **named: Any,
) -> None:
    """List builds, newest first: those that are all that is asked for."""
    from protocol.api.native.views import view

    query = BuildQuery(
        limit=min(limit, _PAGE),
        status=State(status) if status else None,
        result=Result(result) if result else None,
        labels=labels,
        **named,
    )
    found: list[Build] = []
    async with aclosing(pool.builds(query)) as builds:
        async for build in builds:
            found.append(build)
            if len(found) == limit:
                break
    if as_json:
        print_json({"builds": [view(build) for build in found]})
    else:
        terminal.show(words.build_table(found, terminal.state))


@click.command(epilog="\b\nExample:\n  imagepool show ID")
@click.argument("build_id", metavar="ID")
@with_pool
async def show(pool: "AsyncClient", build_id: str, as_json: bool) -> None:
    """Show a build: what it was asked for, its commands, artifacts, and history."""
    from protocol.api.native.views import view

    build = await pool.get(build_id)
    if as_json:
        print_json(view(build))
    else:
        terminal.show(words.build_card(build, await pool.explain(build_id), terminal.state))


@click.command(epilog="\b\nExample:\n  imagepool explain ID")
@click.argument("build_id", metavar="ID")
@with_pool
async def explain(pool: "AsyncClient", build_id: str, as_json: bool) -> None:
    """Say why a build waits, with each node's reason, or what happened to it."""
    explanation = await pool.explain(build_id)
    if as_json:
        print_json(explanation)
    else:
        terminal.show(words.explained(explanation, terminal.state))


@click.command(
    epilog="""\b
Examples:
  imagepool download ID
  imagepool download ID -o hello.iso
  imagepool download ID -o results/
  imagepool download ID --name outbox.zip -o - | bsdtar -t -f -"""
)
@click.argument("build_id", metavar="ID")
@click.option(
    "-o",
    "--output",
    "target",
    metavar="PATH",
    help="File to write, folder for all there is (with a / at the end it is made), or - for"
    " standard output; else ID.iso and so on.",
)
@click.option("--name", metavar="NAME", help="Which artifact, where there are several.")
@with_pool
async def download(
    pool: "AsyncClient", build_id: str, target: str | None, name: str | None, as_json: bool
) -> None:
    """Download what a build made, checking its digest; a download that broke off goes on where
    it was. On standard output an artifact comes while it is being made.
    """
    if target == "-":
        async for piece in pool.read(build_id, name=name):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    if target is None:
        artifact = await pool.artifact(build_id, name)
        target, name = f"{build_id}{Path(artifact.name).suffix}", artifact.name
    place = target_of(target)
    place.prepare()
    async for file, made in saved(pool, await pool.get(build_id), place, name):
        if as_json:
            print_json(
                {"file": str(file), "name": made.name, "size": made.size, "sha256": made.sha256}
            )
        else:
            click.echo(f"{made.sha256}  {file}")

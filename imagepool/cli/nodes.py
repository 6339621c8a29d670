"""Commands about the pool and its nodes: `status`, `nodes`, `cordon`, `uncordon`, `drain`."""

import time
from typing import TYPE_CHECKING

import click

from imagepool.cli import terminal, words
from imagepool.cli.connect import with_pool
from imagepool.cli.exits import FAILED
from imagepool.cli.watch import print_json

if TYPE_CHECKING:
    from imagepool import AsyncClient

_HOLD = 1.0  # seconds that a question may be held while nothing changes
_IN_USE = ("ready", "busy")  # states of a node that nobody keeps builds from


@click.command(epilog="\b\nExample:\n  imagepool status")
@with_pool
async def status(pool: "AsyncClient", as_json: bool) -> None:
    """Say whether the scheduler, or node, takes builds now, and how many it has."""
    report = await pool.status()
    if as_json:
        print_json(report)
    else:
        terminal.show(words.report(report, terminal.state))


@click.command(epilog="\b\nExample:\n  imagepool nodes")
@with_pool
async def nodes(pool: "AsyncClient", as_json: bool) -> None:
    """List the nodes of the pool, the favoured first, and why a node takes no builds."""
    roster = await pool.nodes()
    if as_json:
        print_json(roster)
    else:
        terminal.show(words.node_table(roster, terminal.state))


@click.command(epilog="\b\nExample:\n  imagepool cordon ada --reason 'new fan'")
@click.argument("node")
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    help="Shown on the roster, and to builds that wait.",
)
@with_pool
async def cordon(pool: "AsyncClient", node: str, reason: str, as_json: bool) -> None:
    """Give NODE (its name or id) no new builds; what runs there goes on."""
    await pool.cordon(node, reason)
    await _print_node(pool, node, f"{node} gets no new builds", as_json)


@click.command(epilog="\b\nExample:\n  imagepool uncordon ada")
@click.argument("node")
@with_pool
async def uncordon(pool: "AsyncClient", node: str, as_json: bool) -> None:
    """Give NODE (its name or id) builds again."""
    await pool.uncordon(node)
    await _print_node(pool, node, f"{node} gets builds again", as_json)


@click.command(epilog="\b\nExample:\n  imagepool drain ada --timeout 600 && ssh ada poweroff")
@click.argument("node")
@click.option(
    "--reason", default="", metavar="TEXT", help="Shown on the roster, and to builds that wait."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait; else without end.",
)
@with_pool
async def drain(
    pool: "AsyncClient", node: str, reason: str, timeout: float | None, as_json: bool
) -> int:
    """Give NODE (its name or id) no new builds, and wait until nothing is on it: it is drained
    then. Exit code 1: it was not yet when the time was over, and goes on to be; or somebody
    uncordoned it.
    """
    await pool.drain(node, reason)
    deadline = None if timeout is None else time.monotonic() + timeout
    token, left, said = None, 0.0, ""
    while True:
        token = (await pool.status(after=token, wait=left)).token
        entry = await pool.node(node)
        if entry.state == "drained":
            break
        if entry.state in _IN_USE:
            terminal.note(f"{node} was uncordoned meanwhile: it is {entry.state}")
            return FAILED
        if said != (said := words.on_node(entry)):
            terminal.note(f"{node} {said}")
        left = _HOLD if deadline is None else min(_HOLD, deadline - time.monotonic())
        if left <= 0:
            terminal.note(
                f"{timeout:g} s are over; {node} stays cordoned, and is drained when nothing is on"
                f" it any more (to give it builds again: imagepool uncordon {node})"
            )
            return FAILED
    await _print_node(pool, node, f"{node} is drained: nothing is on it", as_json)
    return 0


async def _print_node(pool: "AsyncClient", node: str, text: str, as_json: bool) -> None:
    if as_json:
        print_json(await pool.node(node))
    else:
        click.echo(text)

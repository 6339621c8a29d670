"""Commands about the pool and its nodes: `status`, `nodes`, `cordon`, `uncordon`, `drain`."""

import time
from typing import TYPE_CHECKING

import click

from imagepool.cli import terminal, words
from imagepool.cli.connect import with_pool
from imagepool.cli.exits import FAILED
from imagepool.cli.watch import print_json
from protocol.errors import NotFound
from protocol.messages import RosterEntry

if TYPE_CHECKING:
    from imagepool import AsyncClient

_HOLD = 1.0  # seconds that a question may be held while nothing changes


@click.command(epilog="\b\nExample:\n  imagepool status")
@with_pool
async def status(pool: "AsyncClient", as_json: bool) -> None:
    """Say whether the scheduler, or node, takes builds now, and how many it has."""
    report = await pool.status()
    if as_json:
        print_json(report)
    else:
        click.echo(words.report(report, terminal.state))


@click.command(epilog="\b\nExample:\n  imagepool nodes")
@with_pool
async def nodes(pool: "AsyncClient", as_json: bool) -> None:
    """List the nodes of the pool, the favoured first, and why a node takes no builds."""
    roster = await pool.nodes()
    if as_json:
        print_json(roster)
    else:
        click.echo(words.node_table(roster, terminal.state))


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
    "--reason",
    default="it is being drained",
    show_default=True,
    metavar="TEXT",
    help="Shown on the roster.",
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
    """Give NODE (its name or id) no new builds, and wait until it has none. Exit code 1: it still
    had some when the time was over; it stays cordoned.
    """
    await pool.cordon(node, reason)
    deadline = None if timeout is None else time.monotonic() + timeout
    said = -1
    while builds := len((await _entry(pool, node)).builds):
        if builds != said:
            said = builds
            terminal.note(f"{node} still has {builds} {'build' if builds == 1 else 'builds'}")
        left = _HOLD if deadline is None else min(_HOLD, deadline - time.monotonic())
        if left <= 0:
            return FAILED
        token = (await pool.status()).token
        await pool.status(after=token, wait=left)
    await _print_node(pool, node, f"{node} has no builds; it is cordoned", as_json)
    return 0


async def _print_node(pool: "AsyncClient", node: str, text: str, as_json: bool) -> None:
    if as_json:
        print_json(await _entry(pool, node))
    else:
        click.echo(text)


async def _entry(pool: "AsyncClient", node: str) -> RosterEntry:
    """The node's line on the roster. Raises NotFound."""
    for entry in (await pool.nodes()).nodes:
        if node in (entry.id, entry.name):
            return entry
    raise NotFound(f"{node} is not on the roster", field="node")

"""Commands of whoever looks after the nodes of a pool: `nodes`, `cordon`, `uncordon`, `drain`."""

import time

import click

from imagepool.cli import show
from imagepool.cli.connect import with_pool
from imagepool.cli.exits import FAILED
from protocol import wire
from protocol.client import HttpService
from protocol.errors import NotFound
from protocol.messages import RosterEntry
from protocol.service import LOCAL

_HOLD = 1.0  # seconds that a question may be held while nothing changes


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_pool
async def nodes(pool: HttpService, as_json: bool) -> None:
    """List the nodes of the pool, the favoured first, and why a node takes no builds."""
    roster = await pool.roster()
    click.echo(wire.encode(roster) if as_json else show.node_table(roster))


@click.command()
@click.argument("node")
@click.option("--reason", default="", help="Shown on the roster, and to builds that wait.")
@with_pool
async def cordon(pool: HttpService, node: str, reason: str) -> None:
    """Give NODE (its name or id) no new builds; what runs there goes on."""
    await pool.cordon(node, reason)
    click.echo(f"{node} gets no new builds")


@click.command()
@click.argument("node")
@with_pool
async def uncordon(pool: HttpService, node: str) -> None:
    """Give NODE (its name or id) builds again."""
    await pool.uncordon(node)
    click.echo(f"{node} gets builds again")


@click.command()
@click.argument("node")
@click.option("--reason", default="it is being drained", help="Shown on the roster.")
@click.option("--timeout", type=float, default=None, help="Seconds to wait; else without end.")
@with_pool
async def drain(pool: HttpService, node: str, reason: str, timeout: float | None) -> int:
    """Give NODE (its name or id) no new builds, and wait until it has none. Exit code 1: it still
    had some when the time was over; it stays cordoned.
    """
    await pool.cordon(node, reason)
    deadline = None if timeout is None else time.monotonic() + timeout
    said = -1
    while builds := len((await _entry(pool, node)).builds):
        if builds != said:
            said = builds
            show.note(f"{node} still has {builds} builds")
        left = _HOLD if deadline is None else min(_HOLD, deadline - time.monotonic())
        if left <= 0:
            return FAILED
        await _until_changed(pool, left)
    click.echo(f"{node} has no builds; it is cordoned")
    return 0


async def _until_changed(pool: HttpService, seconds: float) -> None:
    """Return when a build or node of the pool changed, or the time is over."""
    token = (await pool.status(LOCAL)).token
    await pool.status(LOCAL, after=token, wait=seconds)


async def _entry(pool: HttpService, node: str) -> RosterEntry:
    """The node's line on the roster. Raises NotFound."""
    for entry in (await pool.roster()).nodes:
        if node in (entry.id, entry.name):
            return entry
    raise NotFound(f"{node} is not on the roster", field="node")

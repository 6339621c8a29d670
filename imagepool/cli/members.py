"""Commands about who is of the pool: `invite`, `admit`, `revoke`, `authority`."""

from typing import TYPE_CHECKING

import click

from imagepool.cli import terminal
from imagepool.cli.connect import with_pool
from imagepool.cli.watch import print_json

if TYPE_CHECKING:
    from imagepool import AsyncClient

_DIGEST = 16  # characters of a digest that are shown


@click.command(epilog="\b\nExample:\n  imagepool invite --new")
@click.option("--new", is_flag=True, help="Make another token: the one before admits nobody now.")
@with_pool
async def invite(pool: "AsyncClient", new: bool, as_json: bool) -> None:
    """Print the one line to paste on another machine, to bring it into the pool. Whoever has it
    can do the same: give it to nobody else.
    """
    invitation = await pool.invitation(new=new)
    if as_json:
        print_json(invitation)
    else:
        terminal.show(invitation.line)


@click.command(epilog="\b\nExample:\n  imagepool admit ada")
@click.argument("node")
@with_pool
async def admit(pool: "AsyncClient", node: str, as_json: bool) -> None:
    """Let NODE in (its name or id), which has the token and waits for a yes."""
    await pool.admit(node)
    if as_json:
        print_json({"node": node, "admission": "admitted"})
    else:
        click.echo(f"{node} may join")


@click.command(epilog="\b\nExample:\n  imagepool revoke ada --reason 'sold'")
@click.argument("node")
@click.option("--reason", default="by an admin", metavar="TEXT", help="Shown on the roster.")
@with_pool
async def revoke(pool: "AsyncClient", node: str, reason: str, as_json: bool) -> None:
    """Put NODE out of the pool (its name or id). It gets nothing any more, what it asks is refused,
    and its builds are begun elsewhere. Make another token too (invite --new) where somebody else
    has the machine now.
    """
    await pool.revoke(node, reason)
    if as_json:
        print_json({"node": node, "admission": "revoked"})
    else:
        click.echo(f"{node} is out of the pool")


@click.command(epilog="\b\nExample:\n  imagepool authority --replace")
@click.option("--replace", "step", flag_value="begin", help="Make another one in its place.")
@click.option(
    "--next", "step", flag_value="next", help="Do not wait for members that are not ready."
)
@with_pool
async def authority(pool: "AsyncClient", step: str | None, as_json: bool) -> None:
    """Show the pool's certificate authority, or replace it: builds go on meanwhile, and join tokens
    have to be made anew. Members that are left behind by --next join again.
    """
    state = await pool.authority(step or "")
    if as_json:
        print_json(state)
        return
    terminal.show(f"certificates are made by {state.makes[:_DIGEST]}")
    for other in state.believed:
        if other != state.makes:
            terminal.show(f"believed, too: {other[:_DIGEST]}")
    if state.waits_for:
        terminal.show(f"waiting for {', '.join(state.waits_for)}")

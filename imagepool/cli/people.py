"""`token` and `user`: who may call a program. Where it runs, it is asked; where it does not, its
data folder is changed, which is how the first token comes to be.
"""

import asyncio
import functools
import re
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from imagepool.cli import terminal
from imagepool.cli.connect import as_json as json_flag
from imagepool.cli.connect import client_of, failing, token_option, url_option
from imagepool.cli.watch import print_json
from imagepool.cli.words import table
from protocol.errors import Conflict, Invalid

if TYPE_CHECKING:
    from imagepool.cli.folder import People

T = TypeVar("T")

_LASTS = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ROLE = click.option(
    "--role",
    type=click.Choice(["viewer", "user", "operator", "admin"]),
    default="user",
    show_default=True,
    help="What its bearer may do.",
)


def _with_people(
    command: Callable[..., Coroutine[Any, Any, None]], *, makes: bool = False
) -> Callable[..., None]:
    """A command's coroutine as a click function: its first argument is who may call the program,
    through it or in its folder. `makes`: also where the program was never started.
    """

    @url_option
    @token_option
    @click.option(
        "--program",
        type=click.Choice(["scheduler", "node"]),
        default="scheduler",
        show_default=True,
        help="Without --url: which of this machine.",
    )
    @click.option(
        "--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Its data folder."
    )
    @click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Its settings.")
    @json_flag
    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        where = {key: arguments.pop(key) for key in ("url", "token", "program", "data", "config")}
        with failing(as_json=arguments["as_json"]):
            act = functools.partial(command, **arguments)
            asyncio.run(_reached(where | {"makes": makes}, act))

    return run


async def _reached(where: dict[str, Any], act: Callable[[Any], Awaitable[None]]) -> None:
    """Do it where the program is, or where its folder is. Raises PoolError."""
    from imagepool.cli.folder import opened

    url, token = where["url"], where["token"]
    if not url:
        found = opened(where["program"], where["data"], where["config"], makes=where["makes"])
        if not isinstance(found, str):
            async with found as people:
                terminal.note(f"in {people.folder}, whose program does not run")
                await act(people)
            return
        url = found
    async with client_of(url, token) as client:
        await act(client)


def seconds(text: str | None) -> float | None:
    """How long something lasts. Raises Invalid."""
    if text is None:
        return None
    match = _LASTS.fullmatch(text)
    if not match or not float(match[1]):
        raise Invalid(f"--lasts is {text!r}", field="lasts", expected="seconds, or 90m, 12h, 30d")
    return float(match[1]) * _SECONDS[match[2]]


@click.group(
    epilog="""\b
Examples:
  imagepool token create ada --role admin
  imagepool token list
  imagepool token revoke ada"""
)
def token() -> None:
    """Make, list and revoke tokens: what scripts, and people on the command line, prove by who
    they are.
    """


@token.command(epilog="\b\nExample:\n  imagepool token create ci --role user --lasts 30d")
@click.argument("name")
@_ROLE
@click.option("--owner", metavar="NAME", help="Whose builds it sees and makes; else NAME.")
@click.option("--lasts", metavar="TIME", help="Seconds, or 12h, 30d; else until it is revoked.")
@functools.partial(_with_people, makes=True)
async def create(
    people: "People", name: str, role: Any, owner: str | None, lasts: str | None, as_json: bool
) -> None:
    """Make a token and print it. Nobody can print it again."""
    made = await people.make_token(name, role, owner=owner, lasts=seconds(lasts))
    if as_json:
        print_json(made)
        return
    terminal.note(f"{made.name}: {made.role}, builds of {made.owner}; this is shown once:")
    click.echo(made.token)


@token.command("list", epilog="\b\nExample:\n  imagepool token list")
@_with_people
async def list_tokens(people: "People", as_json: bool) -> None:
    """List tokens, the oldest first."""
    found = await people.tokens()
    if as_json:
        print_json({"tokens": found})
        return
    rows = [(t.name, t.role, t.owner, _moment(t.created), _end(t.expires), t.id) for t in found]
    click.echo(table(("NAME", "ROLE", "OWNER", "CREATED", "EXPIRES", "ID"), rows))


@token.command(epilog="\b\nExample:\n  imagepool token revoke ci")
@click.argument("name")
@_with_people
async def revoke(people: "People", name: str, as_json: bool) -> None:
    """End the token NAME (its name or id): it proves nothing from now on."""
    await people.revoke_token(name)
    _done(f"{name} is revoked", as_json, revoked=name)


@click.group(
    epilog="""\b
Examples:
  imagepool user add ada --role operator
  imagepool user list
  imagepool user remove ada"""
)
def user() -> None:
    """Add, list and remove users: people who log in on the page with a password."""


@user.command(epilog="\b\nExample:\n  imagepool user add ada --role operator < password.txt")
@click.argument("name")
@_ROLE
@functools.partial(_with_people, makes=True)
async def add(people: "People", name: str, role: Any, as_json: bool) -> None:
    """Add a user, or give one another role and password. The password is asked for, or read from
    standard input; all their sessions end.
    """
    made = await people.put_user(name, role, _password())
    if as_json:
        print_json(made)
    else:
        terminal.show(f"{made.name} is {made.role}")


@user.command("list", epilog="\b\nExample:\n  imagepool user list")
@_with_people
async def list_users(people: "People", as_json: bool) -> None:
    """List users by name."""
    found = await people.users()
    if as_json:
        print_json({"users": found})
        return
    click.echo(
        table(("NAME", "ROLE", "CREATED"), [(u.name, u.role, _moment(u.created)) for u in found])
    )


@user.command(epilog="\b\nExample:\n  imagepool user remove ada")
@click.argument("name")
@_with_people
async def remove(people: "People", name: str, as_json: bool) -> None:
    """Remove a user: no log-in, no session. Their builds stay."""
    await people.remove_user(name)
    _done(f"{name} is removed", as_json, removed=name)


def _password() -> str:
    """Typed twice, or a line of standard input. Raises Conflict where there is none."""
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return typed
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise Conflict("there is no password", field="password", expected="one on standard input")
    return line


def _done(text: str, as_json: bool, **facts: str) -> None:
    if as_json:
        print_json(facts)
    else:
        click.echo(text)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _end(at: float | None) -> str:
    if at is None:
        return "never"
    return _moment(at) + (" (over)" if at <= time.time() else "")

"""Running a command against a pool: what all such commands have in common."""

import asyncio
import contextlib
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from imagepool.cli.exits import BROKEN_PIPE, INTERRUPTED, UNREACHABLE, USAGE, Failure
from protocol.errors import Busy, Conflict, PoolError, Unavailable

if TYPE_CHECKING:
    from imagepool import AsyncClient

LEAST = 8
"""Characters of a build's id that may stand for it; the page shows so many."""
_WHOLE = 32  # characters of an id
_CANDIDATES = 10  # of several builds that could be meant, so many are named

url_option = click.option(
    "--url",
    envvar="IMAGEPOOL_URL",
    metavar="URL",
    help="The scheduler or node; else $IMAGEPOOL_URL, else found by mDNS.",
)
token_option = click.option(
    "--token",
    metavar="TEXT",
    help="Who you are; else $IMAGEPOOL_TOKEN, which others cannot list, else the token file.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def with_pool(command: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
    """A command's coroutine as a click function: its first argument is the pool's client, its
    answer the exit code, and `as_json` whether JSON is wanted.
    """

    @url_option
    @token_option
    @as_json
    @functools.wraps(command)
    def run(url: str | None, token: str | None, **arguments: Any) -> None:
        with failing(as_json=arguments["as_json"]):
            raise SystemExit(asyncio.run(_connected(url, token, command, arguments)) or 0)

    return run


@contextlib.contextmanager
def failing(*, as_json: bool) -> Iterator[None]:
    """What goes wrong in there ends the program with its words and its exit code."""
    told = {"as_json": as_json}
    try:
        yield
    except (Unavailable, Busy) as error:
        raise Failure(error, UNREACHABLE, **told) from error
    except PoolError as error:
        raise Failure(error, USAGE, **told) from error
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # What is still buffered is not to be complained about at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as error:
        words = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise Failure(PoolError(words), USAGE, **told) from error


async def _connected(
    url: str | None,
    token: str | None,
    command: Callable[..., Awaitable[int | None]],
    arguments: dict[str, Any],
) -> int | None:
    async with client_of(url, token) as client:
        if "build_id" in arguments:
            arguments["build_id"] = await _whole_id(client, arguments["build_id"])
        return await command(client, **arguments)


def client_of(url: str | None, token: str | None) -> "AsyncClient":
    """The pool there, for whoever the token says. Raises Invalid."""
    from imagepool import AsyncClient

    return AsyncClient(url or "", token=token or "")


async def _whole_id(pool: "AsyncClient", typed: str) -> str:
    """The id of the build whose id begins or ends like this; what no build's does, or is whole or
    short, stays as it is: the pool says what is wrong with it. Raises Conflict where several do.
    """
    from protocol.model.messages import BuildQuery

    if not (LEAST <= len(typed) < _WHOLE and typed.isascii() and typed.isalnum()):
        return typed
    page = await pool.page(BuildQuery(id=typed.lower(), limit=_CANDIDATES))
    ids = [build.id for build in page.builds]
    if len(ids) <= 1 or typed in ids:
        return typed if typed in ids or not ids else ids[0]
    more = ", ..." if page.next else ""
    raise Conflict(
        f"several builds' ids begin or end with {typed}: {', '.join(ids)}{more}",
        field="id",
        expected="more of the one that is meant",
    )

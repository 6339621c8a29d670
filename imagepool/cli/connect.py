"""Running a command against a pool: what all such commands have in common."""

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable
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

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def with_pool(command: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
    """A command's coroutine as a click function: its first argument is the pool's client, its
    answer the exit code, and `as_json` whether JSON is wanted.
    """

    @click.option(
        "--url",
        envvar="IMAGEPOOL_URL",
        metavar="URL",
        help="The scheduler or node; else $IMAGEPOOL_URL, else found by mDNS.",
    )
    @as_json
    @functools.wraps(command)
    def run(url: str | None, **arguments: Any) -> None:
        told = {"as_json": arguments["as_json"]}
        try:
            code = asyncio.run(_connected(url, command, arguments))
        except (Unavailable, Busy) as error:
            raise Failure(error, UNREACHABLE, **told) from error
        except PoolError as error:
            raise Failure(error, USAGE, **told) from error
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:
            # What is still buffered is not to be complained about at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = BROKEN_PIPE
        except OSError as error:
            words = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise Failure(PoolError(words), USAGE, **told) from error
        raise SystemExit(code or 0)

    return run


async def _connected(
    url: str | None, command: Callable[..., Awaitable[int | None]], arguments: dict[str, Any]
) -> int | None:
    async with _client(url) as client:
        if "build_id" in arguments:
            arguments["build_id"] = await _whole_id(client, arguments["build_id"])
        return await command(client, **arguments)


def _client(url: str | None) -> "AsyncClient":
    from imagepool import AsyncClient

    return AsyncClient(url or "")


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

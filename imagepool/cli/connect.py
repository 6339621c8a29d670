"""Finding the pool to speak to: --url, the variable IMAGEPOOL_URL, then mDNS; and running a
command against it.
"""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import click

from imagepool.cli.exits import UNREACHABLE, USAGE, Failure
from protocol.client import HttpService
from protocol.errors import Busy, PoolError, Unavailable

_SEARCH = 3.0
"""Seconds in which a scheduler on this machine or LAN must answer by mDNS."""


def with_pool(command: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
    """A command's coroutine as a click function: its first argument is the pool's client."""

    @click.option(
        "--url", envvar="IMAGEPOOL_URL", help="The scheduler or node; else found by mDNS."
    )
    @functools.wraps(command)
    def run(url: str | None, **arguments: Any) -> None:
        try:
            code = asyncio.run(_connected(url, command, arguments))
        except (Unavailable, Busy) as error:
            raise Failure(error, UNREACHABLE) from error
        except PoolError as error:
            raise Failure(error, USAGE) from error
        except KeyboardInterrupt:
            code = 130
        raise SystemExit(code or 0)

    return run


async def _connected(
    url: str | None, command: Callable[..., Awaitable[int | None]], arguments: dict[str, Any]
) -> int | None:
    client = HttpService(url or await find_scheduler())
    try:
        return await command(client, **arguments)
    finally:
        await client.close()


async def find_scheduler() -> str:
    """The URL of a scheduler that advertises itself. Raises Unavailable."""
    from protocol.beacon import Beacon
    from protocol.mdns import Mdns
    from protocol.settings import ProgramSettings
    from scheduler.discovery import urls

    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    pool = os.environ.get("IMAGEPOOL_POOL", ProgramSettings().pool)

    def heard(beacon: Beacon) -> None:
        if beacon.role.startswith("scheduler") and beacon.pool == pool and not found.done():
            found.set_result(urls(beacon)[0])

    everywhere = [Mdns(ProgramSettings(), host) for host in ("127.0.0.1", "0.0.0.0")]
    try:
        for mdns in everywhere:
            mdns.browse(heard, lambda identity: None)
        return await asyncio.wait_for(found, _SEARCH)
    except TimeoutError as error:
        raise Unavailable(
            "no scheduler was found by mDNS; say where it is with --url or IMAGEPOOL_URL"
        ) from error
    finally:
        for mdns in everywhere:
            await mdns.close()

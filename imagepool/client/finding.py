"""Finding the pool to speak to: a URL that is given, the variable IMAGEPOOL_URL, then mDNS."""

import asyncio
import os

from protocol.errors import Unavailable
from protocol.program.beacon import Beacon, urls
from protocol.program.mdns import Mdns
from protocol.program.settings import ProgramSettings

URL = "IMAGEPOOL_URL"
"""The variable that says where the pool is."""
POOL = "IMAGEPOOL_POOL"
"""The variable that says which pool's scheduler is looked for by mDNS."""
SEARCH = 3.0
"""Seconds in which a scheduler on this machine or LAN must answer by mDNS."""


async def find_scheduler() -> str:
    """The URL of a scheduler that advertises itself. Raises Unavailable."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    pool = os.environ.get(POOL, ProgramSettings().pool)

    def heard(beacon: Beacon) -> None:
        if beacon.role.startswith("scheduler") and beacon.pool == pool and not found.done():
            found.set_result(urls(beacon, member=False)[0])

    everywhere = [Mdns(ProgramSettings(), host) for host in ("127.0.0.1", "0.0.0.0")]
    try:
        for mdns in everywhere:
            mdns.browse(heard, lambda identity: None)
        return await asyncio.wait_for(found, SEARCH)
    except TimeoutError as error:
        raise Unavailable(
            f"no scheduler was found by mDNS; say where it is with --url or {URL}",
            field="url",
            expected="the URL of a scheduler or node",
        ) from error
    finally:
        for mdns in everywhere:
            await mdns.close()

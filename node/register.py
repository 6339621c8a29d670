"""Making this node known to a scheduler that mDNS does not reach, again and again: the scheduler
may have forgotten.
"""

import asyncio
import logging
from urllib.parse import urlsplit

from protocol.errors import PoolError
from protocol.model.messages import Registration
from protocol.ports.service import Caller, Role
from protocol.program.running import Listener, reachable_from
from protocol.remote.client import HttpService

log = logging.getLogger(__name__)


async def keep_registering(me: str, scheduler: str, listener: Listener, every: float) -> None:
    """Tell the scheduler at this URL where we are, each `every` seconds; sooner while it does
    not answer. `me`: the id by which we say who asks.
    """
    client = HttpService(scheduler, caller=Caller(owner="", role=Role.PROGRAM, program=me))
    said = ""
    try:
        while True:
            try:
                await client.register(Registration(own_url(scheduler, listener)))
                pause, words = every, f"registered with {scheduler}"
            except (PoolError, OSError) as error:
                pause, words = min(every, 1.0), f"not registered with {scheduler}: {error}"
            if words != said:
                said = words
                log.info("%s", words)
            await asyncio.sleep(pause)
    finally:
        await client.close()


def own_url(scheduler: str, listener: Listener) -> str:
    """The URL by which the scheduler can call us: the address that we have on the way to it."""
    host = listener.host
    if host in ("0.0.0.0", "::"):
        host = reachable_from(urlsplit(scheduler).hostname or "127.0.0.1")
    return f"http://[{host}]:{listener.port}" if ":" in host else f"http://{host}:{listener.port}"

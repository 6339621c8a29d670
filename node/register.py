"""Making this node known to a scheduler that mDNS does not reach, again and again: the scheduler
may have forgotten.
"""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from protocol.errors import PoolError
from protocol.model.messages import Registration
from protocol.ports.service import Caller
from protocol.program.running import Listener, reachable_from
from protocol.remote.client import HttpService
from protocol.remote.connecting import Secured

log = logging.getLogger(__name__)


async def keep_registering(
    scheduler: str,
    listener: Listener,
    every: float,
    me: Caller,
    secured: Callable[[], Secured | None],
) -> None:
    """Tell the scheduler at this URL where we are, each `every` seconds; sooner while it does
    not answer. `secured`: how it is to prove that it is our pool's, as of now.
    """
    said = ""
    while True:
        proof = secured()
        if proof is None and urlsplit(scheduler).scheme == "https":
            await asyncio.sleep(min(every, 1.0))  # we are of no pool yet
            continue
        client = HttpService(scheduler, caller=me, secured=proof)
        try:
            await client.register(Registration(own_url(scheduler, listener)))
            pause, words = every, f"registered with {scheduler}"
        except (PoolError, OSError) as error:
            pause, words = min(every, 1.0), f"not registered with {scheduler}: {error}"
        finally:
            await client.close()
        if words != said:
            said = words
            log.info("%s", words)
        await asyncio.sleep(pause)


def own_url(scheduler: str, listener: Listener) -> str:
    """The URL by which the scheduler can call us: the address that we have on the way to it."""
    host = listener.host
    if host in ("0.0.0.0", "::"):
        host = reachable_from(urlsplit(scheduler).hostname or "127.0.0.1")
    return listener.url_at(host)

"""Many idle nodes in one process: `python -m bench.crowd FOLDER COUNT SCHEDULER [TOKEN]`.

Each is a node as it comes, with an identity, a data folder and listeners of its own, and an engine
that plays scripts. They register at the scheduler's URL, and first join by the token if there is
one. They serve until the process is ended.
"""

import asyncio
import signal
import sys
from pathlib import Path

from node.app import run
from node.config import NodeSettings

_AT_ONCE = 10  # that start at the same time
_SELDOM = 3600.0  # seconds between what nodes do of themselves


async def crowd(folder: Path, count: int, scheduler: str, token: str) -> None:
    """Serve until told."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    starting = asyncio.Semaphore(_AT_ONCE)

    async def serve(name: str) -> None:
        settings = NodeSettings(
            engine="dummy",
            listen="127.0.0.1:0",
            pool_listen="127.0.0.1:0" if token else "",
            mdns=False,
            data=str(folder / name),
            name=name,
            pool="bench",
            join=token,
            schedulers=(scheduler,),
            register_every=_SELDOM,
            engine_check=_SELDOM,
            disk_check=_SELDOM,
            disk_reserve=0,
            drain_limit=0,
        )
        await starting.acquire()
        await run(settings, lambda url: starting.release(), stop)

    await asyncio.gather(stop.wait(), *(serve(f"{folder.name}-{at}") for at in range(count)))


if __name__ == "__main__":
    _, place, number, url, *more = sys.argv
    asyncio.run(crowd(Path(place), int(number), url, more[0] if more else ""))

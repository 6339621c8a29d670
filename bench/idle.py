"""What a node that does nothing costs its scheduler in memory and processor time, with the pool's
TLS and without, and what the node itself takes.

Nodes come in crowds (`bench/crowd.py`), so that what a node takes is without its interpreter.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path

from bench.measure import Column, Outcome, Sample, Samples
from bench.pool import free_port, token
from bench.processes import cpu_seconds, memory, program
from protocol.remote.client import HttpService

COUNTS = (0, 200, 500)
"""Nodes at which is measured."""
WITHOUT, TLS = "without TLS", "by TLS"
_CALM = 6.0  # seconds that they are left alone before
_WATCHED = 10.0  # seconds in which processor time is counted: two polls of each
_START = 600.0  # seconds that they may take to be ready
COLUMNS = (
    *(Column(f"{count}", f"scheduler, {count} nodes, MiB") for count in COUNTS),
    Column("each", "KiB a node", digits=1, ratio=True, spread=True),
    Column("node", "node itself, KiB"),
    Column("cpu", f"scheduler CPU, {COUNTS[-1]} nodes, ms/s", digits=1, ratio=True, spread=True),
)


async def run(runs: int) -> Outcome:
    """Measure. Without a round to warm up: each begins with fresh programs."""
    samples: Samples = {WITHOUT: [], TLS: []}
    for _ in range(runs):
        for name, taken in samples.items():
            taken.append(await _measured(tls=name == TLS))
    return Outcome("Memory of a scheduler whose nodes are idle", COLUMNS, samples)


async def _measured(*, tls: bool) -> Sample:
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-")))
        gate = f"127.0.0.1:{free_port()}"
        flags = ("--pool-listen", gate) if tls else ()
        scheduler = await ending.enter_async_context(program(folder, "scheduler", *flags))
        join = [f"https://{gate}", await token(scheduler.url)] if tls else [scheduler.url]
        client = HttpService(scheduler.url)
        ending.push_async_callback(client.close)
        sample: Sample = {}
        crowds = []
        for before, count in zip((0, *COUNTS), COUNTS, strict=False):
            crowds.append(
                await ending.enter_async_context(
                    _crowd(folder / f"crowd{count}", count - before, join)
                )
            )
            await _ready(client, count)
            await asyncio.sleep(_CALM)
            sample[f"{count}"] = memory(scheduler.pid)
        used, began = cpu_seconds(scheduler.pid), time.monotonic()
        await asyncio.sleep(_WATCHED)
        used = cpu_seconds(scheduler.pid) - used
        *_, some, most = COUNTS
        last = memory(crowds[-1].pid) - memory(crowds[0].pid)
        return sample | {
            "each": 1024 * (sample[f"{most}"] - sample[f"{some}"]) / (most - some),
            "node": 1024 * last / (most - some),
            "cpu": 1000 * used / (time.monotonic() - began),
        }


@contextlib.asynccontextmanager
async def _crowd(folder: Path, count: int, join: list[str]) -> AsyncIterator[Process]:
    """So many nodes in a process while the context lasts."""
    folder.mkdir()
    with folder.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.crowd", str(folder), str(count), *join),
            stdout=DEVNULL,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()  # a clean end of each takes long, and nothing is to be kept
        await process.wait()


async def _ready(client: HttpService, count: int) -> None:
    """Return when the scheduler has so many nodes that are ready."""
    async with asyncio.timeout(_START):
        while True:
            roster = await client.roster()
            if sum(node.state == "ready" for node in roster.nodes) == count:
                return
            await asyncio.sleep(1)

"""Creates over HTTP on a scheduler whose store is on disk, beside the same server with the same
store that does not sync, and with one in memory: what it costs a client that nothing acknowledged
is lost.

Nothing is built: there is no node, and the builds wait.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from bench.measure import Column, Outcome, Sample, Side, interleaved, typical
from bench.processes import program
from bench.store import DISK, a_request
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService

AIM = 0.9
"""How many times the rate of the server that does not sync it should reach."""
CREATES = {1: 400, 32: 2000}
"""Clients at a time -> creates of all of them in one run."""
COLUMNS = (
    Column("rate", "creates/s", ratio=True),
    Column("median", "median, ms", digits=2),
    Column("slow", "99%, ms", digits=2),
)
_UNSYNCED = """\
import functools, runpy
from scheduler.stores import sqlite
sqlite.Database = functools.partial(sqlite.Database, synchronous=False)
runpy.run_module("imagepool", run_name="__main__", alter_sys=True)
"""
_PROGRAM = ("-m", "imagepool")
_STORES = {
    "no sync": ("", ("-c", _UNSYNCED)),
    "memory": ("memory:", _PROGRAM),
    "disk": ("", _PROGRAM),
}
"""Name of a side -> the store's URL, and how the server is started."""


async def run(runs: int) -> Outcome:
    """Measure."""
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(
            ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-", dir=DISK))
        )
        sides: dict[str, Side] = {}
        clients: dict[str, HttpService] = {}
        for name, (store, start) in _STORES.items():
            settings = {"IMAGEPOOL_STORE": store, "IMAGEPOOL_WAITING_LIMIT": "100000000"}
            (folder / name).mkdir()
            running = await ending.enter_async_context(
                program(folder / name, "scheduler", environment=settings, start=start)
            )
            clients[name] = HttpService(running.url)
            ending.push_async_callback(clients[name].close)
        for callers in CREATES:
            for name, client in clients.items():
                sides[_name(name, callers)] = _side(client, callers)
        samples = await interleaved(sides, runs)
    notes = []
    for callers in CREATES:
        disk, unsynced, memory = (
            typical(samples, _name(n, callers), "rate") or 0 for n in ("disk", "no sync", "memory")
        )
        if unsynced and memory:
            notes.append(
                f"{callers} clients: {disk / unsynced:.2f} times the rate of the server that does "
                f"not sync (aim: at least {AIM}), {disk / memory:.2f} times the one in memory"
            )
    return Outcome("Creates over HTTP", COLUMNS, samples, tuple(notes))


def _name(store: str, callers: int) -> str:
    return f"{store}, {callers} client{'s' * (callers > 1)}"


def _side(client: HttpService, callers: int) -> Side:
    """So many clients that each create one build after another."""

    async def create() -> Sample:
        request = a_request()
        took: list[float] = []

        async def call(count: int) -> None:
            for _ in range(count):
                before = time.perf_counter()
                await client.submit(LOCAL, request)
                took.append(time.perf_counter() - before)

        began = time.perf_counter()
        await asyncio.gather(*(call(CREATES[callers] // callers) for _ in range(callers)))
        seconds = time.perf_counter() - began
        return {
            "rate": len(took) / seconds,
            "median": 1000 * statistics.median(took),
            "slow": 1000 * statistics.quantiles(took, n=100)[98],
        }

    return create

"""A large artifact through the scheduler's relay, beside nginx's proxy in front of the same node,
beside the node itself. The client is the same for all: `bench/download.py`, a process of its own.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path

from bench.measure import Column, Outcome, Sample, Side, interleaved, typical
from bench.nginx import PROXIES, nginx
from bench.processes import Running, cpu_seconds, forget_peak, free_slot, peak_memory, program
from protocol.model.build import Build, Result, Stage
from protocol.model.recipe import Command, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService

SIZE = 1 << 30
"""Bytes of the artifact."""
DIRECT, RELAY = "the node itself", "scheduler's relay"
COLUMNS = (
    Column("speed", "MB/s", ratio=True),
    Column("relay", "relay CPU, s/GiB", digits=2),
    Column("origin", "node CPU, s/GiB", digits=2),
    Column("memory", "relay peak, MiB"),
)


async def run(runs: int) -> Outcome:
    """Measure."""
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-")))
        node = await ending.enter_async_context(program(folder, "node", "--engine", "dummy"))
        scheduler = await ending.enter_async_context(
            program(folder, "scheduler", "--node", node.url)
        )
        path = await artifact(scheduler.url)
        proxy = await ending.enter_async_context(nginx(folder, node.url))
        sides = {DIRECT: side(node.url + path, node, None)}
        for name, (prefix, _) in PROXIES.items():
            sides[name] = side(f"{proxy.url}/{prefix}{path}", node, proxy)
        sides[RELAY] = side(scheduler.url + path, node, scheduler)
        samples = await interleaved(sides, runs)
    ours = typical(samples, RELAY, "speed") or 0
    notes = [
        f"the relay has {ours / (typical(samples, name, 'speed') or 1):.2f} times the speed of "
        f"the {name}"
        for name in PROXIES
    ]
    title = f"An artifact of {SIZE >> 20} MiB over loopback, in page cache"
    return Outcome(title, COLUMNS, samples, tuple(notes))


async def artifact(url: str) -> str:
    """Let the pool make it; its path, the same on node and scheduler."""
    client = HttpService(url)
    try:
        await free_slot(client)
        command = Command("make", text=f"artifact {SIZE}")
        build: Build = await client.submit(LOCAL, BuildRequest(Recipe((command,))))
        while build.stage is not Stage.STOPPED:
            build = await client.get(LOCAL, build.id, after=build.revision, wait=30)
    finally:
        await client.close()
    if build.result is not Result.SUCCEEDED:
        raise RuntimeError(f"no artifact was made: {build.reason}")
    return f"/api/v1/builds/{build.id}/artifacts/{build.artifacts[0].name}"


def side(url: str, origin: Running, relay: Running | None) -> Side:
    """A download by this URL; what it costs the node, and the program between."""

    async def download() -> Sample:
        used = cpu_seconds(origin.pid), cpu_seconds(relay.pid) if relay else 0
        if relay:
            forget_peak(relay.pid)
        seconds = await _downloaded(url)
        sample = {
            "speed": SIZE / seconds / 1e6,
            "origin": (cpu_seconds(origin.pid) - used[0]) * (1 << 30) / SIZE,
        }
        if relay:
            sample["relay"] = (cpu_seconds(relay.pid) - used[1]) * (1 << 30) / SIZE
            sample["memory"] = peak_memory(relay.pid)
            sample["whole"] = sample["origin"] + sample["relay"]
        return sample

    return download


async def _downloaded(url: str) -> float:
    """Seconds that the client took."""
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.download", url), stdout=PIPE
    )
    answer, _ = await client.communicate()
    if client.returncode:
        raise RuntimeError(f"{url} was not downloaded")
    said = json.loads(answer)
    if said["bytes"] != SIZE:
        raise RuntimeError(f"{url} has {said['bytes']} bytes, not {SIZE}")
    return float(said["seconds"])

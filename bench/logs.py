"""What the log of a build costs its pool, for 1, 10 and 100 viewers: followed through the scheduler
while a command on the real engine writes it, and read once it is there; beside the docker SDK's
`logs(stream=True)` of a container that prints the same lines, and beside a server that sends an
event for each line. And how long after it was written a line can be read at the scheduler.

Cost is processor time of what serves, per 100 MB of log: of scheduler and node; of the process that
uses the SDK, without the engine, which does as much again; of the server of events.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from bench.measure import Column, Outcome, Sample, Side, interleaved, typical
from bench.processes import Running, cpu_seconds, free_slot, program
from node.config import NodeSettings
from protocol.model.build import Build, Position, Result, Stage
from protocol.model.recipe import Command, NoOutput, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService

SIZE = 100_000_000
"""Bytes of a log."""
VIEWERS = (1, 10, 100)
OTHERS = 20_000_000
"""Bytes that the slow sides serve in all, to each viewer his share; the cost goes by bytes."""
LINE = b"0123456789" * 9 + b"abcdefghi\n"
SDK, EVENTS, LIVE, KEPT = "docker SDK", "event for each line", "pool, followed", "pool, kept"
AIMS = {SDK: 20, EVENTS: 50}
"""Side -> how many times less a followed log is to cost."""
LATENCY = 100.0
"""Milliseconds after which a line is to be there, at the 99th percentile."""
_TIMED = 200  # lines, 50 ms apart
_TELL_TIME = f"#!/bin/sh\nfor i in $(seq {_TIMED}); do date +%s%N; sleep 0.05; done\n"
_WRITE = f"#!/bin/sh\nyes '{LINE[:-1].decode()}' | head -c {SIZE}\n"
COLUMNS = tuple(
    Column(f"{count}", f"{count} viewers, CPU s" if count > 1 else "1 viewer, CPU s", 3)
    for count in VIEWERS
) + tuple(Column(f"node {count}", f"node, {count}", 3) for count in VIEWERS)


class Pool:
    """A scheduler and a node on the real engine."""

    def __init__(self, client: HttpService, scheduler: Running, node: Running) -> None:
        self._client = client
        self._scheduler = scheduler
        self._node = node

    async def followed(self) -> Sample:
        """A log that is followed from its first byte."""
        return await self._costs(self._follow)

    async def kept(self) -> Sample:
        """A log that is there already."""
        build_id = await self._begun(_WRITE)
        await self._ended(build_id)
        return await self._costs(lambda count: self._read(build_id, count, ""))

    async def delays(self) -> list[float]:
        """Milliseconds from when a line was written to when it was there, shortest first."""
        build_id = await self._begun(_TELL_TIME)
        opened = await self._client.open_log(LOCAL, build_id, Position(), follow=True)
        delays, rest = [], b""
        async for piece in opened.stream:
            now = time.time_ns()
            *lines, rest = (rest + piece).split(b"\n")
            delays += [(now - int(line)) / 1e6 for line in lines if line.isdigit()]
        await self._ended(build_id)
        if len(delays) != _TIMED:
            raise RuntimeError(f"{len(delays)} lines came, not {_TIMED}")
        return sorted(delays)

    async def _costs(self, serve: Callable[[int], Coroutine[Any, Any, None]]) -> Sample:
        sample: Sample = {}
        for count in VIEWERS:
            before = [cpu_seconds(one.pid) for one in (self._node, self._scheduler)]
            await serve(count)
            node, scheduler = (
                cpu_seconds(one.pid) - used
                for one, used in zip((self._node, self._scheduler), before, strict=True)
            )
            sample |= {f"{count}": node + scheduler, f"node {count}": node}
        return sample

    async def _follow(self, count: int) -> None:
        build_id = await self._begun(_WRITE)
        await self._read(build_id, count, "&follow=1")
        await self._ended(build_id)

    async def _read(self, build_id: str, count: int, how: str) -> None:
        url = f"{self._scheduler.url}/api/v1/builds/{build_id}/log?position=1:0{how}"
        await _run("drain", url, count, SIZE)

    async def _begun(self, text: str) -> str:
        await free_slot(self._client)
        request = BuildRequest(Recipe((Command("write", text=text),), output=NoOutput()))
        build: Build = await self._client.submit(LOCAL, request)
        return build.id

    async def _ended(self, build_id: str) -> None:
        build: Build = await self._client.get(LOCAL, build_id)
        while build.stage is not Stage.STOPPED:
            build = await self._client.get(LOCAL, build_id, after=build.revision, wait=30)
        if build.result is not Result.SUCCEEDED:
            raise RuntimeError(f"the build that writes did not succeed: {build.reason}")


async def run(runs: int) -> Outcome:
    """Measure."""
    image = os.environ.get("BASE_IMAGE", NodeSettings().base_image)
    try:
        async with contextlib.AsyncExitStack() as ending:
            folder = Path(
                ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-"))
            )
            pool = await _pool(ending, folder, image)
            delays = await pool.delays()
            sides: dict[str, Side] = {
                SDK: lambda: _by_engine(image),
                EVENTS: lambda: _by_events(folder),
                LIVE: pool.followed,
                KEPT: pool.kept,
            }
            samples = await interleaved(sides, runs)
    except DockerException as error:
        raise RuntimeError(f"the engine: {error}") from error
    notes = [
        f"viewers of a log that grows, {count}: 1/{_times(samples, other, count):.0f} of {other} "
        f"(aim: 1/{aim})"
        for other, aim in AIMS.items()
        for count in VIEWERS
    ]
    half, most = (delays[int(len(delays) * part)] for part in (0.5, 0.99))
    notes.append(
        f"a line was there after {half:.0f} ms (median), {most:.0f} ms (99th percentile; aim: "
        f"{LATENCY:.0f} ms), {len(delays)} lines"
    )
    notes.append(
        f"{SDK} and {EVENTS} serve {OTHERS / 1e6:.0f} MB to all viewers together; their cost per "
        f"{SIZE / 1e6:.0f} MB is worked out from that"
    )
    title = (
        f"Processor time to serve a log, s per {SIZE / 1e6:.0f} MB in lines of {len(LINE)} bytes"
    )
    return Outcome(title, COLUMNS, samples, tuple(notes))


def _times(samples: dict[str, list[Sample]], other: str, count: int) -> float:
    ours = typical(samples, LIVE, f"{count}") or 0
    return (typical(samples, other, f"{count}") or 0) / max(ours, 0.001)


async def _pool(ending: contextlib.AsyncExitStack, folder: Path, image: str) -> Pool:
    settings = folder / "node.toml"
    settings.write_text(f'[node]\nbase_image = "{image}"\n')
    flags = ("--config", str(settings), "--engine", "docker")
    node = await ending.enter_async_context(program(folder, "node", *flags))
    scheduler = await ending.enter_async_context(program(folder, "scheduler", "--node", node.url))
    client = HttpService(scheduler.url)
    ending.push_async_callback(client.close)
    await free_slot(client)
    return Pool(client, scheduler, node)


def _shares() -> Iterator[tuple[int, int]]:
    """Of each number of viewers, the bytes for each of them: whole lines."""
    for count in VIEWERS:
        yield count, OTHERS // count // len(LINE) * len(LINE)


async def _by_engine(image: str) -> Sample:
    """By the docker SDK, of a container that has ended: who follows one may not get all of it."""
    sample: Sample = {}
    client = await asyncio.to_thread(docker.APIClient, version="auto")
    with contextlib.closing(client):
        for count, size in _shares():
            line = f"yes '{LINE[:-1].decode()}' | head -c {size}"
            container = client.create_container(image, ["-c", line], entrypoint="sh")["Id"]
            try:
                client.start(container)
                await asyncio.to_thread(client.wait, container)
                used = float(await _run("engine", container, count, size))
                sample[f"{count}"] = used * SIZE / size
            finally:
                client.remove_container(container, force=True)
    return sample


async def _by_events(folder: Path) -> Sample:
    """By a server that sends an event for each line."""
    sample: Sample = {}
    for count, size in _shares():
        file = folder / "lines"
        file.write_bytes(LINE * (size // len(LINE)))
        server = await _started("lines", file)
        try:
            assert server.stdout is not None
            port = int(await server.stdout.readline())
            used = cpu_seconds(server.pid)
            await _run("drain", f"http://127.0.0.1:{port}/", count, size)
            sample[f"{count}"] = (cpu_seconds(server.pid) - used) * SIZE / size
        finally:
            server.terminate()
            await server.wait()
    return sample


async def _run(*what: object) -> str:
    """What a reader prints when it is done."""
    reader = await _started(*what)
    said, _ = await reader.communicate()
    if reader.returncode:
        raise RuntimeError(f"a log was not read: {what}")
    return said.decode()


async def _started(*what: object) -> asyncio.subprocess.Process:
    arguments = [sys.executable, "-m", "bench.readers", *map(str, what)]
    return await asyncio.create_subprocess_exec(*arguments, stdout=PIPE)

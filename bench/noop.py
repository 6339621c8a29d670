"""A build that does nothing, through the pool on the real engine, beside the raw engine API's
create, start, wait and remove: same image, limits, network and capabilities.

The pool's time is counted twice, from the submission on: until a held `get` says that the build has
stopped, and until the scheduler has a free slot again.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import docker
from docker.errors import DockerException

from bench.measure import Column, Outcome, Sample, interleaved, typical
from bench.processes import Running, cpu_seconds, free_slot, program
from node.config import NodeSettings
from node.container import limits
from node.engines.base import ContainerSpec
from node.engines.docker_config import container_config
from protocol.model.build import Result, Stage
from protocol.model.recipe import Command, NoOutput, Recipe
from protocol.model.request import BuildRequest, Needs
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService

AIM = 1.25
"""How many times the raw engine's whole cycle a build may take until it has stopped."""
RAW, EMPTY, TRIVIAL = "engine API", "pool, no command", "pool, one command"
COLUMNS = (
    Column("ended", "ended, ms", ratio=True),
    Column("free", "removed, ms", ratio=True),
    Column("scheduler", "scheduler CPU, ms", mean=True),
    Column("node", "node CPU, ms", mean=True),
)


class Raw:
    """The engine without us."""

    def __init__(self, image: str) -> None:
        self._client = docker.APIClient(version="auto")
        self._config = container_config(_spec(image), self._client.info()["NCPU"])

    async def run(self) -> Sample:
        """One container, from its creation to its removal."""
        return await asyncio.to_thread(self._run)

    def _run(self) -> Sample:
        began = time.perf_counter()
        container = self._client.create_container_from_config(self._config)["Id"]
        self._client.start(container)
        answer = self._client.wait(container)
        ended = time.perf_counter()
        self._client.remove_container(container)
        removed = time.perf_counter()
        if answer["StatusCode"]:
            raise RuntimeError(f"the no-op container ended with {answer['StatusCode']}")
        return {"ended": 1000 * (ended - began), "free": 1000 * (removed - began)}


class Pooled:
    """A build through the scheduler's URL."""

    def __init__(self, client: HttpService, scheduler: Running, node: Running) -> None:
        self._client = client
        self._pids = {"scheduler": scheduler.pid, "node": node.pid}

    async def run(self, *texts: str) -> Sample:
        """One build, until its slot is free again."""
        commands = tuple(Command("nothing", text=text) for text in texts)
        request = BuildRequest(Recipe(commands, output=NoOutput()))
        used = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        began = time.perf_counter()
        build = await self._client.submit(LOCAL, request)
        while build.stage is not Stage.STOPPED:
            build = await self._client.get(LOCAL, build.id, after=build.revision, wait=30)
        ended = time.perf_counter()
        await free_slot(self._client)
        free = time.perf_counter()
        if build.result is not Result.SUCCEEDED:
            raise RuntimeError(f"the no-op build did not succeed: {build.reason}")
        cpu = {name: 1000 * (cpu_seconds(pid) - used[name]) for name, pid in self._pids.items()}
        return {"ended": 1000 * (ended - began), "free": 1000 * (free - began), **cpu}


async def run(runs: int) -> Outcome:
    """Measure."""
    image = os.environ.get("BASE_IMAGE", NodeSettings().base_image)
    try:
        raw = await asyncio.to_thread(Raw, image)
        async with _pool(image) as pool:
            sides = {
                RAW: raw.run,
                EMPTY: pool.run,
                TRIVIAL: lambda: pool.run("#!/bin/sh\nexit 0\n"),
            }
            samples = await interleaved(sides, runs)
    except DockerException as error:
        raise RuntimeError(f"the engine: {error}") from error
    whole = typical(samples, RAW, "free") or 0
    notes = [
        f"{side}: {(typical(samples, side, 'ended') or 0) / whole:.2f} times the engine's create, "
        f"start, wait, remove until the build has stopped (aim: at most {AIM})"
        for side in (EMPTY, TRIVIAL)
    ]
    return Outcome(f"A build that does nothing, image {image}", COLUMNS, samples, tuple(notes))


@contextlib.asynccontextmanager
async def _pool(image: str) -> AsyncIterator[Pooled]:
    """A scheduler and a node on the real engine."""
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-")))
        settings = folder / "node.toml"
        settings.write_text(f'[node]\nbase_image = "{image}"\n')
        node = await ending.enter_async_context(
            program(folder, "node", "--config", str(settings), "--engine", "docker")
        )
        scheduler = await ending.enter_async_context(
            program(folder, "scheduler", "--node", node.url)
        )
        client = HttpService(scheduler.url)
        ending.push_async_callback(client.close)
        pool = Pooled(client, scheduler, node)
        await free_slot(client)
        yield pool


def _spec(image: str) -> ContainerSpec:
    """What a node would ask for, less what is ours: no mounts, no supervisor."""
    settings = NodeSettings()
    return ContainerSpec(
        name="",
        image=image,
        entrypoint=("/bin/true",),
        environment={},
        labels={},
        mounts=(),
        limits=limits(Needs(), settings),
        capabilities=settings.capabilities,
    )

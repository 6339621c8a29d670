"""Engine and node share one small disk, and a build fills it: that build fails and says so, the
node's record stays whole, and the next build succeeds.
"""

import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from protocol.model.build import Build, Result, Stage
from protocol.model.recipe import OutboxOutput
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.chaos.docker_node import (
    SCRIPT,
    DockerNode,
    Program,
    a_scheduler,
    build_of,
    is_whole,
    whole_build,
)
from tests.programs import a_client, ended, until
from tests.system import engine as tools
from tests.system.private_engine import private_engine

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=120)]

MIB = 1 << 20
DISK = 1024 * MIB
SMALL = {"disk_reserve": 100 * MIB, "disk_floor": 32 * MIB, "disk_check": 0.2, "engine_check": 0.2}


class Pool(Struct):
    """A scheduler over a node that shares a small disk with its engine."""

    scheduler: Program
    node: DockerNode
    image: str


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """All of it, begun."""
    folder = tmp_path_factory.mktemp("d")
    with contextlib.ExitStack() as ending:
        small = ending.enter_context(a_disk(folder))
        engine = ending.enter_context(private_engine(small / "e", True))
        node = DockerNode(small / "node", engine.socket, **SMALL)
        ending.callback(node.end)
        node.begin()
        scheduler = a_scheduler(folder / "scheduler", node)
        ending.callback(scheduler.end)
        scheduler.begin()
        yield Pool(scheduler, node, engine.load(tools.shell_tree(), "ENV PATH=/bin"))


@contextlib.contextmanager
def a_disk(folder: Path) -> Iterator[Path]:
    """Where a file system of one gibibyte is mounted."""
    file, mounted = folder / "disk", folder / "m"
    with file.open("wb") as made:
        made.truncate(DISK)
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(file)], check=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
        file.unlink()


WAIT = "busybox sleep 60"
TO_THE_LAST = """n=0
for size in 512m 256m 128m 64m 32m 16m 8m 4m 2m 1m 512k 64k 4k; do
    while busybox fallocate -l $size PLACE$n 2>/dev/null; do n=$((n + 1)); done
done
"""
"""Faster than anybody looks at the disk."""
SHARED = "/outbox/fill"

FILLING = {
    "its layer": f"dd if=/dev/zero of=/fill bs=1M; {WAIT}",
    "its outbox": f"dd if=/dev/zero of={SHARED} bs=1M; {WAIT}",
    "its layer to the last byte": TO_THE_LAST.replace("PLACE", "/fill") + WAIT,
    "its outbox to the last byte": (
        TO_THE_LAST.replace("PLACE", SHARED) + f"busybox seq 1 100000; {WAIT}"
    ),
    "the log": f"cat /dev/zero; {WAIT}",  # the last: as a log it is kept
}


async def test_a_command_that_fails_of_it(pool: Pool) -> None:
    """Before the node has looked at the disk: the reason names it all the same."""
    with looking_every(pool, 60):
        text = TO_THE_LAST.replace("PLACE", "/fill") + "exit 9"
        async with a_client(pool.scheduler.url) as client:
            build = await fails(pool, client, text)
            assert "'command 0' ended with 9" in build.reason
            await the_next_succeeds(pool, client)


async def test_a_node_that_begins_on_a_full_disk(pool: Pool) -> None:
    """It was killed when its build had taken the last byte: it begins, and ends the build."""
    text = TO_THE_LAST.replace("PLACE", "/fill") + WAIT
    async with a_client(pool.scheduler.url) as client:
        with looking_every(pool, 60):
            filling = await client.submit(LOCAL, build_of(pool.image, f"{SCRIPT}{text}\n"))
            await until(client, filling.id, lambda build: build.stage is Stage.RUNNING)
            tools.until(lambda: shutil.disk_usage(pool.node.folder).free < 4096)
        build = await ended(client, filling.id)
        assert (build.result, build.attempt) == (Result.FAILED, 1), build
        assert names_the_disk(build)
        await has_on_record(pool, build)
        await the_next_succeeds(pool, client)


@pytest.mark.parametrize("way", FILLING)
async def test_a_build_fills_the_disk(pool: Pool, way: str) -> None:
    """It fails at its first attempt and names the disk; nothing of it stays, the record is whole,
    also after a kill, and the next build succeeds.
    """
    async with a_client(pool.scheduler.url) as client:
        build = await fails(pool, client, FILLING[way])
        await the_next_succeeds(pool, client)
        pool.node.kill()
        pool.node.begin()
        await has_on_record(pool, build)


@contextlib.contextmanager
def looking_every(pool: Pool, seconds: float) -> Iterator[None]:
    """The node looks at its disk so rarely. It is killed, and begins again, before and after."""
    usual = pool.node.environment
    pool.node.kill()
    pool.node.environment = {**usual, "IMAGEPOOL_DISK_CHECK": str(seconds)}
    pool.node.begin()
    try:
        yield
    finally:
        pool.node.kill()
        pool.node.environment = usual
        pool.node.begin()


async def fails(pool: Pool, client: HttpService, text: str) -> Build:
    """A build of this script fails for the disk at its first attempt, is on record, and nothing of
    it is left.
    """
    asked = build_of(pool.image, f"{SCRIPT}{text}\n", output=OutboxOutput())
    filling = await client.submit(LOCAL, asked)
    build = await ended(client, filling.id, 60)
    assert (build.result, build.attempt) == (Result.FAILED, 1), build
    assert names_the_disk(build), build.reason
    pool.node.nothing_left(build)
    await has_on_record(pool, build)
    return build


def names_the_disk(build: Build) -> bool:
    """Whether its user can see why it failed."""
    return "disk is full" in build.reason or "No space left on device" in build.reason


async def the_next_succeeds(pool: Pool, client: HttpService) -> None:
    """A build of the usual size, on the same node."""
    build = await client.submit(LOCAL, whole_build(pool.image))
    pool.node.open_gate(build.id)
    ends = await ended(client, build.id)
    await is_whole(client, ends)
    pool.node.nothing_left(ends)


async def has_on_record(pool: Pool, build: Build) -> None:
    """The node's file is sound, and the node knows how the build ended."""
    with contextlib.closing(sqlite3.connect(pool.node.folder / "node.db")) as record:
        assert record.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with a_client(pool.node.url) as direct:
        known = await direct.get(LOCAL, build.id)
    assert (known.result, known.reason) == (build.result, build.reason)

"""Logs that are followed through a scheduler while a build on the real engine writes them: every
viewer has every byte, whoever hangs up, is slow or dies.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec import Struct

from bench.processes import forget_peak, peak_memory
from protocol.errors import Unavailable
from protocol.model.build import Position, Result, Stage
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.chaos import local
from tests.chaos.docker_node import SCRIPT, DockerNode, Program, a_scheduler, build_of
from tests.chaos.viewer import Stalled, Viewer
from tests.figures import Figures
from tests.programs import a_client, ended, log_of, request, until
from tests.system import engine as tools

pytestmark = [pytest.mark.system, pytest.mark.chaos]

SEED = int(os.environ.get("SEED", "5"))
SIZE, VIEWERS, CUTS = 200_000_000, 20, 50
GROWTH = 128.0  # MiB that scheduler and node may each grow by
STALLED = 60.0  # seconds in which one viewer reads nothing
_LINES = 400  # hundreds of lines, 20 ms apart

APPLETS = {f"bin/{name}": tools.File(link="busybox") for name in ("sha256sum", "tee", "seq")}


class Pool(Struct):
    """Real programs on the real engine."""

    scheduler: Program
    node: DockerNode
    image: str
    client: HttpService

    async def begin(self, *texts: str) -> str:
        """Id of a build of these scripts, that runs now."""
        build = await self.client.submit(LOCAL, build_of(self.image, *texts))
        await until(self.client, build.id, lambda build: build.stage is Stage.RUNNING, 60)
        return build.id


@contextlib.asynccontextmanager
async def a_pool(folder: Path, **settings: object) -> AsyncIterator[Pool]:
    """A scheduler over one node, and a client of the scheduler."""
    async with contextlib.AsyncExitStack() as ending:
        ending.callback(tools.remove_everything)
        image = tools.make_image(tools.shell_tree(**APPLETS))
        node = DockerNode(folder / "node", **settings)
        ending.callback(node.clear)
        node.begin()
        scheduler = a_scheduler(folder / "scheduler", node)
        ending.callback(scheduler.kill)
        scheduler.begin()
        client = await ending.enter_async_context(a_client(scheduler.url))
        yield Pool(scheduler, node, image, client)


def noise(size: int, parts: int) -> str:
    """A script that writes random bytes, in so many bursts, and then their digest."""
    burst = f"head -c {size // parts} /dev/urandom; busybox usleep 200000"
    loop = f"for i in $(seq {parts}); do {burst}; done"
    return f"{SCRIPT}({loop}) | tee /dev/stderr | sha256sum | head -c 64\n"


def is_right(viewer: Viewer, whole: bytes, size: int) -> bool:
    """Whether its copy is the node's log."""
    same = viewer.digest.hexdigest() == hashlib.sha256(whole).hexdigest()
    return same and viewer.position.offset == len(whole) == size + 64


@pytest.mark.slow
@pytest.mark.gen_test(timeout=280)
async def test_twenty_viewers_of_a_large_log(tmp_path: Path, figures: Figures) -> None:
    """200 MB of random bytes, twenty viewers, each hanging up fifty times at random, one more that
    reads nothing for a minute: every copy has the digest that the command itself computed, and
    neither program's memory grows with the log or with its viewers.
    """
    draw = random.Random(SEED)
    async with a_pool(tmp_path, log_limit=400_000_000) as pool:
        programs = {"node": pool.node, "scheduler": pool.scheduler}
        pids = {name: program.process.pid for name, program in programs.items()}  # type: ignore[union-attr]
        for pid in pids.values():
            forget_peak(pid)
        before = {name: peak_memory(pid) for name, pid in pids.items()}
        build_id = await pool.begin(noise(SIZE, 20))
        began = time.monotonic()
        stalled = Stalled(pool.scheduler.url, build_id)
        viewers = [
            Viewer(pool.client, build_id, sorted(draw.sample(range(1, SIZE), CUTS)))
            for _ in range(VIEWERS)
        ]
        await asyncio.gather(*(viewer.watch() for viewer in viewers))
        took = time.monotonic() - began
        build = await ended(pool.client, build_id)
        assert build.result is Result.SUCCEEDED, build
        whole = await log_of(pool.client, build_id)
        assert whole[SIZE:].decode() == hashlib.sha256(whole[:SIZE]).hexdigest()
        for viewer in viewers:
            assert is_right(viewer, whole, SIZE)
            assert (viewer.broken, viewer.refused) == (0, 0)
        await asyncio.sleep(began + STALLED - time.monotonic())
        late = await asyncio.to_thread(stalled.read)
        assert hashlib.sha256(late).digest() == hashlib.sha256(whole).digest()
        grown = {name: peak_memory(pid) - before[name] for name, pid in pids.items()}
        words = ", ".join(f"{name} {before[name]:.0f} + {grown[name]:.0f} MiB" for name in pids)
        figures(
            f"{VIEWERS} viewers of {SIZE} bytes, each cut {CUTS} times (seed {SEED}): "
            f"all right after {took:.1f} s; peak memory: {words}"
        )
        assert max(grown.values()) < GROWTH, grown


@pytest.mark.slow
@pytest.mark.gen_test(timeout=120)
async def test_a_viewer_that_reads_nothing_holds_up_nobody(
    tmp_path: Path, figures: Figures
) -> None:
    """The others come to the end while it has read nothing; then it gets all of it."""
    size = 40_000_000
    async with a_pool(tmp_path) as pool:
        for stalls in (False, True):
            build_id = await pool.begin(noise(size, 10))
            began = time.monotonic()
            stalled = Stalled(pool.scheduler.url, build_id) if stalls else None
            viewers = [Viewer(pool.client, build_id) for _ in range(5)]
            await asyncio.gather(*(viewer.watch() for viewer in viewers))
            took = time.monotonic() - began
            whole = await log_of(pool.client, build_id)
            for viewer in viewers:
                assert is_right(viewer, whole, size)
            if stalled is not None:
                assert await asyncio.to_thread(stalled.read) == whole
            beside = "beside one that reads nothing" if stalls else "by themselves"
            figures(f"5 viewers of {size} bytes, {beside}: {took:.2f} s")


def _lines() -> bytes:
    return b"".join(b"%d\n" % number for number in range(100 * _LINES))


SLOW_LINES = (
    f"{SCRIPT}for i in $(seq 0 {_LINES - 1}); do\n"
    "seq $((i * 100)) $((i * 100 + 99)); busybox usleep 20000\ndone\n"
)

Blow = Callable[[Pool], Awaitable[None]]


async def _again(*programs: Program) -> None:
    for program in programs:
        await asyncio.to_thread(program.kill)
    for program in programs:
        await asyncio.to_thread(program.begin)


BLOWS: dict[str, Blow] = {
    "scheduler": lambda pool: _again(pool.scheduler),
    "node": lambda pool: _again(pool.node),
    "both": lambda pool: _again(pool.scheduler, pool.node),
}


@pytest.mark.gen_test(timeout=120)
@pytest.mark.parametrize("blow", BLOWS)
async def test_viewers_go_on_after_a_kill(tmp_path: Path, blow: str) -> None:
    """kill -9, twice: whoever reads is cut off, never told that the log has ended; the position
    that he has is good in the next life, and in the end his copy is whole.
    """
    whole = _lines()
    async with a_pool(tmp_path) as pool:
        build_id = await pool.begin(SLOW_LINES)
        viewers = [Viewer(pool.client, build_id) for _ in range(3)]
        watching = [asyncio.create_task(viewer.watch()) for viewer in viewers]
        for share in (10, 3):
            while min(viewer.position.offset for viewer in viewers) < len(whole) // share:
                assert not any(task.done() for task in watching)
                await asyncio.sleep(0.05)
            await BLOWS[blow](pool)
        await asyncio.gather(*watching)
        build = await ended(pool.client, build_id, 60)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1), build
        for viewer in viewers:
            assert viewer.position.offset == len(whole)
            assert viewer.digest.digest() == hashlib.sha256(whole).digest()
            assert viewer.broken >= 2  # once more where the scheduler is back before the node
            assert viewer.attempts == [1]


@pytest.mark.slow
@pytest.mark.gen_test(timeout=60)
async def test_viewers_of_a_node_that_hangs_are_cut_off(tmp_path: Path, figures: Figures) -> None:
    """It is there and says nothing: when another node has the build, who follows the first attempt
    is told, not left waiting. His position answers the second attempt, from 0.
    """
    nodes = {name: local.a_node(tmp_path / name) for name in ("anvil", "forge")}
    scheduler = local.a_scheduler(tmp_path / "scheduler", *(node.url for node in nodes.values()))
    programs = [*nodes.values(), scheduler]
    local.begin_all(programs)
    try:
        async with a_client(scheduler.url) as client:
            build = await client.submit(LOCAL, request("print begun", "sleep 3", "hang"))
            opened = await client.open_log(LOCAL, build.id, Position(), follow=True)
            reader = aiter(opened.stream)
            assert await anext(reader) == b"begun\n"
            build = await client.get(LOCAL, build.id)
            assert build.node is not None
            nodes[build.node.name].stop()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await anext(reader)
            figures(f"node that hangs: its viewer was told after {time.monotonic() - began:.1f} s")
            await opened.stream.close()
            position = Position(1, len(b"begun\n"))
            opened = await client.open_log(LOCAL, build.id, position, follow=True)
            assert (opened.attempt, opened.start) == (2, 0)
            await opened.stream.close()
            await client.cancel(LOCAL, build.id)
    finally:
        local.end_all(programs)


@pytest.mark.gen_test(timeout=60)
async def test_the_log_limit_is_stated_where_it_bites(tmp_path: Path) -> None:
    """Once for each command whose output is not kept, with the number of bytes, first at the limit;
    the rest is drained and the build goes on. Who follows and who comes later have the same.
    """
    limit, size = 1 << 20, 5_000_000
    text = f"{SCRIPT}yes 0123456789abcde | head -c {size}\necho more\n"
    async with a_pool(tmp_path, log_limit=limit) as pool:
        build_id = await pool.begin(text, f"{SCRIPT}exit 0\n", f"{SCRIPT}echo the third\n")
        viewer = await Viewer(pool.client, build_id).watch()
        build = await ended(pool.client, build_id)
        whole = await log_of(pool.client, build_id)
        assert build.result is Result.SUCCEEDED, build
        assert [command.exit_code for command in build.commands] == [0, 0, 0]
        words = b"\n[imagepool: the log has reached its limit of %d bytes]\n" % limit
        assert whole == (b"0123456789abcde\n" * size)[:limit] + words + words
        places = [(command.start, command.end) for command in build.commands]
        first, second = limit + len(words), limit + 2 * len(words)
        assert places == [(0, first), (first, first), (first, second)]
        assert viewer.digest.digest() == hashlib.sha256(whole).digest()

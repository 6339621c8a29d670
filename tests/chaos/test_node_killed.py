"""A node killed with SIGKILL between any two steps of a build and started again: the build ends
`succeeded` at its first attempt, with its whole log and the right image, and nothing of it stays.
"""

import asyncio
import contextlib
import hashlib
import io
import time
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from signal import SIGSTOP

import pytest
from msgspec import Struct
from msgspec.structs import replace

from protocol.model.build import Result
from protocol.model.recipe import IsoOutput, OutboxOutput, Output, PathsOutput, StreamOutput
from protocol.model.request import BuildRequest, Needs
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.chaos.docker_node import (
    GATE,
    OUT,
    SCRIPT,
    DockerNode,
    Program,
    a_scheduler,
    build_of,
    is_whole,
    runs,
    whole_build,
)
from tests.chaos.killed_at import Moment
from tests.programs import a_client, ended
from tests.system import engine as tools
from tests.system.engine import until

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=60)]

LARGE = f"{SCRIPT}truncate -s 600M /toiso/image.iso\n"
"""An image that takes a second to copy, and another to digest."""
LIMIT = 3.0  # seconds


class Pool(Struct):
    """A scheduler and the node that is killed."""

    scheduler: Program
    node: DockerNode
    image: str


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One scheduler for all that follows, and a node that has begun once."""
    folder = tmp_path_factory.mktemp("pool")
    with contextlib.ExitStack() as ending:
        ending.callback(tools.remove_everything)
        image = tools.make_image(tools.shell_tree(), "ENV PATH=/bin", 'VOLUME ["/kept"]')
        node = DockerNode(folder / "node")
        node.begin()
        ending.callback(node.clear)
        node.end()
        scheduler = a_scheduler(folder / "scheduler", node)
        ending.callback(scheduler.end)
        scheduler.begin()
        yield Pool(scheduler, node, image)


SAVE = "node.records:Records.save"
TAKEN = "part"
KEPT = "image.iso"

# Before its container has begun to run.
PREPARING = [
    ("before the record is written", Moment(SAVE, "before")),
    ("record written", Moment(SAVE)),
    ("preparing written", Moment(SAVE, nth=2)),
    ("before the image is obtained", Moment("node.engines.docker:DockerEngine.obtain", "before")),
    ("image obtained", Moment("node.engines.docker:DockerEngine.obtain")),
    ("work folder half made", Moment("node.files.workfolder:_fill_in")),
    ("work folder made", Moment("node.files.workfolder:WorkFolder.create")),
    ("before the container is created", Moment("node.engines.docker:container_config")),
    (
        "container created, not started",
        Moment("node.engines.docker_client:Client.create_container_from_config"),
    ),
]
# While its container runs.
RUNNING = [
    ("container started", Moment("node.engines.docker_client:Client.start")),
    ("container known", Moment("node.engines.docker:DockerEngine.start")),
    ("before running is written", Moment(SAVE, "before", nth=3)),
    ("running written", Moment(SAVE, nth=3)),
    ("before output is copied", Moment("node.files.logs:ServedLog.append", "before")),
    ("half of some output copied", Moment("node.files.logs:ServedLog.append", "half")),
    ("some output copied", Moment("node.files.logs:ServedLog.append")),
    ("progress seen", Moment("node.attempt.builder:Builder._note")),
]
# When its container has ended.
ENDING = [
    ("container ended", Moment("node.engines.docker:DockerEngine.wait")),
    ("all output copied", Moment("node.attempt.tail:Tail.finish")),
    ("before collecting is written", Moment(SAVE, "before", nth=4)),
    ("collecting written", Moment(SAVE, nth=4)),
    ("before the artifact is renamed", Moment("os:rename", "before", matching=TAKEN)),
    ("artifact renamed, not made harmless", Moment("os:rename", matching=TAKEN)),
    ("artifact taken, not digested", Moment("node.files.untrusted:check_taken")),
    ("digested, without its name", Moment("node.files.artifacts:_marked")),
    ("artifact kept", Moment("os:rename", matching=KEPT)),
    ("before the end is written", Moment("node.attempt.left:Left._written", "before")),
    ("end written, not cleaned up", Moment("node.attempt.left:Left._written")),
    ("container removed", Moment("node.engines.docker:DockerEngine.remove")),
    ("work folder half removed", Moment("node.files.untrusted:empty")),
    ("cleaned up", Moment("node.attempt.left:Left._clean_up")),
    ("end told, not acknowledged", Moment("node.ledger:Ledger.acknowledged", "before")),
    ("acknowledged", Moment("node.ledger:Ledger.acknowledged")),
]


def table(moments: list[tuple[str, Moment]]) -> pytest.MarkDecorator:
    """The moments, each a case with its name."""
    cases = [moment for _, moment in moments]
    return pytest.mark.parametrize("moment", cases, ids=[name for name, _ in moments])


@table(PREPARING)
async def test_before_it_runs(pool: Pool, moment: Moment) -> None:
    """The attempt begins anew, or goes on, under the same number."""
    async with killed(pool, moment) as (client, build_id):
        pool.node.reaches(moment)
        pool.node.begin()
        await goes_on(pool, client, build_id, gate=True)


@table(RUNNING)
@pytest.mark.parametrize("meanwhile", [False, True], ids=["goes on", "ends meanwhile"])
async def test_while_it_runs(pool: Pool, moment: Moment, meanwhile: bool) -> None:
    """Its commands go on, also to their end, while the node is dead."""
    async with killed(pool, moment) as (client, build_id):
        pool.node.reaches(moment)
        if meanwhile:
            container = pool.node.container(build_id)
            (pool.node.out(build_id) / "go").touch()
            pool.node.container_ends(container)
        pool.node.begin()
        await goes_on(pool, client, build_id, gate=not meanwhile)


@table(ENDING)
async def test_when_it_has_run(pool: Pool, moment: Moment) -> None:
    """The result is taken, and what is left removed, by the next life."""
    async with killed(pool, moment) as (client, build_id):
        container = pool.node.container(build_id)
        (pool.node.out(build_id) / "go").touch()
        pool.node.reaches(moment)
        assert container
        pool.node.begin()
        await goes_on(pool, client, build_id)


# What is collected otherwise than an image.
FILES = f"{SCRIPT}{GATE}mkdir /a; echo one >/a/x; echo two >/a/y\n"
FILES += "[ ! -e /outbox ] || busybox cp -r /a /outbox\necho streamed\n"
PATHS = PathsOutput(("/a/*", "/toiso/image.iso"))
COLLECTING = [
    ("first file taken", PATHS, Moment("os:rename", matching=".x.part")),
    ("second file, before it is taken", PATHS, Moment("os:rename", "before", matching=".y.part")),
    ("first file kept", PATHS, Moment("os:rename", matching="/x")),
    ("all files kept", PATHS, Moment("node.outputs.collecting:Collecting.all")),
    ("zip begun", OutboxOutput(), Moment("node.outputs.packing:_Packing.all", "before")),
    ("zip not yet whole", OutboxOutput(), Moment("node.outputs.packing:_Packing.all")),
    ("zip whole, not digested", OutboxOutput(), Moment("node.outputs.packing:pack")),
    ("zip kept", OutboxOutput(), Moment("os:rename", matching="/outbox.zip")),
    ("stream ended", StreamOutput(), Moment("node.outputs.growing:Streaming.finish")),
    ("stream taken", StreamOutput(), Moment("os:rename", matching=".stream.bin.part")),
    ("stream kept", StreamOutput(), Moment("os:rename", matching="/stream.bin")),
    (
        "before its end is written",
        StreamOutput(),
        Moment("node.attempt.builder:Builder._end", "before"),
    ),
]


@pytest.mark.parametrize(
    ("output", "moment"),
    [(output, moment) for _, output, moment in COLLECTING],
    ids=[name for name, _, _ in COLLECTING],
)
async def test_while_files_a_zip_or_a_stream_are_taken(
    pool: Pool, output: Output, moment: Moment
) -> None:
    """The next life goes on: all of it is there, once, and each has its digest."""
    asked = build_of(pool.image, FILES, output=output)
    async with killed(pool, moment, asked) as (client, build_id):
        container = pool.node.container(build_id)
        pool.node.open_gate(build_id)
        pool.node.reaches(moment)
        assert container
        pool.node.begin()
        build = await ended(client, build_id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1), build.reason
        names = {PathsOutput: ["x", "y", "image.iso"], OutboxOutput: ["outbox.zip"]}
        assert [one.name for one in build.artifacts] == names.get(type(output), ["stream.bin"])
        for artifact in build.artifacts:
            opened = await client.open_artifact(LOCAL, build_id, artifact.name)
            data = b"".join([piece async for piece in opened.stream])
            await opened.stream.close()
            assert hashlib.sha256(data).hexdigest() == artifact.sha256
            assert len(data) == artifact.size
            if artifact.name == "outbox.zip":
                packed = zipfile.ZipFile(io.BytesIO(data))
                assert packed.namelist() == ["a/", "a/x", "a/y"]
                assert packed.testzip() is None
        pool.node.nothing_left(build)


class TestCancelled:
    """A cancelled build ends so, with no artifact, and nothing of it stays."""

    async def test_while_it_waits(self, pool: Pool) -> None:
        """In the scheduler's queue, and in the node's own."""
        async with killed(pool, None) as (client, first), a_client(pool.node.url) as direct:
            pool.node.container(first)
            for service in (client, direct):
                waiting = await service.submit(LOCAL, whole_build(pool.image))
                await service.cancel(LOCAL, waiting.id)
                await is_cancelled(pool, service, waiting.id)
            pool.node.open_gate(first)
            await goes_on(pool, client, first)

    async def test_while_it_runs(self, pool: Pool) -> None:
        """Its container is killed and its volume removed."""
        async with killed(pool, None) as (client, build_id):
            volumes = pool.node.volumes(pool.node.container(build_id))
            assert volumes
            await client.cancel(LOCAL, build_id)
            await is_cancelled(pool, client, build_id, volumes)

    async def test_while_the_supervisor_copies_its_image(self, pool: Pool) -> None:
        """The copy is given up."""
        large = build_of(pool.image, LARGE, output=IsoOutput())
        async with killed(pool, None, large) as (client, build_id):
            result = pool.node.out(build_id) / "result"
            until(lambda: result.exists() and result.stat().st_size)
            assert result.stat().st_size < 600 << 20
            await client.cancel(LOCAL, build_id)
            await is_cancelled(pool, client, build_id)

    async def test_while_its_image_is_digested(self, pool: Pool) -> None:
        """What was taken is removed."""
        large = build_of(pool.image, LARGE, output=IsoOutput())
        moment = Moment("node.files.untrusted:check_taken", signal=SIGSTOP)
        async with killed(pool, moment, large) as (client, build_id):
            pool.node.reaches(moment)
            cancelling = asyncio.create_task(client.cancel(LOCAL, build_id))
            await ended(client, build_id)
            pool.node.wake()
            await cancelling
            await is_cancelled(pool, client, build_id)

    @pytest.mark.parametrize(
        "moment",
        [
            Moment(SAVE, "before", nth=4),
            Moment("node.engines.docker:DockerEngine.kill", "before"),
            Moment("node.engines.docker:DockerEngine.kill"),
        ],
        ids=["before it is written", "before its container is killed", "after"],
    )
    async def test_and_the_node_is_killed(self, pool: Pool, moment: Moment) -> None:
        """Its next life does what was asked of the earlier one."""
        async with killed(pool, moment) as (client, build_id):
            await runs(client, pool.node, build_id)
            await client.cancel(LOCAL, build_id)
            pool.node.reaches(moment)
            pool.node.begin()
            await is_cancelled(pool, client, build_id)


async def is_cancelled(
    pool: Pool, client: HttpService, build_id: str, volumes: Sequence[str] = ()
) -> None:
    """Where it was asked, and on the node, if it ever was there."""
    build = await ended(client, build_id)
    assert (build.result, build.artifacts) == (Result.CANCELLED, ())
    pool.node.nothing_left(build, volumes)


# Time limits


@pytest.mark.parametrize("whose", ["build", "command"])
@pytest.mark.parametrize("dead", [False, True], ids=["seen", "while the node is dead"])
async def test_time_limit(pool: Pool, whose: str, dead: bool) -> None:
    """What takes longer than it may ends, and says so; a node that was dead when the time was over
    ends it at once.
    """
    slow = f"{SCRIPT}busybox sleep {LIMIT:g}; touch {OUT}/over\n{GATE}"
    asked = build_of(pool.image, slow, needs=Needs(network=False))
    async with killed(pool, None, limited(asked, whose)) as (client, build_id):
        over = pool.node.out(build_id) / "over"
        if dead:
            pool.node.container(build_id)
            pool.node.kill()
            until(over.exists)
            pool.node.begin()
        since = time.monotonic()
        build = await ended(client, build_id)
        took = time.monotonic() - since
        assert (build.result, build.attempt) == (Result.TIMED_OUT, 1)
        assert build.reason.endswith(f"took longer than {LIMIT:g} s")
        assert not dead or took < LIMIT / 2, f"{took:.1f} s after the node began again"
        pool.node.nothing_left(build)


def limited(asked: BuildRequest, whose: str) -> BuildRequest:
    """The same with a time limit, of the build or of its command."""
    if whose == "build":
        needs = replace(asked.guidance.needs, time_limit=LIMIT)
        return replace(asked, guidance=replace(asked.guidance, needs=needs))
    commands = tuple(replace(one, time_limit=LIMIT) for one in asked.recipe.commands)
    return replace(asked, recipe=replace(asked.recipe, commands=commands))


@contextlib.asynccontextmanager
async def killed(
    pool: Pool, moment: Moment | None, asked: BuildRequest | None = None
) -> AsyncIterator[tuple[HttpService, str]]:
    """A client of the scheduler, and a build on a node that is going to end at that moment. When it
    is over the node has been told that its ends are on record, or this would come at a moment of
    its next life.
    """
    pool.node.begin(moment)
    try:
        async with a_client(pool.scheduler.url) as client:
            build = await client.submit(LOCAL, asked or whole_build(pool.image))
            yield client, build.id
        await asyncio.to_thread(until, pool.node.all_acknowledged)
    finally:
        pool.node.kill()


async def goes_on(pool: Pool, client: HttpService, build_id: str, *, gate: bool = False) -> None:
    """The build comes to its end, if it has not, and is whole; nothing else of it is left."""
    if gate:
        pool.node.open_gate(build_id)
    build = await ended(client, build_id)
    await is_whole(client, build)
    pool.node.nothing_left(build)

"""The engine dies or is stopped, or its machine is restarted, under running builds; and builds that
end their own container. The first is told and tried again, the second is the build's result.
"""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec import Struct

from protocol.model.build import Build, Result
from protocol.model.request import BuildRequest, Needs
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.chaos.docker_node import (
    SCRIPT,
    DockerNode,
    Program,
    a_scheduler,
    bound_over,
    build_of,
    is_whole,
    runs,
    whole_build,
)
from tests.chaos.killed_at import Moment
from tests.programs import a_client, ended, log_of
from tests.system import engine as tools
from tests.system.engine import until
from tests.system.private_engine import PrivateEngine, private_engine

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=90)]

BOOT = "/proc/sys/kernel/random/boot_id"
LOOKS = {"engine_check": 0.1, "clean_every": 0.3}  # seconds
STOPPING = 30.0  # seconds; an engine gives a container ten to end


class Pool(Struct):
    """A scheduler and its one node; `engine`: the node's own, where it is not the shared one."""

    scheduler: Program
    node: DockerNode
    image: str
    engine: PrivateEngine | None = None

    @property
    def own(self) -> PrivateEngine:
        """The engine that may be stopped."""
        assert self.engine is not None
        return self.engine


@pytest.fixture(scope="class")
def pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    """On an engine of its own; the parameter: whether that has live-restore."""
    folder = tmp_path_factory.mktemp("p")
    with private_engine(folder / "e", request.param) as engine:
        image = engine.load(tools.shell_tree(), "ENV PATH=/bin", 'VOLUME ["/kept"]')
        with begun(folder, engine.socket) as (node, scheduler):
            yield Pool(scheduler, node, image, engine)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """On the engine that others use too, which is left alone."""
    folder = tmp_path_factory.mktemp("p")
    try:
        image = tools.make_image(tools.shell_tree(), "ENV PATH=/bin", 'VOLUME ["/kept"]')
        with begun(folder, "") as (node, scheduler):
            yield Pool(scheduler, node, image)
    finally:
        tools.remove_everything()


@contextmanager
def begun(folder: Path, socket: str) -> Iterator[tuple[DockerNode, Program]]:
    """A node, whose machine's boot id is a file, and its scheduler; both must end well."""
    (folder / "boot").write_text(f"{uuid4()}\n")
    node = DockerNode(folder / "node", socket, **LOOKS)
    node.wrapper = bound_over(folder / "boot", BOOT)
    with ExitStack() as ending:
        node.begin()
        ending.callback(node.clear)
        ending.callback(node.end)
        scheduler = a_scheduler(folder / "scheduler", node)
        ending.callback(scheduler.end)
        scheduler.begin()
        yield node, scheduler


@asynccontextmanager
async def building(pool: Pool, asked: BuildRequest) -> AsyncIterator[tuple[HttpService, str]]:
    """A client of the scheduler, and a build that was asked for."""
    async with a_client(pool.scheduler.url) as client:
        yield client, (await client.submit(LOCAL, asked)).id


@pytest.mark.parametrize("pool", [True], indirect=True, ids=["live-restore"])
class TestAnEngineThatKeepsItsContainers:
    """Killed with SIGKILL and started again, at any time: the build does not notice."""

    async def test_in_the_middle_of_a_command(self, pool: Pool) -> None:
        """Its output goes on."""
        async with building(pool, whole_build(pool.image)) as (client, build_id):
            await runs(client, pool.node, build_id)
            pool.own.kill()
            pool.own.start()
            pool.node.open_gate(build_id)
            await succeeds(pool, client, build_id)

    async def test_and_the_commands_go_on_meanwhile(self, pool: Pool) -> None:
        """They come to their end while nobody is there to see it: the exit record tells."""
        async with building(pool, whole_build(pool.image)) as (client, build_id):
            await runs(client, pool.node, build_id)
            pool.own.kill()
            pool.node.open_gate(build_id)
            until((pool.node.out(build_id) / "exit").exists)
            pool.own.start()
            await succeeds(pool, client, build_id)

    @pytest.mark.parametrize("back", ["at once", "later"])
    @pytest.mark.parametrize(
        "step",
        ["node.engines.docker:DockerEngine.wait", "node.files.untrusted:check_taken"],
        ids=["container ended", "artifact taken"],
    )
    async def test_when_the_container_has_ended(self, pool: Pool, step: str, back: str) -> None:
        """It is collected all the same, and removed when the engine is back."""
        moment = Moment(step, signal=signal.SIGSTOP)
        async with stopping(pool, moment) as (client, build_id):
            pool.node.open_gate(build_id)
            pool.node.reaches(moment)
            pool.own.kill()
            if back == "at once":
                pool.own.start()
            pool.node.wake()
            if back == "later":
                await ended(client, build_id)
                pool.own.start()
            await succeeds(pool, client, build_id)

    async def test_before_the_container_is_created(self, pool: Pool) -> None:
        """That attempt is lost, and said to be; the next one succeeds when the engine is back."""
        moment = Moment("node.engines.docker:container_config", signal=signal.SIGSTOP)
        async with stopping(pool, moment) as (client, build_id):
            pool.node.reaches(moment)
            pool.own.kill()
            pool.node.wake()
            until(lambda: "does not answer" in pool.node.says()["reason"])
            pool.own.start()
            pool.node.open_gate(build_id, 2)
            build = await succeeds(pool, client, build_id, attempt=2)
            assert "does not answer" in lost_for(build)


@pytest.mark.parametrize("pool", [False], indirect=True, ids=["no-live-restore"])
class TestAnEngineThatEndsItsContainers:
    """What it ended is tried again, and the node says meanwhile why it takes nothing."""

    @pytest.mark.parametrize("how", ["kill", "stop"])
    async def test_is_tried_again(
        self, pool: Pool, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cause is in the history, and the second attempt succeeds."""
        monkeypatch.setattr("tests.system.processes._END", STOPPING)
        async with building(pool, whole_build(pool.image)) as (client, build_id):
            volumes = pool.node.volumes(pool.node.container(build_id))
            await runs(client, pool.node, build_id)
            getattr(pool.own, how)()
            until(lambda: "does not answer" in pool.node.says()["reason"])
            assert pool.node.says()["status"] == "busy"
            pool.own.start()
            pool.node.open_gate(build_id, 2)
            build = await succeeds(pool, client, build_id, volumes, attempt=2)
            assert "its engine was away when its container ended" in lost_for(build)


@pytest.mark.parametrize("pool", [True], indirect=True, ids=["live-restore"])
class TestAMachineThatIsRestarted:
    """Its boot id is another one, its engine in another life, its containers are dead or gone."""

    @pytest.mark.parametrize("remains", ["dead", "gone"])
    async def test_is_tried_again(self, pool: Pool, remains: str) -> None:
        """The machine's restart is the cause in the history; the second attempt succeeds."""
        async with building(pool, whole_build(pool.image)) as (client, build_id):
            container = pool.node.container(build_id)
            volumes = pool.node.volumes(container)
            await runs(client, pool.node, build_id)
            pool.node.kill()
            with pool.node.engine() as engine:
                engine.kill(container)
                pool.node.container_ends(container)
                if remains == "gone":
                    engine.remove_container(container, v=True)
            pool.own.kill()
            restart(pool)
            pool.own.start()
            pool.node.begin()
            pool.node.open_gate(build_id, 2)
            build = await succeeds(pool, client, build_id, volumes, attempt=2)
            assert "the machine was restarted" in lost_for(build)


def restart(pool: Pool) -> None:
    """The node's machine has another boot id when the node begins again."""
    (pool.node.folder.with_name("boot")).write_text(f"{uuid4()}\n")


class TestABuildThatEndsItself:
    """Its failure is its result: it is not tried again, and what stays is removed."""

    async def test_by_its_memory(self, shared: Pool) -> None:
        """A command that takes more than it may is killed; the log says why."""
        greedy = f"{SCRIPT}dd if=/dev/zero of=/dev/null bs=200M count=1\n"
        asked = build_of(shared.image, greedy, needs=Needs(network=False, memory=32 << 20))
        async with building(shared, asked) as (client, build_id):
            build = await fails(shared, client, build_id)
            words = "the command 'command 0' ended with 137; the memory limit was reached"
            assert build.reason == words
            assert b"the memory limit was reached" in await log_of(client, build_id)

    async def test_by_the_end_of_its_supervisor(self, shared: Pool) -> None:
        """While engine and node watch: nobody else can have done it."""
        async with building(shared, whole_build(shared.image)) as (client, build_id):
            container = shared.node.container(build_id)
            volumes = shared.node.volumes(container)
            await runs(client, shared.node, build_id)
            with shared.node.engine() as engine:
                supervisor = engine.inspect_container(container)["State"]["Pid"]
            os.kill(supervisor, signal.SIGKILL)
            build = await fails(shared, client, build_id, volumes)
            assert build.reason == "the container ended before the build did, with 137"


@asynccontextmanager
async def stopping(pool: Pool, moment: Moment) -> AsyncIterator[tuple[HttpService, str]]:
    """A whole build on a node that is going to stop itself at that moment, to be woken."""
    pool.node.end()
    pool.node.begin(moment)
    async with building(pool, whole_build(pool.image)) as (client, build_id):
        yield client, build_id


async def succeeds(
    pool: Pool,
    client: HttpService,
    build_id: str,
    volumes: list[str] | None = None,
    attempt: int = 1,
) -> Build:
    """The build, whole; nothing else of it is left."""
    build = await ended(client, build_id)
    await is_whole(client, build, attempt)
    pool.node.nothing_left(build, volumes or ())
    return build


async def fails(
    pool: Pool, client: HttpService, build_id: str, volumes: list[str] | None = None
) -> Build:
    """The build, failed at its first attempt; nothing of it is left."""
    build = await ended(client, build_id)
    assert (build.result, build.attempt) == (Result.FAILED, 1), build
    pool.node.nothing_left(build, volumes or ())
    return build


def lost_for(build: Build) -> str:
    """Why the first attempt was given up."""
    return next(step.cause for step in build.history if step.event == "lose")

"""Bases on the real engine, through the node: images of a Dockerfile, of a downloaded file system,
of an earlier build; disks; images as results. What is made is what was asked for, and nothing else
stays on the engine.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from protocol.model import Build, Result, Stage, built_image
from protocol.recipe import (
    Base,
    Command,
    DockerfileBase,
    InputFile,
    NoOutput,
    Output,
    Recipe,
    TextContent,
)
from protocol.request import BuildRequest, Guidance, Needs
from protocol.service import LOCAL
from tests.programs import Program, a_node, ended, log_of
from tests.system import engine as tools

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=90)]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image with a shell."""
    try:
        yield tools.make_image(tools.shell_tree(), "ENV PATH=/bin")
    finally:
        tools.remove_everything()


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    """The engine itself."""
    client = docker.APIClient()
    yield client
    client.close()


@contextlib.asynccontextmanager
async def a_docker_node(folder: Path, **settings: Any) -> AsyncIterator[Program]:
    """A node on the real engine; the images that it made are forgotten with it."""
    async with a_node(folder, engine="docker", **settings) as node:
        try:
            yield node
        finally:
            for build in tuple(node.parts.ledger.board):
                for name in node.parts.engine.images():
                    if name.startswith(f"imagepool/{build.id}:"):
                        node.parts.engine.forget_image(name)


async def submitted(
    node: Program, base: Base, *scripts: str, output: Output | None = None, **needs: Any
) -> Build:
    """A build on that base, just accepted."""
    commands = tuple(
        Command(f"command {i}", text=f"#!/bin/sh\n{text}\n") for i, text in enumerate(scripts)
    )
    recipe = Recipe(commands, base=base, output=output or NoOutput())
    request = BuildRequest(recipe, Guidance(needs=Needs(**needs)))
    return await node.service.submit(LOCAL, request)


async def built(
    node: Program, base: Base, *scripts: str, output: Output | None = None, **needs: Any
) -> tuple[Build, str]:
    """(the build, its log) when it has stopped."""
    build = await submitted(node, base, *scripts, output=output, **needs)
    build = await ended(node.service, build.id, 60)
    return build, (await log_of(node.service, build.id)).decode("utf-8", "replace")


def of_lines(*lines: str, **more: Any) -> DockerfileBase:
    """A Dockerfile of these lines."""
    return DockerfileBase(TextContent("\n".join(lines) + "\n"), **more)


def ours(client: docker.APIClient, build: Build) -> dict[str, Any]:
    """What the engine says of the image that a build made. Raises ImageNotFound."""
    return dict(client.inspect_image(built_image(build.id)))


def nameless(client: docker.APIClient) -> set[str]:
    """Images on the engine that only other images stand on, or nothing."""
    return {one["Id"] for one in client.images(all=True, filters={"dangling": True})}


def said_before(log: str, *words: str) -> bool:
    """Whether all these lines are there, in this order."""
    places = [f"\n{log}".find(f"\n{word}\n") for word in words]
    return -1 not in places and places == sorted(places)


class TestDockerfile:
    """An image that the node builds."""

    async def test_a_dockerfile_with_a_context(self, tmp_path, image, client) -> None:
        """Its files are there, with their modes; its output is in the log, as a step; commands run
        in what it made, which carries our labels.
        """
        base = of_lines(
            f"FROM {image}",
            "COPY etc /etc/from",
            "COPY Dockerfile run /",
            "RUN /run && echo made > /file",
            "ENV COLOUR=green",
            context=(
                InputFile("etc/a/b", TextContent("b's text\n")),
                InputFile("run", TextContent("#!/bin/sh\necho it ran\n"), executable=True),
                InputFile("Dockerfile", TextContent("no Dockerfile at all\n")),
            ),
        )
        script = "cat /file /etc/from/a/b /Dockerfile; echo $COLOUR; ls /"
        async with a_docker_node(tmp_path) as node:
            build, log = await built(node, base, script)
            assert build.result is Result.SUCCEEDED, log
            assert said_before(log, "it ran", "made", "b's text", "no Dockerfile at all", "green")
            labels = ours(client, build)["Config"]["Labels"]
            assert labels["imagepool.build"] == build.id
            assert labels["imagepool.attempt"] == "1"
            assert labels["imagepool.node"] == node.id
            script_status, added = build.commands
            assert (added.name, added.added, added.exit_code) == ("build the image", True, 0)
            assert added.end is not None
            assert "it ran\n" in log[added.start : added.end]
            assert script_status.exit_code == 0
            assert "it ran" not in log[script_status.start : script_status.end]
            assert not list(tmp_path.glob("*/inputs/*"))

    async def test_nothing_else_stays(self, tmp_path, image, client) -> None:
        """Of several stages only the last; when its image is forgotten, nothing at all."""
        before = nameless(client)
        base = of_lines(
            f"FROM {image} AS one",
            "RUN echo $(cat /proc/sys/kernel/random/uuid) > /a",
            "RUN echo b > /b",
            f"FROM {image}",
            "COPY --from=one /a /a",
            "RUN echo c > /c",
            no_cache=True,
        )
        async with a_docker_node(tmp_path) as node:
            build, log = await built(node, base, "cat /a /c")
            assert build.result is Result.SUCCEEDED, log
            node.parts.engine.forget_image(built_image(build.id))
            assert nameless(client) <= before
            assert client.containers(all=True, filters={"ancestor": image}) == []

    @pytest.mark.parametrize(
        ("lines", "words", "code"),
        [
            (("RUN echo before", "RUN exit 7"), "returned a non-zero code: 7", 7),
            (("COPY nowhere /",), "nowhere", 1),
            (("FRM x",), "unknown instruction", 1),
            (("USER nobody-here", "RUN true"), "nobody-here", 1),
        ],
    )
    async def test_one_that_fails(self, tmp_path, image, client, lines, words, code) -> None:
        """The user's failure, in the builder's words; no command runs, nothing stays."""
        before = nameless(client)
        async with a_docker_node(tmp_path) as node:
            base = of_lines(f"FROM {image}", *lines, no_cache=True)
            build, log = await built(node, base, "echo ran")
            assert build.result is Result.FAILED
            assert words in build.reason
            assert words in log
            assert [command.exit_code for command in build.commands] == [125, code]
            assert "\nran\n" not in log
            assert nameless(client) <= before
            with pytest.raises(ImageNotFound):
                ours(client, build)

    async def test_a_registry_that_does_not_answer(self, tmp_path) -> None:
        """It is no failure of the user's: another node may reach it."""
        async with a_docker_node(tmp_path) as node:
            build, _ = await built(node, of_lines("FROM 127.0.0.1:1/none"), "true")
            assert build.result is Result.LOST
            assert "127.0.0.1:1/none" in build.reason

    @pytest.mark.parametrize("way", ["cancel", "time limit"])
    async def test_one_that_is_ended(self, tmp_path, image, client, way) -> None:
        """Soon, in the middle of a step, whose container does not stay either."""
        before = nameless(client)
        limit = {"time_limit": 3.0} if way == "time limit" else {}
        async with a_docker_node(tmp_path) as node:
            base = of_lines(f"FROM {image}", "RUN true", "RUN sleep 1000", no_cache=True)
            build = await submitted(node, base, "true", **limit)
            await self.in_log(node, build, "RUN sleep 1000")
            if way == "cancel":
                async with asyncio.timeout(5):
                    await node.service.cancel(LOCAL, build.id)
            build = await ended(node.service, build.id, 20)
            wanted = Result.CANCELLED if way == "cancel" else Result.TIMED_OUT
            assert build.result is wanted
            await asyncio.to_thread(
                tools.until,
                lambda: client.containers(all=True, filters={"ancestor": image}) == [],
            )
            assert nameless(client) <= before

    async def test_limits_hold_in_its_steps(self, tmp_path, image) -> None:
        """Memory, processors and network, as the engine's builder can."""
        base = of_lines(
            f"FROM {image}",
            "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max",
            "RUN cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max",
            "RUN ls /sys/class/net",
            no_cache=True,
        )
        async with a_docker_node(tmp_path) as node:
            memory = 64 << 20
            build, log = await built(node, base, memory=memory, cpus=0.5, network=False)
            assert build.result is Result.SUCCEEDED, log
            assert f"\n{memory}\n" in log
            assert "\n50000" in log
            assert "\nlo\n" in log
            assert "eth0" not in log

    async def test_the_log_limit(self, tmp_path, image) -> None:
        """Output beyond it is not kept, which a line says."""
        base = of_lines(f"FROM {image}", "RUN yes | head -c 100000", no_cache=True)
        async with a_docker_node(tmp_path, log_limit=4096) as node:
            build, log = await built(node, base)
            assert build.result is Result.SUCCEEDED
            assert len(log) < 6000
            assert "reached its limit of 4096 bytes" in log

    async def test_a_node_that_starts_again(self, tmp_path, image) -> None:
        """It begins the image anew."""
        base = of_lines(f"FROM {image}", "RUN sleep 1000", no_cache=True)
        async with a_docker_node(tmp_path, home="home") as node:
            build = await submitted(node, base, "true")
            await self.in_log(node, build, "RUN sleep 1000")
        async with a_docker_node(tmp_path, home="home") as node:
            await self.in_log(node, build, "RUN sleep 1000", times=2)
            build = await node.service.get(LOCAL, build.id)
            assert build.stage is Stage.PREPARING
            build = await node.service.cancel(LOCAL, build.id)
            assert build.result is Result.CANCELLED

    @staticmethod
    async def in_log(node: Program, build: Build, words: str, times: int = 1) -> None:
        """Wait until its log has these words."""
        seen = b""
        async with asyncio.timeout(20):
            opened = await node.service.open_log(LOCAL, build.id, Position(), follow=True)
            async for piece in opened.stream:
                seen += piece
                if seen.count(words.encode()) >= times:
                    return
        raise AssertionError(f"it ended without: {seen!r}")

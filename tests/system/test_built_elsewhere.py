"""An image that one node made of a Dockerfile with attachments, as the base of a build on another
node, through the scheduler: two engines that know nothing of each other's images.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from msgspec import Struct

from protocol.model.build import Build, Result, built_image
from protocol.model.recipe import (
    Base,
    BuiltBase,
    Command,
    DockerfileBase,
    ImageOutput,
    InputFile,
    NoOutput,
    Output,
    Recipe,
    TextContent,
    UploadedContent,
)
from protocol.model.request import BuildRequest, Guidance, Needs
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.chaos.docker_node import DockerNode, Program, a_scheduler
from tests.programs import a_client, ended, log_of
from tests.streams import Given
from tests.system import engine as tools
from tests.system.private_engine import private_engine

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=120)]

ATTACHED = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256)) * 200
"""What no Dockerfile's text could hold: 1.6 MB of any bytes."""


class Pool(Struct):
    """A scheduler over two nodes, each with an engine of its own."""

    scheduler: Program
    first: DockerNode
    second: DockerNode
    image: str  # that only the first one's engine has


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Nodes that carry the labels `first` and `second`."""
    folder = tmp_path_factory.mktemp("p")
    with ExitStack() as ending:
        ending.callback(tools.remove_everything)
        image = tools.make_image(tools.shell_tree(), "ENV PATH=/bin")
        engine = ending.enter_context(private_engine(folder / "e", False))
        nodes = []
        for name, socket in (("first", ""), ("second", engine.socket)):
            node = DockerNode(folder / name, socket, labels=(name,), dockerfiles=True)
            node.begin()
            ending.callback(node.end)
            nodes.append(node)
        scheduler = a_scheduler(folder / "scheduler", *nodes)
        ending.callback(scheduler.end)
        scheduler.begin()
        yield Pool(scheduler, nodes[0], nodes[1], image)


async def built(
    client: HttpService, place: str, base: Base, output: Output, *scripts: str
) -> tuple[Build, str]:
    """(a build on the node of that label when it has stopped, its log)."""
    commands = tuple(Command("look", text=f"#!/bin/sh\n{script}\n") for script in scripts)
    recipe = Recipe(commands, base=base, output=output)
    needs = Needs(labels=(place,), network=False)
    build = await client.submit(LOCAL, BuildRequest(recipe, Guidance(needs=needs)))
    build = await ended(client, build.id, 60)
    return build, (await log_of(client, build.id)).decode("utf-8", "replace")


def images(node: DockerNode) -> set[str]:
    """Names of all images that its engine has."""
    with node.engine() as client:
        return {name for one in client.images() for name in one["RepoTags"] or ()}


async def test_an_image_made_on_one_node_is_a_base_on_another(pool: Pool) -> None:
    """With the attachment in it, byte for byte, and what the Dockerfile set."""
    digest = hashlib.sha256(ATTACHED).hexdigest()
    lines = f"FROM {pool.image}\nCOPY data/attached /data\nENV COLOUR=green\n"
    look = "sha256sum /data; echo $COLOUR"
    async with a_client(pool.scheduler.url) as client:
        assert await client.upload(LOCAL, Given(ATTACHED), size=len(ATTACHED)) == digest
        base = DockerfileBase(
            TextContent(lines), context=(InputFile("data/attached", UploadedContent(digest)),)
        )
        made, log = await built(client, "first", base, ImageOutput(name="made.tar"))
        assert made.result is Result.SUCCEEDED, (made.reason, log)
        (artifact,) = made.artifacts
        name = built_image(made.id, artifact.sha256)
        try:
            assert pool.image not in images(pool.second)
            later = BuiltBase(made.id, artifact.name)
            used, log = await built(client, "second", later, NoOutput(), look)
            assert used.result is Result.SUCCEEDED, (used.reason, log)
            assert made.node is not None
            assert used.node is not None
            assert (made.node.name, used.node.name) == ("first", "second")
            assert f"{digest}  /data\ngreen\n" in log
            assert name in images(pool.second)
        finally:
            with pool.first.engine() as engine:
                for image in engine.images(f"imagepool/{made.id}"):
                    for tag in image["RepoTags"]:
                        engine.remove_image(tag, force=True)

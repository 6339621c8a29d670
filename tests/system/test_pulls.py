"""Images of a real registry: pulled when they are to be, with a password where it wants one."""

from collections.abc import Iterator

import docker
import pytest

from protocol.model.build import Build, Result
from protocol.model.recipe import Command, ImageBase, NoOutput, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, log_of
from tests.system import engine as tools
from tests.system.docker_registry import PASSWORD, USER, Registry, a_docker_registry

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=90)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Iterator[Registry]:
    """One that anybody may read."""
    with a_docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Iterator[Registry]:
    """One with a password."""
    with a_docker_registry(tmp_path_factory.mktemp("closed"), password=True) as registry:
        yield registry


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """What a test pulled goes."""
    client = docker.APIClient()
    before = {image["Id"] for image in client.images()}
    yield
    for image in client.images():
        names = (image["RepoTags"] or []) + (image["RepoDigests"] or [])
        if image["Id"] not in before and any(name.startswith("127.0.0.1:") for name in names):
            client.remove_image(image["Id"], force=True)
    client.close()


def an_image(word: str) -> str:
    """An image whose file says this word."""
    tree = tools.shell_tree(file=tools.File(f"{word}\n".encode(), mode=0o644))
    return tools.make_image(tree, "ENV PATH=/bin")


async def built(node: Program, base: ImageBase, **secrets: str) -> tuple[Build, str]:
    """(the build, its log) of a look at the image's file."""
    recipe = Recipe((Command("look", text="#!/bin/sh\ncat /file\n"),), base, output=NoOutput())
    request = BuildRequest(recipe, secrets=tuple(secrets))
    build = await node.service.submit(LOCAL, request, secrets=secrets)
    build = await ended(node.service, build.id, 60)
    return build, (await log_of(node.service, build.id)).decode()


async def test_missing(tmp_path, registry) -> None:
    """Pulled once: the log tells each layer's way, a line for each new thing; then it is here."""
    name = registry.push(an_image("first"), "missing")
    async with a_node(tmp_path, engine="docker") as node:
        build, log = await built(node, ImageBase(name))
        assert build.result is Result.SUCCEEDED, log
        assert log.endswith("first\n")
        lines = log.splitlines()[:-1]
        assert lines[0] == "[imagepool: latest: Pulling from missing]"
        assert any(line.endswith(": Pull complete]") for line in lines), lines
        assert f"[imagepool: Status: Downloaded newer image for {name}]" in lines
        assert len(lines) == len(set(lines)) < 20
        again, log = await built(node, ImageBase(name))
        assert (again.result, log) == (Result.SUCCEEDED, "first\n")


async def test_always(tmp_path, registry) -> None:
    """The registry is asked, and what is newer there is taken."""
    name = registry.push(an_image("first"), "always")
    async with a_node(tmp_path, engine="docker") as node:
        await built(node, ImageBase(name))
        registry.push(an_image("second"), "always")
        build, log = await built(node, ImageBase(name, pull="always"))
        assert build.result is Result.SUCCEEDED, log
        assert log.endswith("second\n")
        build, log = await built(node, ImageBase(name, pull="always"))
        assert f"[imagepool: Status: Image is up to date for {name}]" in log
        assert log.endswith("second\n")


async def test_never(tmp_path, registry) -> None:
    """The user's failure where it is not here, though the registry has it."""
    name = registry.push(an_image("first"), "never")
    async with a_node(tmp_path, engine="docker") as node:
        build, log = await built(node, ImageBase(name, pull="never"))
        assert build.result is Result.FAILED
        assert "it is not to be pulled" in build.reason
        assert "Pulling" not in log


async def test_an_image_that_the_registry_does_not_have(tmp_path, registry) -> None:
    """The user's failure, which names it."""
    async with a_node(tmp_path, engine="docker") as node:
        build, _ = await built(node, ImageBase(f"{registry.address}/nowhere:1"))
        assert build.result is Result.FAILED
        assert f"there is no image {registry.address}/nowhere:1" in build.reason


@pytest.mark.parametrize(
    ("login", "result"),
    [
        (f"{USER}:{PASSWORD}", Result.SUCCEEDED),
        (f"{USER}:{PASSWORD}\n", Result.SUCCEEDED),
        (f"{USER}:wrong horse", Result.FAILED),
        ("", Result.FAILED),
    ],
)
async def test_a_password(tmp_path, closed, login, result) -> None:
    """With the right one it is pulled; without, or with a wrong one, it is the user's failure; it
    is in no log, and no reason.
    """
    name = closed.push(an_image("behind a door"), "closed")
    secrets = {"login": login} if login else {}
    base = ImageBase(name, credentials="login" if login else None)
    async with a_node(tmp_path, engine="docker") as node:
        build, log = await built(node, base, **secrets)
        assert build.result is result, (build.reason, log)
        assert log.endswith("behind a door\n") == (result is Result.SUCCEEDED)
        assert login.partition(":")[2].strip() not in (log + build.reason) or not login

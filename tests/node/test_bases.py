"""Bases and results that are images, on a node with the dummy engine."""

import pytest

from protocol.errors import Invalid, PoolError
from protocol.model.build import Build, Result, built_image
from protocol.model.recipe import (
    Base,
    BuiltBase,
    Command,
    DockerfileBase,
    DownloadBase,
    ImageBase,
    ImageOutput,
    InputFile,
    NoOutput,
    Output,
    Recipe,
    TextContent,
    UploadedContent,
)
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, log_of, until

pytestmark = pytest.mark.gen_test(timeout=30)


def of_lines(*lines: str) -> DockerfileBase:
    """A Dockerfile of these lines."""
    return DockerfileBase(TextContent("\n".join(("FROM some/image", *lines))))


@pytest.mark.parametrize(
    ("base", "field"),
    [
        (DockerfileBase(), "recipe.base"),
        (DockerfileBase(TextContent("FROM x"), archive=TextContent("")), "recipe.base"),
        (
            DockerfileBase(context=(InputFile("a", TextContent("")),), archive=TextContent("")),
            "recipe.base.context",
        ),
        (DockerfileBase(archive=TextContent(""), path="../Dockerfile"), "recipe.base.path"),
    ],
)
async def test_a_dockerfile_is_given_once(tmp_path, base, field) -> None:
    """By itself with its context, or in an archive that is the whole context."""
    async with a_node(tmp_path) as node:
        with pytest.raises(Invalid) as refused:
            await submitted(node, base)
        assert refused.value.field == field


async def submitted(node: Program, base: Base, output: Output | None = None) -> Build:
    """A build on that base."""
    commands = () if isinstance(output, ImageOutput) else (Command("x", text="print ran"),)
    files = (InputFile("a/b", TextContent("x")),)
    recipe = Recipe(commands, base, files, output or NoOutput())
    return await node.service.submit(LOCAL, BuildRequest(recipe))


async def built(node: Program, base: Base, output: Output | None = None) -> tuple[Build, bytes]:
    """(the build, its log) when it has stopped."""
    build = await ended(node.service, (await submitted(node, base, output)).id)
    return build, await log_of(node.service, build.id)


async def test_a_dockerfile(tmp_path) -> None:
    """Its step stands behind the commands; the image is here."""
    async with a_node(tmp_path) as node:
        build, log = await built(node, of_lines("RUN print made"))
        assert build.result is Result.SUCCEEDED
        assert [(c.name, c.added, c.exit_code) for c in build.commands] == [
            ("x", False, 0),
            ("build the image", True, 0),
        ]
        assert log.endswith(b"made\nran\n")
        assert built_image(build.id) in node.parts.engine.images()
        assert not list(tmp_path.glob("*/inputs/*"))
        assert build.usage is not None


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("RUN exit 7", Result.FAILED),
        ("FROM missing/x", Result.FAILED),
        ("FROM unreachable/x", Result.LOST),
    ],
)
async def test_one_that_fails(tmp_path, line, result) -> None:
    """The user's failure, unless a registry does not answer; nothing stays."""
    async with a_node(tmp_path) as node:
        build, log = await built(node, of_lines(line))
        assert build.result is result
        assert b"\nran\n" not in log
        assert build.commands[0].exit_code == 125
        assert not list(tmp_path.glob("*/inputs/*"))


async def test_cancelling(tmp_path) -> None:
    """In the middle of a step."""
    async with a_node(tmp_path) as node:
        build = await submitted(node, of_lines("RUN hang"))
        await until(node.service, build.id, lambda b: any(c.added for c in b.commands))
        build = await node.service.cancel(LOCAL, build.id)
        assert build.result is Result.CANCELLED
        assert not list(tmp_path.glob("*/inputs/*"))


async def test_an_image_as_a_result(tmp_path) -> None:
    """It is an artifact, and the base of a later build."""
    async with a_node(tmp_path) as node:
        build, _ = await built(node, of_lines(), ImageOutput(name="made.tar"))
        assert build.result is Result.SUCCEEDED
        (artifact,) = build.artifacts
        assert artifact.name == "made.tar"
        later, log = await built(node, BuiltBase(build.id, "made.tar", artifact.sha256))
        assert (later.result, log) == (Result.SUCCEEDED, b"ran\n")


async def test_an_image_that_no_registry_has(tmp_path) -> None:
    """It is the user's to mend."""
    async with a_node(tmp_path) as node:
        build, _ = await built(node, ImageBase("missing/x"))
        assert build.result is Result.FAILED


@pytest.mark.parametrize(
    "base", [DownloadBase(UploadedContent("0" * 64)), BuiltBase("0" * 32, sha256="0" * 64)]
)
async def test_bytes_that_are_not_here(tmp_path, base) -> None:
    """What nobody has given to the node is refused, with the field."""
    async with a_node(tmp_path) as node:
        with pytest.raises(PoolError) as refused:
            await built(node, base)
        assert refused.value.field.startswith("recipe.base")

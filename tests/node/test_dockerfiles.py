"""Which images a Dockerfile takes, and what the operator's patterns say of them."""

from pathlib import Path

import pytest

from node.core.dockerfile import Unclear, images
from node.engines.errors import ImageFailed
from node.inputs.images import check_dockerfile
from protocol.errors import Denied
from protocol.model.build import Result
from protocol.model.checks import check_image
from protocol.model.recipe import DockerfileBase, ImageOutput, Recipe, TextContent
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import a_node, ended

DIGEST = "@sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("FROM debian:12", ["debian:12"]),
        ("\ufefffrom a\r\nRUN x\r\n", ["a"]),
        ("ARG X\nFROM --platform=$Y a AS one\nFROM one\nFROM b", ["a", "b"]),
        ("FROM scratch\nCOPY --from=c / /\nCOPY --chown=1 --from=d / /", ["c", "d"]),
        ("FROM a AS Base\nFROM b\nCOPY --from=base / /\nCOPY --from=1 / /", ["a", "b"]),
        ("FROM a\nFROM 0\nCOPY --from=7 / /", ["a", "0", "7"]),
        ("FR\\\nOM a", ["a"]),
        ("FROM \\\n# no\n\n  a", ["a"]),
        ("FROM a\nRUN x \\  \nFROM b\nFROM c", ["a", "c"]),
        ("# FROM x\nFROM a\nRUN echo FROM b", ["a"]),
        ("FROM a\nONBUILD COPY --from=b / /", ["a", "b"]),
        (f"FROM a{DIGEST}", [f"a{DIGEST}"]),
        ("", []),
    ],
)
def test_what_it_takes(text: str, names: list[str]) -> None:
    """Names of stages are none; what is joined is read joined."""
    assert list(images(text)) == names


@pytest.mark.parametrize(
    "text",
    [
        "ARG X=evil\nFROM $X",
        "ARG X\nFROM a${X}",
        'FROM "evil"',
        "FROMevil",
        "FROM a b c",
        "FROM",
        "# escape=`\nFROM a\nRUN x \\\nFROM evil",
        "FROM a\nRUN x \\\x0b\nFROM evil",
        "FROM a\nRUN x \\\n\x1c\nFROM evil",
        "FROM a\nRUN x \\\n\u2003\nFROM evil",
        "FROM a\nRUN x \\\\\nFROM evil",
        "FROM a\nRUN x \\\\ \r\nFROM evil",
        "FROM a\nRUN x\rFROM evil",
        "FROM a\nRUN <<'E\\'\nE\\\nFROM evil",
        "FROM a\nCOPY --from=$X / /",
    ],
)
def test_what_cannot_be_told(text: str) -> None:
    """Versions of the builder read it differently, or only it can say."""
    with pytest.raises(Unclear):
        images(text)


def test_by_digest_only() -> None:
    """A pattern says that too."""
    patterns = ("lab/*@sha256:*",)
    check_image(f"lab/a:1{DIGEST}", patterns, "x")
    for name in ("lab/a:1", f"other/a{DIGEST}"):
        with pytest.raises(Denied):
            check_image(name, patterns, "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM lab/a", ""),
        ("FROM lab/a\nFROM debian", "'debian' is not allowed here; allowed are .*: lab/"),
        ("FROM $X", "no plain name of an image; allowed are"),
        (b"FROM lab/a\n#\xff", "codec can't decode"),
        (None, "in an archive"),
    ],
)
def test_patterns(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    """They hold for what it takes; where that cannot be seen it is refused. Without patterns all
    is taken.
    """
    file = None
    if text is not None:
        file = tmp_path / "Dockerfile"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    check_dockerfile(file, ("*",))
    if words:
        with pytest.raises(ImageFailed, match=words):
            check_dockerfile(file, ("lab/*",))
    else:
        check_dockerfile(file, ("lab/*",))


@pytest.mark.gen_test
async def test_a_build(tmp_path: Path) -> None:
    """It fails before any of its steps, and says why."""
    async with a_node(tmp_path, images=("lab/*",)) as node:
        recipe = Recipe(base=DockerfileBase(TextContent("FROM evil/a")), output=ImageOutput())
        accepted = await node.service.submit(LOCAL, BuildRequest(recipe))
        build = await ended(node.service, accepted.id)
    assert build.result is Result.FAILED
    assert "'evil/a' is not allowed here" in build.reason
    assert build.commands == ()

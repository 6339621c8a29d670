"""Secrets on the real engine: a build finds them as files in memory, its log does not show them,
nothing of them stays.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import Busy
from protocol.model.build import Build, Result
from protocol.model.recipe import Command, ImageBase, NoOutput, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, log_of, until
from tests.system import engine as tools

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=60)]

SECRETS = {"token": "swordfish", "key.pem": "first line\nsecond line\n", "pin": "123"}
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image with a shell, whose user is not root."""
    try:
        yield tools.make_image(tools.shell_tree(), "ENV PATH=/bin", "USER nobody")
    finally:
        tools.remove_everything()


async def submitted(node: Program, image: str, script: str) -> Build:
    """A build of a script with the secrets."""
    command = Command("use", text=f"#!/bin/sh\n{script}\n")
    recipe = Recipe((command,), ImageBase(image), output=NoOutput())
    request = BuildRequest(recipe, secrets=tuple(sorted(SECRETS)))
    return await node.service.submit(LOCAL, request, secrets=SECRETS)


async def built(node: Program, image: str, script: str) -> tuple[Build, str]:
    """(the build, its log) when it has stopped."""
    build = await submitted(node, image, script)
    build = await ended(node.service, build.id, 50)
    return build, (await log_of(node.service, build.id)).decode()


def folders(node: Program) -> list[Path]:
    """What is left of the attempts' secrets."""
    return list(MEMORY.glob(f"imagepool-{node.id[:32]}/*"))


async def test_what_a_build_finds(tmp_path, image) -> None:
    """A file for each, with the very value, which only root can read and nobody can change; in
    memory; gone afterwards.
    """
    script = """
        cd $IMAGEPOOL_SECRETS && pwd
        stat -c '%a %s %n' *
        cmp() { [ "$(cat $1)" = "$2" ] && echo the same; }
        cmp token swordfish
        cmp key.pem "$(printf 'first line\\nsecond line')"
        cmp pin 123
        echo x 2>/dev/null >new || echo read-only
        rm -f token 2>/dev/null || echo there
        grep " $IMAGEPOOL_SECRETS " /proc/mounts | grep -c '^tmpfs '
    """
    async with a_node(tmp_path, engine="docker") as node:
        build, log = await built(node, image, script)
        assert build.result is Result.SUCCEEDED, log
        assert log.splitlines() == [
            "/toiso/.imagepool/secrets",
            "400 23 key.pem",
            "400 3 pin",
            "400 9 token",
            *["the same"] * 3,
            "read-only",
            "there",
            "1",
        ]
        assert not (MEMORY / f"imagepool-{node.id[:32]}").exists()


async def test_no_secrets(tmp_path, image) -> None:
    """Neither folder nor variable."""
    async with a_node(tmp_path, engine="docker") as node:
        command = Command("use", text="#!/bin/sh\nenv | grep SECRETS; ls /toiso/.imagepool\n")
        recipe = Recipe((command,), ImageBase(image), output=NoOutput())
        build = await node.service.submit(LOCAL, BuildRequest(recipe))
        build = await ended(node.service, build.id, 50)
        assert await log_of(node.service, build.id) == b"in\nout\n"


async def test_the_log_does_not_show_them(tmp_path, image) -> None:
    """Whole, in pieces, in base64, in a command's trace; offsets are what they were, and what is
    too short to be hidden is not.
    """
    script = """
        cat $IMAGEPOOL_SECRETS/token; echo
        printf sword; sleep 0.2; printf 'fish\\n'
        busybox base64 $IMAGEPOOL_SECRETS/token
        cat $IMAGEPOOL_SECRETS/key.pem
        set -x
        : $(cat $IMAGEPOOL_SECRETS/token) >&2
        : $(cat $IMAGEPOOL_SECRETS/pin) >&2
        printf 'in the end: sword'
    """
    async with a_node(tmp_path, engine="docker") as node:
        build, log = await built(node, image, script)
        assert build.result is Result.SUCCEEDED, log
        lines = log.splitlines()
        assert lines[:3] == ["*" * 9] * 2 + ["*" * 12]
        assert lines[3].startswith("*" * 23)  # its line ends too
        assert "swordfish" not in log
        assert "+ : *********" in log
        assert "+ : 123" in log
        assert log.endswith("in the end: sword")
        (status,) = build.commands
        assert (status.start, status.end) == (0, len(log))


async def test_what_is_held_back_is_shown_soon(tmp_path, image) -> None:
    """The beginning of a secret that does not go on; while the build goes on."""
    async with a_node(tmp_path, engine="docker") as node:
        build = await submitted(node, image, "printf 'a sword'; exec sleep 1000")
        await until(node.service, build.id, lambda build: build.log_size == 7)
        assert await log_of(node.service, build.id) == b"a sword"
        await node.service.cancel(LOCAL, build.id)
        assert folders(node) == []


async def test_a_node_that_starts_again(tmp_path, image) -> None:
    """What runs on keeps its secrets, and its log still hides them; what an earlier life left is
    removed.
    """
    script = """
        echo begun
        while [ ! -e /toiso/.imagepool/out/go ]; do sleep 0.1; done
        cat $IMAGEPOOL_SECRETS/token
    """
    async with a_node(tmp_path, engine="docker", home="home") as node:
        build = await submitted(node, image, script)
        await until(node.service, build.id, lambda build: build.log_size > 0)
    (folder,) = folders(node)
    left = folder.with_name("of-another.1")
    left.mkdir()
    (left / "token").write_text("swordfish")
    async with a_node(tmp_path, engine="docker", home="home") as node:
        assert folders(node) == [folder]
        (work,) = tmp_path.glob(f"home/work/{build.id}.1/out")
        (work / "go").touch()
        build = await ended(node.service, build.id, 50)
        assert build.result is Result.SUCCEEDED
        assert await log_of(node.service, build.id) == b"begun\n*********"
        assert folders(node) == []


async def test_a_folder_that_is_on_a_disk(tmp_path, image, caplog) -> None:
    """Builds with secrets are not taken, which is said in words; others are."""
    async with a_node(tmp_path, engine="docker", secrets_folder="/usr") as node:
        assert "is on a disk" in caplog.text
        caplog.clear()
        with pytest.raises(Busy, match=r"takes no build with secrets: .*/usr, is on a disk"):
            await submitted(node, image, "true")
        recipe = Recipe((Command("x", text="#!/bin/sh\n"),), ImageBase(image), output=NoOutput())
        build = await node.service.submit(LOCAL, BuildRequest(recipe))
        assert (await ended(node.service, build.id, 50)).result is Result.SUCCEEDED

"""What comes out of builds on the real engine: files by their paths, an outbox, a stream."""

import asyncio
import hashlib
import io
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import Unavailable
from protocol.model.build import Build, Result
from protocol.model.recipe import OutboxOutput, Output, PathsOutput, StreamOutput
from protocol.ports.service import LOCAL, BuildService, OpenArtifact
from tests.chaos.docker_node import GATE, OUT, SCRIPT, DockerNode, a_scheduler, build_of
from tests.figures import Figures
from tests.programs import Program, a_client, a_node, ended, log_of
from tests.programs import until as build_until
from tests.system.engine import File, make_image, remove_everything, shell_tree, until

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=120)]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A shell and some programs, and files to be found."""
    tree = shell_tree(
        **{
            "srv/a.iso": File(b"image a" * 1000, mode=0o600),
            "srv/b c.iso": File(b"image b"),
            "srv/sub/a.iso": File(b"another"),
            "srv/link.img": File(link="/opt/target"),
            "opt/target": File(b"what the link leads to"),
            "srv/folder.iso/x": File(b"not asked for"),
            "srv/odd[1]": File(b"odd"),
        }
    )
    try:
        yield make_image(tree, "ENV PATH=/bin")
    finally:
        remove_everything()


async def built(service: BuildService, image: str, output: Output, *texts: str) -> Build:
    """The build of these scripts, when it has ended."""
    wanted = build_of(image, *(SCRIPT + text for text in texts), output=output)
    return await ended(service, (await service.submit(LOCAL, wanted)).id, 60)


async def content(service: BuildService, build: Build, name: str) -> bytes:
    """The whole artifact."""
    opened = await service.open_artifact(LOCAL, build.id, name)
    try:
        return b"".join([piece async for piece in opened.stream])
    finally:
        await opened.stream.close()


class TestPaths:
    """Matched inside the container, links resolved there."""

    async def test_paths_and_patterns(self, tmp_path: Path, image: str) -> None:
        """Folders that match are no files; a name with a bracket in it is a name; no file comes
        twice; what leads to a file is the file.
        """
        paths = ("/srv/*.iso", "//srv//a.iso", "/srv/*/a.iso", "/srv/link.img", "/srv/odd[1]")
        async with a_node(tmp_path, engine="docker") as node:
            build = await built(node.service, image, PathsOutput((*paths, "/made/*")), MAKE)
            assert build.result is Result.SUCCEEDED, await log_of(node.service, build.id)
            found = {a.name: await content(node.service, build, a.name) for a in build.artifacts}
            assert found == {
                "a.iso": b"image a" * 1000,
                "b_c.iso": b"image b",
                "a-1.iso": b"another",
                "link.img": b"what the link leads to",
                "odd_1_": b"odd",
                "new_line": b"made",
            }
            for artifact in build.artifacts:
                assert artifact.sha256 == hashlib.sha256(found[artifact.name]).hexdigest()

    async def test_one_that_names_nothing(self, tmp_path: Path, image: str) -> None:
        """The build fails and says which; so does its log."""
        paths = PathsOutput(("/srv/a.iso", "/srv/*.qcow2", "/srv/folder.iso", "/dev/null"))
        async with a_node(tmp_path, engine="docker") as node:
            build = await built(node.service, image, paths, "true\n")
            assert build.result is Result.FAILED
            words = "no regular file matches '/srv/*.qcow2', '/srv/folder.iso', '/dev/null'"
            assert build.reason == words
            assert b"[imagepool: no regular file matches /srv/*.qcow2]" in (
                await log_of(node.service, build.id)
            )
            assert build.artifacts == ()

    async def test_too_many(self, tmp_path: Path, image: str) -> None:
        """The operator's bound."""
        async with a_node(tmp_path, engine="docker", result_files=2) as node:
            build = await built(node.service, image, PathsOutput(("/bin/*",)), "true\n")
            assert build.result is Result.FAILED
            assert b"more than 2 files match" in await log_of(node.service, build.id)

    @pytest.mark.parametrize(
        "hostile",
        [
            "rm -rf $O/results; ln -s /etc $O/results",
            "mkdir -p $O/results; ln -s /etc/passwd $O/results/0; ln -s /etc/passwd $O/names",
            "echo ../../../x >$O/names; mkdir $O/unmatched",
        ],
    )
    async def test_hostile_commands(self, tmp_path: Path, image: str, hostile: str) -> None:
        """What they leave where the results go is gone before they do."""
        text = f"O={OUT}\n{hostile}\n"
        async with a_node(tmp_path, engine="docker") as node:
            build = await built(node.service, image, PathsOutput(("/srv/a.iso",)), text)
            assert [a.name for a in build.artifacts] == ["a.iso"], build.reason
            assert await content(node.service, build, "a.iso") == b"image a" * 1000


MAKE = "mkdir /made; printf made >'/made/new\nline'; ln -s /nowhere /made/dangling\n"


class TestOutbox:
    """A folder of the host, as the container sees it."""

    async def test_files_links_and_folders(self, tmp_path: Path, image: str) -> None:
        """A thousand files, links in and out, an empty folder, a FIFO, files that only root may
        read: Python and unzip accept the zip; the FIFO is told in the log.
        """
        text = (
            "cd /outbox; mkdir -m 700 empty sub\n"
            "for i in $(busybox seq 1000); do echo $i >f$i; done\n"
            "chmod 600 f1; chmod 4755 f2; ln -s f1 inside; ln -s /etc/passwd outside; mkfifo fifo\n"
            "busybox ln f3 sub/same; printf '' >\"$(printf 'x\\377')\"\n"
        )
        async with a_node(tmp_path, engine="docker") as node:
            build = await built(node.service, image, OutboxOutput("all.zip"), text)
            assert build.result is Result.SUCCEEDED, build.reason
            data = await content(node.service, build, "all.zip")
            assert build.artifacts[0].sha256 == hashlib.sha256(data).hexdigest()
            packed = zipfile.ZipFile(io.BytesIO(data))
            assert packed.testzip() is None
            names = set(packed.namelist())
            assert names == {f"f{i}" for i in range(1, 1001)} | {
                *("empty/", "sub/", "sub/same", "inside", "outside", "x%FF")
            }
            assert packed.read("f1000") == b"1000\n"
            assert packed.read("outside") == b"/etc/passwd"
            log = await log_of(node.service, build.id)
            assert b"the outbox holds a FIFO, which is passed over: fifo" in log
            (tmp_path / "all.zip").write_bytes(data)
            await asyncio.to_thread(unzip_accepts, tmp_path / "all.zip")
            assert not list((tmp_path / "node" / "work").glob("*"))

    async def test_a_failed_build_has_one_too(self, tmp_path: Path, image: str) -> None:
        """What a test left behind is what one wants to see."""
        async with a_node(tmp_path, engine="docker") as node:
            text = "echo why >/outbox/report; exit 3\n"
            build = await built(node.service, image, OutboxOutput(), text)
            assert build.result is Result.FAILED
            data = await content(node.service, build, "outbox.zip")
            assert zipfile.ZipFile(io.BytesIO(data)).read("report") == b"why\n"

    async def test_it_is_writable_and_counted(self, tmp_path: Path, image: str) -> None:
        """By the bound on what a build may write."""
        text = "head -c 30000000 /dev/zero >/outbox/big; sleep 1000\n"
        async with a_node(tmp_path, engine="docker", build_disk=20_000_000, disk_check=0.1) as node:
            build = await built(node.service, image, OutboxOutput(), text)
            assert build.result is Result.FAILED
            assert "its limit is" in build.reason
            assert build.artifacts == ()

    async def test_a_hostile_tree_is_removed(self, tmp_path: Path, image: str) -> None:
        """Deeper than any path: the build fails, and nothing of it stays."""
        name = "d" * 200
        deep = f"cd /outbox; for i in $(busybox seq 30); do mkdir {name}; cd -P {name}; done\n"
        async with a_node(tmp_path, engine="docker") as node:
            build = await built(node.service, image, OutboxOutput(), deep + "ln -s / root\n")
            assert build.result is Result.FAILED
            assert "a path is longer than 4096 bytes" in build.reason
            assert not list(tmp_path.glob("*/work/*"))


def unzip_accepts(path: Path) -> None:
    """Info-ZIP's program finds no fault."""
    subprocess.run(["unzip", "-tq", path], check=True, capture_output=True)


# Streams

BLOCK = 1 << 20
IMAGE = b"".join(bytes([number]) * BLOCK for number in range(1, 9))  # what MAKE_ISO writes
DIGEST = hashlib.sha256(IMAGE).hexdigest()


def block(number: int) -> str:
    """A line that writes a block."""
    return f"head -c {BLOCK} /dev/zero | busybox tr '\\0' '\\{number:03o}'\n"


MAKE_ISO = f"{block(1)}echo begun >&2\n{GATE}" + "".join(block(n) for n in range(2, 9))


async def growing(service: BuildService, image: str, *texts: str, pipe: bool = False) -> Build:
    """A build whose stream has begun."""
    output = StreamOutput("live.iso", pipe=pipe)
    wanted = build_of(image, *(SCRIPT + text for text in texts), output=output)
    accepted = await service.submit(LOCAL, wanted)
    return await build_until(service, accepted.id, lambda b: bool(b.artifacts), 60)


def out(node: Program, build: Build) -> Path:
    """The folder that the build's commands see as OUT."""
    work: Path = node.parts._work
    return work / f"{build.id}.1" / "out"


async def let_go(folder: Path) -> None:
    """The command goes on that waits at its gate."""
    await asyncio.to_thread(until, (folder / "begun").exists)
    (folder / "go").touch()


async def cut_off(opened: OpenArtifact) -> bytes:
    """What came before the source broke off. Fails where it ends as if it were whole."""
    received = bytearray()
    try:
        async for piece in opened.stream:
            received += piece
    except Unavailable:
        return bytes(received)
    finally:
        await opened.stream.close()
    pytest.fail(f"it looks whole after {len(received)} bytes")


class TestStream:
    """An image that is downloaded while it is made."""

    @pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
    async def test_an_iso_comes_while_it_is_made(
        self, tmp_path: Path, image: str, pipe: bool, figures: Figures
    ) -> None:
        """Its first block is with the reader while the command waits; the whole has the digest
        that the build says; standard error is in the log.
        """
        async with a_node(tmp_path, engine="docker") as node, a_client(node.url) as client:
            begun = time.monotonic()
            build = await growing(
                client, image, "echo first; echo second >&2\n", MAKE_ISO, pipe=pipe
            )
            opened = await client.open_artifact(LOCAL, build.id, "live.iso")
            received, first = bytearray(), 0.0
            async for piece in opened.stream:
                first = first or time.monotonic()
                received += piece
                if len(received) == BLOCK:
                    await asyncio.sleep(1)  # as long as the rest of the image is in the making
                    await let_go(out(node, build))
            await opened.stream.close()
            took = time.monotonic() - first
            assert received == IMAGE
            build = await ended(client, build.id)
            (artifact,) = build.artifacts
            assert (artifact.sha256, artifact.size) == (DIGEST, len(IMAGE))
            assert artifact.kept is not pipe
            assert await log_of(client, build.id) == b"first\nsecond\nbegun\n"
            assert took > 1
            kind = "pipe" if pipe else "file"
            words = f"first byte {first - begun:.2f} s after the create, last {took:.2f} s later"
            figures(f"stream by a {kind}: {words}")

    @pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
    @pytest.mark.parametrize("how", ["exit 3", "kill -9 $$"])
    async def test_a_failure_cuts_the_reader_off(
        self, tmp_path: Path, image: str, pipe: bool, how: str
    ) -> None:
        """It never looks whole."""
        async with a_node(tmp_path, engine="docker") as node, a_client(node.url) as client:
            build = await growing(client, image, f"{block(1)}{GATE}{how}\n", pipe=pipe)
            opened = await client.open_artifact(LOCAL, build.id, "live.iso")
            going = asyncio.create_task(let_go(out(node, build)))
            assert await cut_off(opened) == IMAGE[:BLOCK]
            await going
            build = await ended(client, build.id)
            assert (build.result, build.artifacts) == (Result.FAILED, ())

    async def test_a_reader_of_a_pipe_who_hangs_up(self, tmp_path: Path, image: str) -> None:
        """The command is told so by its next write, and the build fails."""
        async with a_node(tmp_path, engine="docker") as node, a_client(node.url) as client:
            build = await growing(client, image, "exec yes\n", pipe=True)
            opened = await client.open_artifact(LOCAL, build.id, "live.iso")
            assert await anext(aiter(opened.stream))
            await opened.stream.close()
            build = await ended(client, build.id)
            assert build.result is Result.FAILED
            assert "went away" in build.reason

    async def test_what_writes_the_stream_is_killed(self, tmp_path: Path, image: str) -> None:
        """By a command that is root: the build fails, though it ended with 0."""
        kill = "kill -9 -1\n" + block(1)
        async with a_node(tmp_path, engine="docker") as node:
            text = f"trap '' PIPE; {kill}exit 0\n"
            build = await built(node.service, image, StreamOutput(), text)
            assert build.result is Result.FAILED
            assert b"the stream is cut short: what writes it was killed" in (
                await log_of(node.service, build.id)
            )

    async def test_nothing_is_left_behind(self, tmp_path: Path, image: str) -> None:
        """A process in the background that holds the stream is ended with its command; an empty
        stream is an artifact too.
        """
        async with a_node(tmp_path, engine="docker") as node:
            build = await built(node.service, image, StreamOutput(), "sleep 1000 &\n")
            assert build.result is Result.SUCCEEDED, build.reason
            assert await content(node.service, build, "stream.bin") == b""


class TestNodeKilled:
    """SIGKILL while a stream grows."""

    async def test_a_file_goes_on_and_is_whole_at_the_end(self, tmp_path: Path, image: str) -> None:
        """Who reads is cut off, also through the scheduler, and can begin anew."""
        node = DockerNode(tmp_path / "node")
        node.begin()
        scheduler = a_scheduler(tmp_path / "scheduler", node)
        scheduler.begin()
        try:
            async with a_client(scheduler.url) as client:
                build = await growing(client, image, MAKE_ISO)
                opened = await client.open_artifact(LOCAL, build.id, "live.iso")
                pieces = aiter(opened.stream)
                first = await anext(pieces)
                node.kill()
                assert IMAGE.startswith(first + await cut_off(opened))
                node.begin()
                await let_go(node.out(build.id))
                build = await ended(client, build.id, 60)
                assert (build.result, build.attempt) == (Result.SUCCEEDED, 1), build.reason
                assert await content(client, build, "live.iso") == IMAGE
                assert build.artifacts[0].sha256 == DIGEST
                node.nothing_left(build)
        finally:
            node.clear()
            scheduler.end()

    async def test_a_pipe_is_lost(self, tmp_path: Path, image: str) -> None:
        """What its reader had cannot be had again: the build says so, and is not tried again."""
        node = DockerNode(tmp_path / "node")
        node.begin()
        scheduler = a_scheduler(tmp_path / "scheduler", node)
        scheduler.begin()
        try:
            async with a_client(scheduler.url) as client:
                build = await growing(client, image, f"trap '' PIPE; {MAKE_ISO}", pipe=True)
                opened = await client.open_artifact(LOCAL, build.id, "live.iso")
                assert await anext(aiter(opened.stream))
                node.kill()
                await opened.stream.close()
                node.begin()
                build = await ended(client, build.id, 60)
                assert (build.result, build.attempt) == (Result.LOST, 1)
                assert "restarted while its stream was read" in build.reason
                assert "not tried again" in build.reason
                node.nothing_left(build)
        finally:
            node.clear()
            scheduler.end()

"""What comes out of a build, on the dummy engine: by node and scheduler, over real sockets."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.errors import Conflict, NotFound, Unavailable, Unsatisfiable
from protocol.model.build import Build, Result
from protocol.model.lifecycle import Event, advance
from protocol.model.recipe import OutboxOutput, Output, PathsOutput, StreamOutput
from protocol.ports.service import LOCAL, BuildService, ByteRange
from tests.programs import Program, a_client, a_node, a_scheduler, ended, log_of, ready, request
from tests.programs import until as build_until

pytestmark = pytest.mark.gen_test(timeout=60)


async def built(service: BuildService, output: Output, *texts: str) -> Build:
    """The build of these scripts, when it has ended."""
    accepted = await service.submit(LOCAL, request(*texts, output=output))
    return await ended(service, accepted.id)


async def content(service: BuildService, build: Build, name: str) -> bytes:
    """The whole artifact."""
    opened = await service.open_artifact(LOCAL, build.id, name)
    try:
        return b"".join([piece async for piece in opened.stream])
    finally:
        await opened.stream.close()


class TestPaths:
    """Files that paths and patterns name."""

    async def test_each_becomes_an_artifact(self, tmp_path: Path) -> None:
        """Of its own name, made fit and unique; each with the digest of its bytes."""
        wanted = PathsOutput(("/a/*.iso", "/b/x.iso", "/b/\N{SNOWMAN}y"))
        text = "file /a/x.iso 5000\nfile /b/x.iso 7\nfile /b/\N{SNOWMAN}y 0\nfile /c 1"
        async with a_node(tmp_path) as node:
            build = await built(node.service, wanted, text)
            assert build.result is Result.SUCCEEDED, build.reason
            sizes = [(one.name, one.size) for one in build.artifacts]
            assert sizes == [("x.iso", 5000), ("x-1.iso", 7), ("y", 0)]
            for artifact in build.artifacts:
                data = await content(node.service, build, artifact.name)
                assert hashlib.sha256(data).hexdigest() == artifact.sha256
            assert build.commands[-1].name == "find the files"

    async def test_a_path_that_names_nothing(self, tmp_path: Path) -> None:
        """The build fails and says which; nothing is kept of the others."""
        async with a_node(tmp_path) as node:
            build = await built(
                node.service, PathsOutput(("/a/*.iso", "/b", "/c*")), "file /a/x.iso 5"
            )
            assert build.result is Result.FAILED
            assert build.reason == "no regular file matches '/b', '/c*'"
            assert build.artifacts == ()
            assert not (node.parts.settings and list(tmp_path.rglob("x.iso")))

    async def test_any_build_runs(self, tmp_path: Path) -> None:
        """The engine makes something up where the script does not."""
        async with a_node(tmp_path) as node:
            build = await built(node.service, PathsOutput(("/a/*.iso",)), "make -j")
            assert [one.name for one in build.artifacts] == ["x.iso"]


class TestOutbox:
    """Everything under /outbox/, as one zip."""

    async def test_a_zip(self, tmp_path: Path) -> None:
        """Names are relative; what the build put there is in it, and nothing else."""
        text = "file /outbox/a/b.txt 3000\nfile /outbox/c 0\nfile /elsewhere 1"
        async with a_node(tmp_path) as node:
            build = await built(node.service, OutboxOutput("mine.zip"), text)
            assert build.result is Result.SUCCEEDED, build.reason
            packed = zipfile.ZipFile(io.BytesIO(await content(node.service, build, "mine.zip")))
            assert packed.testzip() is None
            assert packed.namelist() == ["a/", "a/b.txt", "c"]
            assert packed.getinfo("a/b.txt").file_size == 3000

    async def test_an_empty_one(self, tmp_path: Path) -> None:
        """It is a valid zip."""
        async with a_node(tmp_path) as node:
            build = await built(node.service, OutboxOutput(), "print nothing")
            assert build.result is Result.SUCCEEDED, build.reason
            data = await content(node.service, build, "outbox.zip")
            assert zipfile.ZipFile(io.BytesIO(data)).namelist() == []

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"outbox_files": 2}, "more than 2 files"),
            ({"outbox_size": 2999}, "more than 2999 bytes"),
        ],
    )
    async def test_over_its_bounds(self, tmp_path: Path, settings, words) -> None:
        """The build fails and says why."""
        text = "file /outbox/a/b.txt 3000\nfile /outbox/c 0"
        async with a_node(tmp_path, **settings) as node:
            build = await built(node.service, OutboxOutput(), text)
            assert build.result is Result.FAILED
            assert words in build.reason
            assert build.artifacts == ()


# Streams

GROWING = "bytes 3000\nwarn half\nawait go\nbytes 5000"
FAILING = f"{GROWING}\nexit 3"


async def growing(service: BuildService, text: str, *, pipe: bool = False) -> Build:
    """A build whose stream has begun."""
    output = StreamOutput("s.bin", pipe=pipe)
    accepted = await service.submit(LOCAL, request("print first", text, output=output))
    build = await build_until(service, accepted.id, lambda b: bool(b.artifacts))
    assert [(one.name, one.growing, one.sha256) for one in build.artifacts] == [("s.bin", True, "")]
    return build


def let_go(node: Program, build: Build) -> None:
    """The command goes on that awaits this."""
    work: Path = node.parts._work
    (work / f"{build.id}.1" / "out" / "go").touch()


class Reader:
    """Reads a stream at its own pace."""

    def __init__(self, service: BuildService, build: Build) -> None:
        self._service = service
        self._build = build
        self.data = bytearray()

    async def begin(self) -> "Reader":
        """It is there."""
        self._opened = await self._service.open_artifact(LOCAL, self._build.id, "s.bin")
        self._pieces = aiter(self._opened.stream)
        return self

    async def read(self, size: int) -> bytearray:
        """When so much has come."""
        async with asyncio.timeout(10):
            while len(self.data) < size:
                self.data += await anext(self._pieces)
        return self.data

    async def rest(self) -> bytearray:
        """All there is; it goes away then."""
        try:
            async with asyncio.timeout(20):
                async for piece in self._pieces:
                    self.data += piece
        finally:
            await self.close()
        return self.data

    async def close(self) -> None:
        """It goes away."""
        await self._opened.stream.close()


@asynccontextmanager
async def client_of_node(folder: Path) -> AsyncIterator[tuple[BuildService, Program]]:
    """A client of a node, and the node."""
    async with a_node(folder) as node, a_client(node.url) as client:
        yield client, node


@asynccontextmanager
async def client_of_scheduler(folder: Path) -> AsyncIterator[tuple[BuildService, Program]]:
    """A client of a scheduler, and the node below."""
    async with (
        a_node(folder) as node,
        a_scheduler(folder, node.url) as scheduler,
        a_client(scheduler.url) as client,
    ):
        await ready(scheduler)
        yield client, node


either = pytest.mark.parametrize("serving", [client_of_node, client_of_scheduler])
both_kinds = pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])


class TestStream:
    """Standard output of the last command, while it is written."""

    @either
    @both_kinds
    async def test_it_comes_while_it_is_made(self, tmp_path: Path, serving, pipe: bool) -> None:
        """What was written is with the reader before the rest exists; standard error is in the log;
        in the end the build has size and digest of what the reader got.
        """
        async with serving(tmp_path) as (client, node):
            build = await growing(client, GROWING, pipe=pipe)
            reader = await Reader(client, build).begin()
            assert len(await reader.read(3000)) == 3000
            let_go(node, build)
            data = await reader.rest()
            build = await ended(client, build.id)
            assert (build.result, len(data)) == (Result.SUCCEEDED, 8000), build.reason
            (artifact,) = build.artifacts
            assert (artifact.size, artifact.kept) == (8000, not pipe)
            assert artifact.sha256 == hashlib.sha256(data).hexdigest()
            assert await log_of(client, build.id) == b"first\nhalf\n"
            if pipe:
                with pytest.raises(NotFound):
                    await content(client, build, "s.bin")
            else:
                assert await content(client, build, "s.bin") == data

    @either
    @both_kinds
    async def test_a_failure_cuts_the_reader_off(self, tmp_path: Path, serving, pipe: bool) -> None:
        """It never looks whole, though every byte has come; nothing is kept."""
        async with serving(tmp_path) as (client, node):
            build = await growing(client, FAILING, pipe=pipe)
            reader = await Reader(client, build).begin()
            await reader.read(3000)
            let_go(node, build)
            with pytest.raises(Unavailable):
                await reader.rest()
            assert len(reader.data) == 8000
            build = await ended(client, build.id)
            assert (build.result, build.artifacts) == (Result.FAILED, ())

    @either
    async def test_a_cancel_cuts_the_reader_off(self, tmp_path: Path, serving) -> None:
        """As a failure does."""
        async with serving(tmp_path) as (client, _):
            build = await growing(client, "bytes 100\nhang")
            reader = await Reader(client, build).begin()
            await reader.read(100)
            build = await client.cancel(LOCAL, build.id)
            with pytest.raises(Unavailable):
                await reader.rest()
            assert (build.result, build.artifacts) == (Result.CANCELLED, ())

    @either
    async def test_many_may_read_a_file_from_its_beginning(self, tmp_path: Path, serving) -> None:
        """Also who comes late."""
        async with serving(tmp_path) as (client, node):
            build = await growing(client, GROWING)
            first = await Reader(client, build).begin()
            await first.read(3000)
            second = await Reader(client, build).begin()
            let_go(node, build)
            assert await first.rest() == await second.rest()
            assert len(first.data) == 8000

    @either
    async def test_ranges(self, tmp_path: Path, serving) -> None:
        """Of what is there already; of the rest, and from an end that is not known, none."""
        async with serving(tmp_path) as (client, node):
            build = await growing(client, GROWING)
            reader = await Reader(client, build).begin()
            data = await reader.read(3000)
            for start, end, upto in ((10, 20, 20), (2990, None, 3000), (2990, 4000, 3000)):
                opened = await client.open_artifact(LOCAL, build.id, "s.bin", ByteRange(start, end))
                assert (opened.start, opened.end) == (start, upto)
                assert b"".join([p async for p in opened.stream]) == data[start:upto]
                assert opened.artifact.growing
            for part in (ByteRange(3000), ByteRange(-5)):
                with pytest.raises(Unsatisfiable):
                    await client.open_artifact(LOCAL, build.id, "s.bin", part)
            let_go(node, build)
            await reader.rest()

    @either
    async def test_a_pipe_has_one_reader(self, tmp_path: Path, serving) -> None:
        """A second one, and one who wants a range, is refused."""
        async with serving(tmp_path) as (client, node):
            build = await growing(client, GROWING, pipe=True)
            with pytest.raises(Unsatisfiable):
                await client.open_artifact(LOCAL, build.id, "s.bin", ByteRange(0, 10))
            reader = await Reader(client, build).begin()
            with pytest.raises(Conflict):
                await client.open_artifact(LOCAL, build.id, "s.bin")
            let_go(node, build)
            assert len(await reader.rest()) == 8000

    @either
    async def test_the_reader_of_a_pipe_goes_away(self, tmp_path: Path, serving) -> None:
        """The build fails: nobody can have the whole any more."""
        async with serving(tmp_path) as (client, _):
            build = await growing(client, "bytes 3000\nhang", pipe=True)
            reader = await Reader(client, build).begin()
            await reader.read(3000)
            await reader.close()
            build = await ended(client, build.id)
            assert build.result is Result.FAILED
            assert build.reason == "the reader of its stream went away after 3000 bytes"

    async def test_a_pipe_that_nobody_reads(self, tmp_path: Path) -> None:
        """Its command waits, until its time is over."""
        async with a_node(tmp_path, time_limit=1) as node:
            build = await growing(node.service, "bytes 10", pipe=True)
            assert (await ended(node.service, build.id)).result is Result.TIMED_OUT

    async def test_a_slow_reader_of_a_pipe_slows_the_command(self, tmp_path: Path) -> None:
        """The command is no further than what lies between them."""
        async with client_of_node(tmp_path) as (client, node):
            build = await growing(client, f"bytes {48 << 20}\nwarn over", pipe=True)
            reader = await Reader(client, build).begin()
            await reader.read(1)
            before = -1
            source = node.parts.runner._builders[build.id].streaming
            while before != source.size:  # it comes to rest
                before = source.size
                await asyncio.sleep(0.3)
            assert 0 < before < 32 << 20
            assert await log_of(client, build.id) == b"first\n"
            assert len(await reader.rest()) == 48 << 20

    async def test_a_head_takes_no_reader(self, tmp_path: Path) -> None:
        """It has no length, and no body; and the headers tell caches to keep out."""
        import aiohttp

        async with client_of_node(tmp_path) as (client, node), aiohttp.ClientSession() as session:
            build = await growing(client, GROWING, pipe=True)
            url = f"{node.url}/api/v1/builds/{build.id}/artifacts/s.bin"
            async with session.head(url) as answer:
                assert answer.status == 200
                assert "ETag" not in answer.headers
                assert answer.headers["Cache-Control"] == "no-store"
            reader = await Reader(client, build).begin()
            let_go(node, build)
            assert len(await reader.rest()) == 8000

    @either
    async def test_in_http(self, tmp_path: Path, serving) -> None:
        """Chunks without a length and a digest; a range of what is there has no whole; behind that
        nothing can be had, and a pipe's second reader is a conflict.
        """
        import aiohttp

        async with serving(tmp_path) as (client, node), aiohttp.ClientSession() as session:
            build = await growing(client, GROWING)
            reader = await Reader(client, build).begin()
            await reader.read(3000)
            url = f"{client.url}/api/v1/builds/{build.id}/artifacts/s.bin"
            async with session.get(url) as answer:
                assert (answer.status, answer.headers["Transfer-Encoding"]) == (200, "chunked")
                assert {"Content-Length", "ETag"}.isdisjoint(answer.headers)
            async with session.get(url, headers={"Range": "bytes=5-2"}) as answer:
                assert answer.status == 200  # as RFC 9110 has it for a range that is none
            async with session.get(url, headers={"Range": "bytes=5-14"}) as answer:
                assert answer.status == 206
                assert answer.headers["Content-Range"] == "bytes 5-14/*"
                assert await answer.read() == reader.data[5:15]
            for part in ("bytes=3000-", "bytes=-1"):
                async with session.get(url, headers={"Range": part}) as answer:
                    assert answer.status == 416
                    assert "Content-Range" not in answer.headers
            let_go(node, build)
            await reader.rest()
            await ended(client, build.id)
            async with session.get(url, headers={"Range": "bytes=-1"}) as answer:
                assert answer.headers["Content-Range"] == "bytes 7999-7999/8000"
            build = await growing(client, GROWING, pipe=True)
            reader = await Reader(client, build).begin()
            url = f"{client.url}/api/v1/builds/{build.id}/artifacts/s.bin"
            async with session.get(url) as answer:
                assert answer.status == 409
            let_go(node, build)
            await reader.rest()

    async def test_a_command_that_cuts_its_stream_short(self, tmp_path: Path) -> None:
        """What was served cannot be taken back: the build fails, and the reader is cut off."""
        async with client_of_node(tmp_path) as (client, node):
            build = await growing(client, GROWING)
            reader = await Reader(client, build).begin()
            await reader.read(3000)
            (node.parts._work / f"{build.id}.1" / "out" / "stream").write_bytes(b"short")
            with pytest.raises(Unavailable):
                await reader.rest()
            build = await ended(client, build.id)
            assert build.result is Result.FAILED
            assert "cut short" in build.reason

    async def test_a_command_that_replaces_its_stream(self, tmp_path: Path) -> None:
        """The build fails: its artifact would be another than what was served."""
        async with client_of_node(tmp_path) as (client, node):
            build = await growing(client, GROWING)
            reader = await Reader(client, build).begin()
            await reader.read(3000)
            out = node.parts._work / f"{build.id}.1" / "out"
            (out / "other").write_bytes(b"other")
            (out / "other").rename(out / "stream")
            let_go(node, build)
            with pytest.raises(Unavailable):
                await reader.rest()
            build = await ended(client, build.id)
            assert (build.result, build.artifacts) == (Result.FAILED, ())
            assert "replaced" in build.reason

    async def test_a_pipe_whose_build_failed_before_is_no_artifact(self, tmp_path: Path) -> None:
        """The last command never ran."""
        async with a_node(tmp_path) as node:
            build = await built(node.service, StreamOutput(pipe=True), "exit 1", "bytes 10")
            assert (build.result, build.artifacts) == (Result.FAILED, ())


class TestAgain:
    """What has begun to stream is tried once."""

    async def test_a_node_that_fails_meanwhile(self, tmp_path: Path) -> None:
        """The reader is cut off, and the build is lost at its first attempt."""
        async with client_of_scheduler(tmp_path) as (client, node):
            build = await growing(client, "bytes 3000\nawait go\nengine-fault")
            reader = await Reader(client, build).begin()
            await reader.read(3000)
            let_go(node, build)
            with pytest.raises(Unavailable):
                await reader.rest()
            build = await ended(client, build.id)
            assert (build.result, build.attempt, build.artifacts) == (Result.LOST, 1, ())
            assert "not tried again" in build.reason

    async def test_a_node_that_dies_cuts_the_reader_off(self, tmp_path: Path) -> None:
        """Also through the scheduler; and another node does not get the build."""
        async with (
            a_node(tmp_path) as other,
            a_scheduler(tmp_path) as scheduler,
            a_client(scheduler.url) as client,
        ):
            async with a_node(tmp_path) as node:
                scheduler.parts.discovery.named((node.url,))
                await ready(scheduler)
                build = await growing(client, "bytes 3000\nhang")
                reader = await Reader(client, build).begin()
                await reader.read(3000)
                scheduler.parts.discovery.named((node.url, other.url))
                await ready(scheduler, 1)
            with pytest.raises(Unavailable):
                await reader.rest()
            build = await ended(client, build.id)
            assert (build.result, build.attempt) == (Result.LOST, 1)
            assert "not tried again" in build.reason


def test_nothing_grows_in_a_build_that_has_stopped() -> None:
    """However it stopped."""
    from msgspec.structs import replace

    from protocol.model.build import Artifact, new_build
    from protocol.model.request import BuildRequest

    build = new_build("b", BuildRequest(), origin="o", owner="", now=0)
    build = advance(advance(build, Event.PREPARE, 1), Event.RUN, 2)
    build = replace(build, artifacts=(Artifact("a", 1, "", growing=True), Artifact("b", 2, "x")))
    assert [one.name for one in advance(build, Event.FAIL, 3).artifacts] == ["b"]

"""Where a node's disk is full while it fetches, copies, packs or takes in: never a short file that
looks whole. It ends in words, nothing stays of it, and the node goes on.

That files can grow no further stands for the full disk; what was written up to there is written.
"""

import contextlib
import errno
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tornado import httpserver, netutil, web

from node.engines.docker_images import DockerImages
from node.engines.errors import Interrupt
from node.files.logs import ServedLog
from protocol.errors import Busy, Unavailable
from protocol.model.build import Build, Result, Stage
from protocol.model.messages import BuildQuery
from protocol.model.recipe import (
    FetchedContent,
    InputFile,
    OutboxOutput,
    StreamOutput,
    UploadedContent,
)
from protocol.model.request import Forward
from protocol.ports.service import LOCAL, Caller, Role
from protocol.storage.blob_folder import BlobFolder
from tests.programs import Program, a_node, ended, request, until
from tests.streams import Given

pytestmark = pytest.mark.gen_test(timeout=60)

MIB = 1 << 20
ROOM = 1_300_000  # bytes that a file can have: the second piece of what is larger is cut short
LARGE = os.urandom(ROOM + 100_000)
NO_ROOM = "File too large"


@contextlib.contextmanager
def full() -> Iterator[None]:
    """Files grow no further than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@asynccontextmanager
async def a_server() -> AsyncIterator[str]:
    """The URL of something large."""

    class Large(web.RequestHandler):
        def get(self) -> None:
            self.write(LARGE)

    (socket,) = netutil.bind_sockets(0, "127.0.0.1")
    server = httpserver.HTTPServer(web.Application([("/large", Large)]))
    server.add_sockets([socket])
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/large"
    finally:
        server.stop()
        await server.close_all_connections()


async def built(node: Program, content: Any) -> Build:
    """A build with this input, when it has ended."""
    wanted = request("print x")
    file = InputFile("a", content, executable=True)  # which is copied, not linked
    wanted = replace(wanted, recipe=replace(wanted.recipe, inputs=(file,)))
    accepted = await node.service.submit(LOCAL, wanted)
    return await ended(node.service, accepted.id)


async def goes_on(node: Program, tmp_path: Path, build: Build) -> None:
    """Nothing is left of the build but its log, and the node takes the next."""
    home = tmp_path / node.parts.node.name
    left = [path for path in home.rglob("*") if build.id in str(path)]
    assert [path.name for path in left] == [f"{build.id}.1.log"]
    accepted = await node.service.submit(LOCAL, request("print x"))
    assert (await ended(node.service, accepted.id)).result is Result.SUCCEEDED


async def test_an_input_that_is_fetched(tmp_path: Path) -> None:
    """Its last piece is cut short, which no error of the system says."""
    async with a_server() as url, a_node(tmp_path) as node:
        with full():
            build = await built(node, FetchedContent(url))
        assert (build.result, NO_ROOM in build.reason) == (Result.LOST, True), build
        assert str(tmp_path) not in build.reason
        await goes_on(node, tmp_path, build)
        assert (await built(node, FetchedContent(url))).result is Result.SUCCEEDED


async def test_an_input_that_is_copied(tmp_path: Path) -> None:
    """The same of an upload."""
    async with a_node(tmp_path) as node:
        content = UploadedContent(await node.service.upload(LOCAL, Given(LARGE)))
        with full():
            build = await built(node, content)
        assert (build.result, NO_ROOM in build.reason) == (Result.LOST, True), build
        assert str(tmp_path) not in build.reason
        await goes_on(node, tmp_path, build)
        assert (await built(node, content)).result is Result.SUCCEEDED


async def test_an_upload(tmp_path: Path) -> None:
    """It is refused for now; also where not even a file can be made."""
    async with a_node(tmp_path) as node:
        with full(), pytest.raises(Busy, match=f"it cannot be kept: {NO_ROOM}"):
            await node.service.upload(LOCAL, Given(LARGE))
        assert not list((tmp_path / node.parts.node.name / "blobs").iterdir())
        assert await node.service.upload(LOCAL, Given(LARGE))


async def test_an_upload_for_which_no_file_can_be_made(tmp_path: Path, monkeypatch) -> None:
    """The same."""
    blobs = BlobFolder(tmp_path / "blobs", limit=1 << 30, reserve=0)
    monkeypatch.setattr("tempfile.mkstemp", _no_room)
    with pytest.raises(Busy, match="it cannot be kept: No space left on device"):
        await blobs.upload(LOCAL, Given(b"x"))


async def test_an_outbox_that_is_packed(tmp_path: Path) -> None:
    """The build fails, and nothing is served of the half that was packed."""
    async with a_node(tmp_path) as node:
        wanted = request("await go", output=OutboxOutput())
        accepted = await node.service.submit(LOCAL, wanted)
        await until(node.service, accepted.id, lambda build: build.stage is Stage.RUNNING)
        work = tmp_path / node.parts.node.name / "work" / f"{accepted.id}.1"
        (work / "outbox" / "large").write_bytes(LARGE)
        with full():
            (work / "out" / "go").touch()
            build = await ended(node.service, accepted.id)
        assert (build.result, build.artifacts) == (Result.FAILED, ())
        assert "the outbox could not be taken: " in build.reason
        assert NO_ROOM in build.reason
        await goes_on(node, tmp_path, build)


def test_an_image_that_the_engine_gives(tmp_path: Path) -> None:
    """Never a part of it without an error."""
    images = object.__new__(DockerImages)
    images._connection = _Giving()
    with full(), pytest.raises(OSError, match=NO_ROOM):
        images._written("/images/x/get", tmp_path / "image", Interrupt())


async def test_a_log_that_cannot_be_made(tmp_path: Path, monkeypatch) -> None:
    """The build ends, whoever it came from; what waits behind it begins."""
    async with a_node(tmp_path) as node:
        running = await node.service.submit(LOCAL, request("hang"))
        one, other = [await node.service.submit(LOCAL, request("print x")) for _ in range(2)]
        made = ServedLog.__init__

        def once(log: ServedLog, path: Path, attempt: int) -> None:
            monkeypatch.setattr(ServedLog, "__init__", made)
            _no_room()

        monkeypatch.setattr(ServedLog, "__init__", once)
        await node.service.cancel(LOCAL, running.id)
        build = await ended(node.service, one.id)
        assert build.result is Result.LOST
        assert build.reason == "its log cannot be made: No space left on device"
        assert node.parts.ledger.kept(one.id).record.build.reason == build.reason
        assert (await ended(node.service, other.id)).result is Result.SUCCEEDED


async def test_a_new_build_that_cannot_be_written_down(tmp_path: Path) -> None:
    """It is refused for now, whoever asks; nothing of it is there, and its slot is free."""
    above = Caller("", Role.PROGRAM, "a" * 32, "b" * 32)
    large = request("print x" * 20_000)
    async with a_node(tmp_path) as node:
        (pages,) = node.parts.records._database.read(
            lambda c: c.execute("PRAGMA page_count").fetchone()
        )
        await node.parts.records._database.write(
            lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        )
        for forward in (None, Forward("1" * 26, above.program, 1)):
            with pytest.raises(Busy, match=r"cannot be written down now: .* is full"):
                await node.service.submit(above, large, forward)
        assert not (await node.service.list(LOCAL, BuildQuery())).builds
        assert (await node.service.status(above)).used == 0
        await node.parts.records._database.write(
            lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone()
        )
        for forward in (None, Forward("1" * 26, above.program, 1)):
            build = await node.service.submit(above, large, forward)
            assert (await ended(node.service, build.id)).result is Result.SUCCEEDED


async def test_a_pipe_of_which_it_cannot_be_written_down_that_it_was_read(
    tmp_path: Path, monkeypatch
) -> None:
    """Neither its reader nor the build takes it for whole, and the reader is not to blame."""
    async with a_node(tmp_path) as node:
        wanted = request("bytes 3000", output=StreamOutput(name="s.bin", pipe=True))
        accepted = await node.service.submit(LOCAL, wanted)
        await until(node.service, accepted.id, lambda build: bool(build.artifacts))
        opened = await node.service.open_artifact(LOCAL, accepted.id, "s.bin")
        monkeypatch.setattr("node.outputs.piping._write_note", _no_room)
        with pytest.raises(Unavailable, match="No space left on device"):
            [piece async for piece in opened.stream]
        await opened.stream.close()
        build = await ended(node.service, accepted.id)
        assert (build.result, build.artifacts) == (Result.LOST, ())
        assert build.reason == (
            "its node could not write down that its stream was read: No space left on device"
        )
        await goes_on(node, tmp_path, build)


def _no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class _Giving:
    """A connection to an engine that gives something large."""

    @contextlib.contextmanager
    def asking(self) -> Iterator["_Giving"]:
        """See DockerConnection."""
        yield self

    @contextlib.contextmanager
    def given(self, path: str) -> Iterator["_Giving"]:
        """See Client."""
        yield self

    def iter_content(self, size: int) -> Iterator[bytes]:
        """See requests.Response."""
        for start in range(0, len(LARGE), size):
            yield LARGE[start : start + size]

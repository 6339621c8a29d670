"""Inputs on the real engine: what a build finds under /inbox/, from wherever it comes, and that
nothing of it stays.
"""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Invalid
from protocol.model.build import Build, Result
from protocol.model.recipe import (
    Command,
    FetchedContent,
    ImageBase,
    InputFile,
    NoOutput,
    Recipe,
    TextContent,
    UploadedContent,
)
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, log_of
from tests.system import engine as tools

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=60)]

BLOB = b"\x00\xffbytes\n" * 1000
BLOB_DIGEST = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image with a shell."""
    try:
        yield tools.make_image(tools.shell_tree(), "ENV PATH=/bin")
    finally:
        tools.remove_everything()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A server: its URL. /missing is unknown, /gone leads there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            codes = {"/missing": 404, "/moved": 302}
            self.send_response(codes.get(self.path, 200))
            if self.path == "/moved":
                self.send_header("Location", "/file")
            self.send_header("Content-Length", str(len(BLOB)))
            self.end_headers()
            self.wfile.write(BLOB[:-1] if self.path == "/short" else BLOB)

        def log_message(self, *words: Any) -> None:
            """Nothing: it is a test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def built(node: Program, image: str, script: str, *files: InputFile) -> tuple[Build, bytes]:
    """(the build, its log) of a script with these inputs, when it has stopped."""
    recipe = Recipe(
        (Command("look", text=f"#!/bin/sh\n{script}\n"),),
        base=ImageBase(image),
        inputs=files,
        output=NoOutput(),
    )
    build = await node.service.submit(LOCAL, BuildRequest(recipe))
    build = await ended(node.service, build.id, 50)
    return build, await log_of(node.service, build.id)


def nothing_left(folder: Path) -> bool:
    """Whether no attempt has a folder."""
    return not any(entry for place in folder.glob("*/inputs") for entry in place.iterdir())


async def test_files_of_every_kind(tmp_path, image, web) -> None:
    """Text, an upload and a URL, in folders, with the mode that was asked for; their names may hold
    spaces and any letters; /inbox/ cannot be written to; nothing stays.
    """
    files = (
        InputFile("a b/ünï", TextContent("héllo\n")),
        InputFile("run/me", TextContent("#!/bin/sh\necho ran\n"), executable=True),
        InputFile("blob", UploadedContent(BLOB_DIGEST)),
        InputFile("run/blob", UploadedContent(BLOB_DIGEST), executable=True),
        InputFile("fetched", FetchedContent(f"{web}/moved", BLOB_DIGEST)),
    )
    script = """
        cd /inbox || exit 1
        cat 'a b/ünï'
        run/me
        stat -c '%a %s %n' run blob run/blob fetched 'a b/ünï'
        touch new blob 2>/dev/null && echo written
        rm -f blob 2>/dev/null && echo removed
        true
    """
    async with a_node(tmp_path, engine="docker") as node:
        blobs = next(tmp_path.glob("*/blobs"))
        (blobs / BLOB_DIGEST).write_bytes(BLOB)
        build, log = await built(node, image, script, *files)
        assert build.result is Result.SUCCEEDED, log
        said = log.decode()
        assert "héllo\nran\n755 " in said
        for line in ("644 8000 blob", "755 8000 run/blob", "644 8000 fetched", "644 7 a b/ünï"):
            assert f"{line}\n" in said
        assert "written" not in said
        assert "removed" not in said
        assert nothing_left(tmp_path)
        assert (blobs / BLOB_DIGEST).read_bytes() == BLOB


async def test_no_inputs(tmp_path, image) -> None:
    """There is no /inbox/ then."""
    async with a_node(tmp_path, engine="docker") as node:
        build, log = await built(node, image, "stat /inbox 2>/dev/null || echo none")
        assert (build.result, log) == (Result.SUCCEEDED, b"none\n")


@pytest.mark.parametrize(
    ("path", "digest", "words"),
    [
        ("/missing", None, "answered 404"),
        ("/file", "0" * 64, f"has the SHA-256 {BLOB_DIGEST}, not 0000"),
        ("/short", None, "could not be fetched"),
        ("/large", None, "has more than 7999 bytes"),
    ],
)
async def test_what_cannot_be_fetched(tmp_path, image, web, path, digest, words) -> None:
    """Unknown, not what it is to be, broken off, too large: the user's failure, which names it;
    nothing runs and nothing stays.
    """
    limit = {"download_limit": 7999} if path == "/large" else {}
    async with a_node(tmp_path, engine="docker", **limit) as node:
        file = InputFile("file", FetchedContent(f"{web}{path}", digest))
        build, log = await built(node, image, "echo ran", file)
        assert build.result is Result.FAILED
        assert words in build.reason
        assert b"\nran\n" not in log
        assert path in build.reason
        assert nothing_left(tmp_path)


async def test_an_upload_that_is_not_here(tmp_path, image) -> None:
    """It is refused, with the field; nothing was begun."""
    async with a_node(tmp_path, engine="docker") as node:
        with pytest.raises(Invalid, match="1" * 64) as refused:
            await built(node, image, "true", InputFile("x", UploadedContent("1" * 64)))
        assert refused.value.field.startswith("recipe.inputs[0].content")
        assert nothing_left(tmp_path)


async def test_a_download_that_is_cancelled(tmp_path, image) -> None:
    """It ends with the build, and nothing stays."""
    asked, over = threading.Event(), threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)
            asked.set()
            over.wait(30)

        def log_message(self, *words: Any) -> None:
            """Nothing: it is a test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            async with a_node(tmp_path, engine="docker") as node:
                url = f"http://127.0.0.1:{server.server_port}/"
                recipe = Recipe(
                    (Command("look", text="#!/bin/sh\n"),),
                    base=ImageBase(image),
                    inputs=(InputFile("x", FetchedContent(url)),),
                )
                build = await node.service.submit(LOCAL, BuildRequest(recipe))
                await _set(asked)
                build = await node.service.cancel(LOCAL, build.id)
                assert build.result is Result.CANCELLED
                assert nothing_left(tmp_path)
        finally:
            over.set()
            server.shutdown()
            thread.join()


async def _set(event: threading.Event) -> None:
    import asyncio

    assert await asyncio.to_thread(event.wait, 20)

"""Artifacts relayed through real sockets: every byte arrives, a slow reader slows the source, and
what breaks off on one side is felt on the other.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from protocol import wire
from protocol.api.mount import application
from protocol.api.native import builds as native
from protocol.api.route import ApiSettings, Context
from protocol.model.build import Artifact
from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from protocol.transfer import splice
from tests.callers import Locals
from tests.programs import a_node, a_scheduler, ended, ready, request

SIZE = 9_000_001
PATH = "/api/v1/builds/0a/artifacts/image.iso"
LOG = "/api/v1/builds/0a/log"
HALF = 4 << 20

relaying = pytest.mark.gen_test(timeout=60)


class Answer(Struct):
    """What a client received."""

    status: int
    headers: dict[str, str]
    body: bytes  # as much as came


class Browser:
    """A client on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, path: str, part: str = "") -> Answer:
        """The head of the answer; the body is left where it is."""
        field = f"Range: bytes={part}\r\n" if part else ""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        return Answer(int(head[0].split()[1]), fields, b"")

    async def get(self, path: str, part: str = "") -> Answer:
        """The whole answer, or what came of it."""
        answer = await self.ask(path, part)
        try:
            answer.body = await self.reader.readexactly(int(answer.headers["Content-Length"]))
        except asyncio.IncompleteReadError as error:
            answer.body = error.partial
        return answer


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Browser]:
    """A client that is connected to the program at this URL."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Browser(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Sender:
    """The side of a connection that an artifact is sent on; sees how far it came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.sent = 0
        self.last = time.monotonic()  # when something was sent
        self.closed = False

    async def send(self, body: bytes) -> None:
        """As fast as it is taken."""
        for start in range(0, len(body), 1 << 18):
            piece = body[start : start + (1 << 18)]
            self.writer.write(piece)
            await self.writer.drain()
            self.sent += len(piece)
            self.last = time.monotonic()

    def idle(self) -> float:
        """Seconds since it sent something."""
        return time.monotonic() - self.last

    async def stall(self) -> None:
        """Send nothing more, until the other side hangs up."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        self.closed = True


Script = Callable[[Sender], Awaitable[None]]


@asynccontextmanager
async def relay_of(
    script: Script, size: int, path: str = PATH, fields: str = ""
) -> AsyncIterator[str]:
    """The API over the HTTP client over a source that answers this path with these fields, then
    plays the script: the relay's URL.
    """
    fields = fields or f"Content-Length: {size}"
    answering = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readuntil(b"\r\n\r\n"):
                if line.startswith(f"GET {path}".encode()):
                    writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode())
                    await script(Sender(reader, writer))
                else:
                    artifacts = {"artifacts": (Artifact("image.iso", size, "0" * 64),)}
                    body = wire.encode(artifacts, wire.MSGPACK)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                    writer.write(body)
        writer.close()

    source = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = HttpService(_url(source.sockets[0]))
    server = HTTPServer(application(Context(client, ApiSettings(), Locals()), native.ROUTES))
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(listening)
    try:
        yield _url(listening)
    finally:
        server.stop()
        await server.close_all_connections()
        await client.close()
        source.close()
        await asyncio.wait_for(asyncio.gather(*answering), 5)


def _url(listening: Any) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def moved(monkeypatch) -> list[int]:
    """Bytes of each body that was moved without a copy."""
    lengths: list[int] = []
    send = splice.send

    def noted(source: splice.Source, sink: int) -> "asyncio.Future[None]":
        lengths.append(source.length)
        return send(source, sink)

    monkeypatch.setattr(splice, "send", noted)
    return lengths


@asynccontextmanager
async def pool(folder) -> AsyncIterator[tuple[str, str, str]]:
    """A scheduler over a node with an artifact: the artifact's path, its digest, the scheduler's
    URL.
    """
    async with a_node(folder) as node, a_scheduler(folder, node.url) as scheduler:
        await ready(scheduler)
        wanted = request(f"artifact {SIZE}", output=IsoOutput())
        build = await ended(scheduler.service, (await scheduler.service.submit(LOCAL, wanted)).id)
        path = f"/api/v1/builds/{build.id}/artifacts/image.iso"
        yield path, build.artifacts[0].sha256, scheduler.url


@relaying
async def test_a_relayed_artifact_is_the_nodes_own(tmp_path, moved):
    """The digest is right, on node and scheduler no byte is copied, and the connection serves the
    next request.
    """
    async with pool(tmp_path) as (path, digest, url), browser(url) as client:
        for _ in range(2):
            answer = await client.get(path)
            assert answer.status == 200
            assert hashlib.sha256(answer.body).hexdigest() == digest
        assert (await client.get("/api/v1/builds")).status == 200
    assert len(moved) == 4


@pytest.mark.parametrize(
    ("part", "start", "end"),
    [
        ("0-", 0, SIZE),
        ("1000000-5999999", 1_000_000, 6_000_000),
        ("-4000000", SIZE - 4_000_000, SIZE),
        (f"{SIZE - 1}-", SIZE - 1, SIZE),
        ("5-14", 5, 15),
    ],
)
@relaying
async def test_a_part_of_an_artifact_is_relayed(tmp_path, part, start, end):
    """Large parts and small ones, and the whole again by the same connection."""
    async with pool(tmp_path) as (path, digest, url), browser(url) as client:
        answer = await client.get(path, part)
        whole = await client.get(path)
        assert hashlib.sha256(whole.body).hexdigest() == digest
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert answer.body == whole.body[start:end]


@relaying
async def test_many_artifacts_are_relayed_at_once(tmp_path):
    """Each whole; afterwards nothing is left open, and no thread."""
    async with pool(tmp_path) as (path, digest, url):

        async def download() -> str:
            async with browser(url) as client:
                return hashlib.sha256((await client.get(path)).body).hexdigest()

        assert await download() == digest
        await pumped()
        before = len(os.listdir("/proc/self/fd"))
        assert await asyncio.gather(*[download() for _ in range(20)]) == [digest] * 20
        await pumped()
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


@relaying
async def test_a_slow_reader_slows_the_source():
    """What is read nowhere is sent no further than the sockets' buffers; all of it comes in the
    end.
    """
    body = random.Random(1).randbytes(64 << 20)
    senders: list[Sender] = []

    async def script(sender: Sender) -> None:
        senders.append(sender)
        await sender.send(body)

    async with relay_of(script, len(body)) as url, browser(url) as client:
        answer = await client.ask(PATH)
        await eventually(lambda: bool(senders) and senders[0].idle() > 0.3)
        assert 0 < senders[0].sent < len(body) // 2
        received = await client.reader.readexactly(int(answer.headers["Content-Length"]))
        assert hashlib.sha256(received).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    ("sent", "read"),
    [(HALF, HALF), (64 << 20, 1 << 20)],
    ids=["source stalls", "source waits for us"],
)
@relaying
async def test_the_source_is_left_when_the_client_is_gone(sent, read):
    """Whether it has something to send or not."""
    senders: list[Sender] = []

    async def script(sender: Sender) -> None:
        senders.append(sender)
        with contextlib.suppress(ConnectionError):
            await sender.send(bytes(sent))
        await sender.stall()

    async with relay_of(script, 65 << 20) as url:
        async with browser(url) as client:
            await client.ask(PATH)
            await client.reader.readexactly(read)
            client.writer.transport.abort()
        await eventually(lambda: bool(senders) and senders[0].closed)
        await pumped()


@relaying
async def test_a_few_bytes_arrive_before_a_pause():
    """Of a source that pauses nothing is held back until there is more."""
    few, read = 1000, asyncio.Event()

    async def script(sender: Sender) -> None:
        await sender.send(bytes(HALF))
        await read.wait()
        await sender.send(bytes(few))
        await sender.stall()

    async with relay_of(script, 2 * HALF) as url:
        async with browser(url) as client:
            await client.ask(PATH)
            await client.reader.readexactly(HALF)
            read.set()
            async with asyncio.timeout(5):
                await client.reader.readexactly(few)
            client.writer.transport.abort()
        await pumped()


@pytest.mark.parametrize("politely", [True, False])
@pytest.mark.parametrize("half", [HALF, 50_000], ids=["spliced", "copied"])
@relaying
async def test_the_client_is_cut_off_when_the_source_is_gone(half, politely):
    """A short file never looks whole, and what did arrive is right."""
    body = random.Random(2).randbytes(half)

    async def script(sender: Sender) -> None:
        await sender.send(body)
        if politely:
            sender.writer.close()
        else:
            sender.writer.transport.abort()

    async with relay_of(script, 2 * half) as url, browser(url) as client:
        answer = await client.ask(PATH)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := await client.reader.read(1 << 20):
                received += piece
        assert answer.headers["Content-Length"] == str(2 * half)
        assert client.reader.at_eof() or client.reader.exception()
        assert len(received) <= half
        assert body.startswith(received)
        await pumped()


@relaying
async def test_a_log_that_breaks_off_never_looks_whole():
    """It has no length: its end is a chunk of its own, which the client does not get."""

    async def script(sender: Sender) -> None:
        sender.writer.write(b"5\r\nbegun\r\n")
        sender.writer.close()

    head = "Transfer-Encoding: chunked\r\nLog-Attempt: 1\r\nLog-Offset: 0"
    async with relay_of(script, 0, LOG, head) as url, browser(url) as client:
        answer = await client.ask(LOG)
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert await client.reader.read() == b"5\r\nbegun\r\n"


@relaying
async def test_a_file_that_was_cut_short_cuts_the_client_off(tmp_path):
    """On the node itself."""
    async with a_node(tmp_path) as node, browser(node.url) as client:
        wanted = request(f"artifact {SIZE}", output=IsoOutput())
        build = await ended(node.service, (await node.service.submit(LOCAL, wanted)).id)
        (file,) = tmp_path.rglob("image.iso")
        os.truncate(file, SIZE // 2)
        answer = await client.get(f"/api/v1/builds/{build.id}/artifacts/image.iso")
        assert len(answer.body) == SIZE // 2
        assert client.reader.at_eof()


async def pumped() -> None:
    """Return when the pump has nothing to do any more."""
    await eventually(lambda: all(thread.name != "pump" for thread in threading.enumerate()))


async def eventually(sight: Callable[[], bool]) -> None:
    """Return when it is so; fail where that takes more than five seconds."""
    for _ in range(250):
        if sight():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it never came to that")

"""Logs on the wire: large parts that the system moves stand between pieces that are written, in
any framing, and the connection serves the next request.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from msgspec import Struct

from protocol.model.build import Build
from protocol.ports.service import LOCAL
from protocol.transfer.splice import SMALLEST
from tests.programs import a_node, a_scheduler, ended, log_of, ready, request, until

pytestmark = pytest.mark.gen_test(timeout=60)

SIZE = 16 * SMALLEST
PROGRAMS = ("node", "scheduler")


class Served(Struct):
    """A log, and where both programs serve it."""

    build: Build
    urls: dict[str, str]
    cancel: Callable[[], Awaitable[object]]


@asynccontextmanager
async def a_log(folder, *texts: str) -> AsyncIterator[Served]:
    """The log of a build that has written what it writes."""
    async with a_node(folder) as node, a_scheduler(folder, node.url) as scheduler:
        await ready(scheduler)
        service = scheduler.service
        build = await service.submit(LOCAL, request(f"bytes {SIZE}", *texts))
        if texts:
            await until(service, build.id, lambda build: build.log_size >= SIZE)
        else:
            await ended(service, build.id)
        path = f"/api/v1/builds/{build.id}/log?position=1:0"
        urls = {"node": node.url + path, "scheduler": scheduler.url + path}
        yield Served(build, urls, lambda: service.cancel(LOCAL, build.id))
        whole = await log_of(service, build.id)
        assert len(whole) >= SIZE


class Connection:
    """One connection of a client that speaks HTTP by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, url: str, version: str = "1.1") -> dict[str, str]:
        """The head of the answer to a GET."""
        parts = urlsplit(url)
        self.writer.write(
            f"GET {parts.path}?{parts.query} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert head[0].split()[1] == "200"
        return dict(line.split(": ", 1) for line in head[1:] if line)

    async def chunk(self) -> bytes:
        """One chunk; empty: the last."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection to the program."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


async def eventually(sight: Callable[[], bool]) -> None:
    """Return when it is so; fail where that takes more than five seconds."""
    for _ in range(500):
        if sight():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came to that")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_kept_log_has_a_length(tmp_path, program) -> None:
    """Whole, a large part and a small one, one after another by the same connection."""
    async with a_log(tmp_path) as log, connected(log.urls[program]) as connection:
        headers = await connection.ask(log.urls[program])
        whole = await connection.reader.readexactly(int(headers["Content-Length"]))
        assert len(whole) >= SIZE
        for limit in (SIZE - 1, 10, 0):
            headers = await connection.ask(f"{log.urls[program]}&limit={limit}")
            assert headers["Content-Length"] == str(limit)
            assert await connection.reader.readexactly(limit) == whole[:limit]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_followed_log_comes_in_chunks(tmp_path, program) -> None:
    """What is there comes as one chunk, or few; what is written later as others; then the end, and
    the connection serves the next request.
    """
    async with a_log(tmp_path, "hang") as log, connected(log.urls[program]) as connection:
        url = log.urls[program]
        headers = await connection.ask(f"{url}&follow=1")
        assert headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in headers
        copy = b""
        while len(copy) < SIZE:
            copy += await connection.chunk()
        await log.cancel()
        while piece := await connection.chunk():
            copy += piece
        assert copy.endswith(b"cancelled]\n")
        headers = await connection.ask(url)
        assert copy == await connection.reader.readexactly(int(headers["Content-Length"]))


@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_old_client_gets_the_bytes_alone(tmp_path, program) -> None:
    """HTTP/1.0 knows no chunks: the end of the log is the end of the connection."""
    async with a_log(tmp_path, "hang") as log, connected(log.urls[program]) as connection:
        url = log.urls[program]
        headers = await connection.ask(f"{url}&follow=1", "1.0")
        assert "Transfer-Encoding" not in headers
        copy = await connection.reader.readexactly(SIZE)
        await log.cancel()
        copy += await connection.reader.read()
        assert copy.endswith(b"cancelled]\n")
        async with connected(url) as other:
            headers = await other.ask(url)
            assert copy == await other.reader.readexactly(int(headers["Content-Length"]))


async def test_a_viewer_who_hangs_up_leaves_nothing_behind(tmp_path) -> None:
    """In the middle of a large part, or at the end of the log: no descriptor, no thread."""
    async with a_log(tmp_path, "hang") as log:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            for program in PROGRAMS:
                async with connected(log.urls[program]) as connection:
                    await connection.ask(f"{log.urls[program]}&follow=1")
                    await connection.reader.readexactly(1000)
                    connection.writer.transport.abort()
                async with connected(log.urls[program]) as connection:
                    await connection.ask(f"{log.urls[program]}&follow=1")
                    await connection.reader.readexactly(SIZE)
                    connection.writer.transport.abort()
        await eventually(lambda: all(t.name != "pump" for t in threading.enumerate()))
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)
        await log.cancel()

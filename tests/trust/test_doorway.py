"""The doorway of a listener: how many may be connected, how long a header and a body may take, and
what is refused by its header alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct
from tornado import netutil, web

from protocol.api.route import ApiSettings
from protocol.program.doorway import Doorway

pytestmark = pytest.mark.gen_test


class Hall(Struct):
    """A doorway that serves, and its clock."""

    door: Doorway
    port: int
    now: float = 0.0
    visitors: list["Visitor"] = []

    async def until(self, sight: Callable[[list[Any]], bool]) -> None:
        """Wait until the connections look like that to the doorway."""
        async with asyncio.timeout(5):
            while not sight(list(self.door.visits.values())):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def visitor(self, *said: bytes, seen: bool = True) -> "Visitor":
        """A new connection that says this, and that the doorway has let in."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        visitor = Visitor(reader, writer)
        self.visitors.append(visitor)
        await visitor.say(*said)
        port = writer.get_extra_info("sockname")[1]
        if seen:
            await self.until(lambda visits: any(_port(visit.stream) == port for visit in visits))
        return visitor

    def later(self, seconds: float) -> None:
        """Time passes, and the doorway looks."""
        self.now += seconds
        self.door.look()


class Visitor(Struct):
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *pieces: bytes) -> None:
        """Send these."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def hears(self) -> bytes:
        """The next answer; empty where the connection is closed."""
        async with asyncio.timeout(5):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            return head + await self.reader.readexactly(length)

    async def asks(self) -> bytes:
        """The answer to a plain request."""
        with contextlib.suppress(ConnectionError):
            await self.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return await self.hears()


def _port(stream: Any) -> int:
    """That the other end has."""
    return 0 if stream.closed() else stream.socket.getpeername()[1]


class Echo(web.RequestHandler):
    """Answers how long the body was."""

    def get(self) -> None:
        """See the class."""
        self.finish(f"{len(self.request.body)}")

    post = get


@asynccontextmanager
async def a_hall(**limits) -> AsyncIterator[Hall]:
    """A doorway with these limits."""
    door = Doorway(
        web.Application([("/.*", Echo)]), limits=ApiSettings(**limits), now=lambda: hall.now
    )
    sockets = netutil.bind_sockets(0, "127.0.0.1")
    hall = Hall(door, sockets[0].getsockname()[1])
    door.add_sockets(sockets)
    try:
        yield hall
    finally:
        for visitor in hall.visitors:
            visitor.writer.close()
            with contextlib.suppress(ConnectionError):
                await visitor.writer.wait_closed()
        door.stop()
        await door.close_all_connections()


async def test_a_header_that_does_not_end_is_given_up() -> None:
    """`header_time` after the connection, however its bytes trickle; one that is whole is
    answered.
    """
    async with a_hall(header_time=10) as hall:
        slow = await hall.visitor(b"GET / HTTP/1.1\r\n", b"X")
        quick = await hall.visitor()
        assert (await quick.asks()).endswith(b"0")
        hall.later(9)
        await slow.say(b": y\r\n")
        assert len(hall.door.visits) == 2
        hall.later(2)
        assert await slow.hears() == b""
        assert (await quick.asks()).endswith(b"0")


async def test_a_later_header_has_its_time_too() -> None:
    """From its first byte; before it, a connection may be idle for longer."""
    async with a_hall(header_time=10) as hall:
        visitor = await hall.visitor()
        await visitor.asks()
        hall.later(60)
        assert (await visitor.asks()).endswith(b"0")
        await visitor.say(b"G")
        await hall.until(lambda visits: visits[0].heard() > visits[0].received)
        hall.later(50)
        hall.later(9)
        assert len(hall.door.visits) == 1
        hall.later(2)
        assert await visitor.hears() == b""


async def test_a_body_that_stands_still_is_given_up() -> None:
    """`body_pause` after its last piece; one that moves is waited for."""
    async with a_hall(body_pause=10) as hall:
        visitor = await hall.visitor(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        for letter in (b"a", b"b"):
            await hall.until(lambda visits: visits[0].body == hall.now)
            hall.later(9)
            await visitor.say(letter)
        await hall.until(lambda visits: visits[0].body == hall.now)
        hall.later(11)
        assert await visitor.hears() == b""


async def test_idle_connections_make_room() -> None:
    """Where an address has all that it may, the one that waits longest goes, and each newcomer is
    answered.
    """
    async with a_hall(connections_per_address=3) as hall:
        first, second = await hall.visitor(), await hall.visitor()
        third = await hall.visitor()
        await first.asks()  # now the second has waited longest
        fourth = await hall.visitor()
        assert (await fourth.asks()).endswith(b"0")
        assert await second.hears() == b""
        for visitor in (first, third, fourth):
            assert (await visitor.asks()).endswith(b"0")
        assert len(hall.door.visits) == 3


async def test_who_is_answered_is_not_sent_away() -> None:
    """Where nobody waits, it is the newcomer that is."""
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    async with a_hall(connections_per_address=2) as hall:
        busy = [await hall.visitor(post), await hall.visitor(post)]
        await hall.until(lambda visits: sum(visit.body is not None for visit in visits) == 2)
        assert await (await hall.visitor(seen=False)).asks() == b""
        for visitor in busy:
            await visitor.say(b"x")
            assert (await visitor.hears()).endswith(b"1")
        assert (await (await hall.visitor()).asks()).endswith(b"0")


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "words"),
    [
        (b"GET /" + b"x" * 300 + b" HTTP/1.1", [], b"414", b"at most 256 bytes"),
        (b"GET / HTTP/1.1", [b"X-%d: y" % i for i in range(20)], b"431", b"at most 10 headers"),
        (b"GET / HTTP/1.1", [b"Cookie: a=b"] * 20, b"431", b"at most 10 headers"),
    ],
)
async def test_a_header_that_says_too_much_is_refused(request_line, headers, status, words) -> None:
    """With the reason; the connection ends, and the next one is served."""
    async with a_hall(url_limit=256, header_count=10) as hall:
        visitor = await hall.visitor()
        await visitor.say(b"\r\n".join([request_line, b"Host: x", *headers, b"", b""]))
        answer = await visitor.hears()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"application/problem+json" in answer
        assert words in answer
        assert await visitor.asks() == b""
        assert (await (await hall.visitor()).asks()).endswith(b"0")


async def test_a_header_that_is_too_long_ends_the_connection() -> None:
    """Whatever it would have been."""
    async with a_hall(header_limit=1024) as hall:
        visitor = await hall.visitor(b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 300)
        assert await visitor.hears() == b""

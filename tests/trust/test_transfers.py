"""Artifacts between scheduler and node without TLS: who gets them, by what, and what is noticed."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct

from protocol.api import transfers
from protocol.errors import Conflict, Denied, NotFound
from protocol.model.build import Build
from protocol.model.recipe import IsoOutput
from protocol.model.transfers import Ticket, TicketRequest
from protocol.ports.service import LOCAL
from protocol.remote.connecting import Secured
from protocol.remote.exchange import Exchange
from protocol.transfer import splice
from protocol.transfer.check import BLOCK
from protocol.trust.certificates import server_name
from tests import leaks
from tests.programs import Program, ended, request
from tests.trust.test_pool import HERE, a_member, a_pool, in_state

pytestmark = pytest.mark.gen_test(timeout=60)

LARGE, SMALL = 9_000_001, 1000
"""Bytes of an artifact that the system moves, and of one that is copied."""
PLAIN = {"transfers": "plain"}
OPENLY = {**PLAIN, "transfer_listen": HERE}


class Made(Struct):
    """A pool that has made something."""

    scheduler: Program
    node: Program
    build: Build

    @property
    def path(self) -> str:
        """Of the artifact."""
        return f"/api/v1/builds/{self.build.id}/artifacts/image.iso"

    @property
    def plain_url(self) -> str:
        """Of the node's listener without TLS."""
        return f"http://127.0.0.1:{self.node.parts._transfers.port}"

    @property
    def is_right(self) -> Callable[[bytes], bool]:
        """Whether that is the artifact."""
        return lambda body: hashlib.sha256(body).hexdigest() == self.build.artifacts[0].sha256


@asynccontextmanager
async def made(
    folder: Path, size: int = LARGE, ours: Any = PLAIN, theirs: Any = OPENLY
) -> AsyncIterator[Made]:
    """The pool; settings of scheduler and node."""
    async with a_pool(folder, **ours) as scheduler, a_member(folder, scheduler, **theirs) as node:
        await in_state(scheduler, node, "ready")
        wanted = request(f"artifact {size}", output=IsoOutput())
        accepted = await scheduler.service.submit(LOCAL, wanted)
        yield Made(scheduler, node, await ended(scheduler.service, accepted.id))


@asynccontextmanager
async def asking(made: Made, *, by: Program | None = None) -> AsyncIterator[Exchange]:
    """The node by TLS, called by the scheduler or by another member."""
    parts = (by or made.scheduler).parts
    pools = parts.belonging.memberships if by else parts.membered.memberships
    (pool,) = pools.all()
    secured = Secured(lambda: pools.client(pool), server_name(made.node.id, pool))
    exchange = Exchange(made.node.members_url, {}, 5.0, secured)
    try:
        yield exchange
    finally:
        await exchange.close()


async def ticket_for(made: Made, name: str = "image.iso", *, by: Program | None = None) -> Ticket:
    """As a scheduler asks for it."""
    async with asking(made, by=by) as exchange:
        asked = TicketRequest(made.build.id, name)
        ticket: Ticket = await exchange.post(transfers.TICKET_PATH, asked, Ticket)
    leaks.used(ticket.text, "ticket")
    return ticket


async def fetched(
    url: str, ticket: str = "", source: str = "", part: str = ""
) -> tuple[int, bytes]:
    """Status and body of what is shown a ticket; `source`: the address to ask from."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0) if source else None)
    headers = {transfers.TICKET_HEADER: ticket} if ticket else {}
    headers |= {"Range": part} if part else {}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers) as answer,
    ):
        return answer.status, await answer.read()


async def downloaded(made: Made, part: str = "", *, again: bool = True) -> tuple[int, bytes]:
    """Status and what came of the artifact to a client of the scheduler, by a connection that may
    break off; `again`: he asks once more where there was not even a status.
    """
    got = bytearray()
    headers = {"Range": part} if part else {}
    url = made.scheduler.url + made.path
    async with aiohttp.ClientSession() as session:
        session._retry_connection = again
        async with session.get(url, headers=headers) as answer:
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async for piece in answer.content.iter_any():
                    got += piece
            return answer.status, bytes(got)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of artifacts that were given for a ticket."""
    names: list[str] = []
    take = transfers.Tickets.take

    def taken(self: Any, text: str, address: str) -> Any:
        leaks.used(text, "ticket")
        grant = take(self, text, address)
        names.append(grant.name)
        return grant

    monkeypatch.setattr(transfers.Tickets, "take", taken)
    return names


class TestThePlainWay:
    """What goes by it, and what does not."""

    @pytest.mark.parametrize("size", [LARGE, SMALL])
    async def test_a_whole_artifact(self, tmp_path: Path, given: list[str], size: int) -> None:
        """Each time by a ticket of its own; the connection serves the next request."""
        async with made(tmp_path, size) as pool, aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.get(pool.scheduler.url + pool.path) as answer:
                    assert pool.is_right(await answer.read())
        assert given == ["image.iso"] * 3

    async def test_it_is_copied_where_it_cannot_be_moved(
        self, tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As to a client by TLS, and on other systems."""
        monkeypatch.setattr(splice, "AVAILABLE", False)
        async with made(tmp_path) as pool:
            _, body = await downloaded(pool)
            assert pool.is_right(body)
        assert given == ["image.iso"]

    async def test_a_part_comes_by_tls(self, tmp_path: Path, given: list[str]) -> None:
        """Its digest is not known; a download that was cut goes on all the same."""
        async with made(tmp_path) as pool:
            _, whole = await downloaded(pool)
            assert given == ["image.iso"]
            assert await downloaded(pool, "bytes=1000000-") == (206, whole[1_000_000:])
        assert given == ["image.iso"]

    @pytest.mark.parametrize(
        ("ours", "theirs"), [({}, OPENLY), (PLAIN, {}), ({}, {})], ids=["node", "scheduler", "none"]
    )
    async def test_both_have_to_be_set_to_it(
        self, tmp_path: Path, given: list[str], ours: Any, theirs: Any
    ) -> None:
        """By default neither is; where one is, artifacts come by TLS."""
        async with made(tmp_path, ours=ours, theirs=theirs) as pool:
            assert pool.is_right((await downloaded(pool))[1])
            if not theirs:
                assert pool.node.parts._transfers is None
                with pytest.raises(Conflict, match="go by TLS here"):
                    await ticket_for(pool)
        assert not given

    async def test_where_it_is_blocked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """By a firewall, or by somebody: they come by TLS, and it is not tried for a while."""
        async with made(tmp_path) as pool, a_changer(pool, b"", b"") as changer:
            changer.point_to(monkeypatch)
            changer.server.close()
            for _ in range(2):
                assert pool.is_right((await downloaded(pool))[1])
        assert caplog.text.count("artifacts come by TLS for a while") == 1
        caplog.clear()


class TestTickets:
    """What is refused: with a 4xx, and no byte of the artifact."""

    async def test_a_ticket_is_good_once(self, tmp_path: Path) -> None:
        """For the whole artifact, whatever part is asked for."""
        async with made(tmp_path, SMALL) as pool:
            url = pool.plain_url + transfers.TRANSFER_PATH
            text = (await ticket_for(pool)).text
            status, body = await fetched(url, text, part="bytes=0-9")
            assert status == 200
            assert pool.is_right(body)
            await refused(url, text)

    async def test_a_ticket_that_is_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After `ticket_life` seconds."""
        async with made(tmp_path, theirs={**OPENLY, "ticket_life": 30.0}) as pool:
            text = (await ticket_for(pool)).text
            store = pool.node.parts._transfers.tickets
            now = store._clock()
            monkeypatch.setattr(store, "_clock", lambda: now + 30.0)
            await refused(pool.plain_url + transfers.TRANSFER_PATH, text)

    async def test_a_ticket_from_elsewhere(self, tmp_path: Path) -> None:
        """Who listened and shows it from another address gets nothing, nor does anybody after; an
        admin finds him in the node's audit log.
        """
        async with made(tmp_path) as pool:
            url = pool.plain_url + transfers.TRANSFER_PATH
            text = (await ticket_for(pool)).text
            await refused(url, text, source="127.0.0.2")
            await refused(url, text)
            audit = pool.node.parts.people.audit
            await audit.written()
            deeds = [deed for _, deed in await audit.deeds(1 << 62, 10)]
            assert [(deed.address, deed.status) for deed in deeds if "transfer" in deed.what] == [
                ("127.0.0.1", 403),
                ("127.0.0.2", 403),
            ]

    async def test_one_that_was_never_given(self, tmp_path: Path) -> None:
        """Guessed, or nothing at all."""
        async with made(tmp_path) as pool:
            for text in ("0" * 64, "x", ""):
                await refused(pool.plain_url + transfers.TRANSFER_PATH, text)

    async def test_a_ticket_for_another_build(self, tmp_path: Path) -> None:
        """It cannot be asked for: what a ticket is for is not in the request."""
        async with made(tmp_path, SMALL) as pool:
            other = request("artifact 2000", output=IsoOutput())
            accepted = await pool.scheduler.service.submit(LOCAL, other)
            build = await ended(pool.scheduler.service, accepted.id)
            text = (await ticket_for(pool)).text
            for path in (
                f"{transfers.TRANSFER_PATH}/{build.id}",
                f"{transfers.TRANSFER_PATH}/{build.id}/image.iso",
                f"/api/v1/builds/{build.id}/artifacts/image.iso",
                f"/download/{build.id}/image.iso",
            ):
                await refused(pool.plain_url + path, text, statuses=(404,))
            query = f"{transfers.TRANSFER_PATH}?build={build.id}&name=image.iso"
            status, body = await fetched(pool.plain_url + query, text)
            assert status == 200
            assert pool.is_right(body)

    async def test_what_is_gone_meanwhile(self, tmp_path: Path) -> None:
        """The build was deleted after the ticket was given."""
        async with made(tmp_path) as pool:
            text = (await ticket_for(pool)).text
            await pool.node.service.delete(LOCAL, pool.build.id)
            await refused(pool.plain_url + transfers.TRANSFER_PATH, text, statuses=(404,))

    async def test_who_gets_tickets(self, tmp_path: Path) -> None:
        """Schedulers of the pool, by their certificate, for what there is."""
        async with made(tmp_path) as pool, a_member(tmp_path, pool.scheduler) as other:
            await in_state(pool.scheduler, other, "ready")
            with pytest.raises(Denied):
                await ticket_for(pool, by=other)
            with pytest.raises(NotFound):
                await ticket_for(pool, "another.iso")
            for url in (pool.node.url, pool.plain_url):  # listeners without TLS
                exchange = Exchange(url, {"Imagepool-Program": "a" * 40}, 5.0)
                asked = TicketRequest(pool.build.id, "image.iso")
                with pytest.raises(NotFound):
                    await exchange.post(transfers.TICKET_PATH, asked, Ticket)
                await exchange.close()

    async def test_nothing_else_is_served_without_tls(self, tmp_path: Path) -> None:
        """Not even whether the node is ready."""
        async with made(tmp_path) as pool:
            for path in ("/", "/status", "/healthz", "/api/v1/builds", transfers.TICKET_PATH):
                await refused(pool.plain_url + path, statuses=(404,))


async def refused(
    url: str, ticket: str = "", *, source: str = "", statuses: tuple[int, ...] = (403,)
) -> None:
    """It is, in a few words."""
    status, body = await fetched(url, ticket, source)
    assert status in statuses
    assert len(body) < 300
    assert ticket not in body.decode() or not ticket


class Changer:
    """Somebody between scheduler and node, where there is no TLS."""

    def __init__(self, server: asyncio.Server) -> None:
        self.server = server
        self.port: int = server.sockets[0].getsockname()[1]
        self.heard = b""  # what the scheduler said

    def point_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let it be where the scheduler goes."""

        def ticket(text: str, port: int, *more: Any) -> Ticket:
            return Ticket(text, self.port, *more)

        monkeypatch.setattr(transfers, "Ticket", ticket)


SAID = b'{"type":"urn:x:Denied","title":"","status":403,"detail":"no\\n%s"}' % (b"x" * 9000)
FORGED = (
    b"HTTP/1.1 403 No\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s"
    % (len(SAID), SAID)
)
"""An error as programs of ours tell it, with more than one line."""


@asynccontextmanager
async def a_changer(pool: Made, old: bytes, new: bytes) -> AsyncIterator[Changer]:
    """Passes on what the node says, with these bytes in place of those where they first occur."""

    answering = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            changer.heard += (said := await reader.readuntil(b"\r\n\r\n"))
            writer.write((await whole_answer(pool, said)).replace(old, new, 1))
            await writer.drain()
        await left(writer)

    changer = Changer(await asyncio.start_server(answer, "127.0.0.1", 0))
    try:
        yield changer
    finally:
        changer.server.close()
        if answering:
            await asyncio.wait(answering)


async def whole_answer(pool: Made, said: bytes) -> bytes:
    """What the node answers to that, where there is no TLS."""
    port = pool.node.parts._transfers.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    try:
        return await reader.read()
    finally:
        await left(writer)


async def left(writer: asyncio.StreamWriter) -> None:
    """A connection that is closed when this returns."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def the_artifact(pool: Made) -> bytes:
    """By the node itself."""
    opened = await pool.node.service.open_artifact(LOCAL, pool.build.id, "image.iso")
    body = b"".join([piece async for piece in opened.stream])
    await opened.stream.close()
    return body


class TestSomebodyInBetween:
    """Who can change what goes by without TLS."""

    @pytest.mark.parametrize("way", ["moved", "copied"])
    @pytest.mark.parametrize("where", ["first", "middle", "last"])
    async def test_a_changed_byte_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, way: str, where: str
    ) -> None:
        """The client gets what comes before that block, and is cut off; the log says so, and from
        then on artifacts come by TLS: so he can go on where he was, and has what the node made.
        """
        monkeypatch.setattr(splice, "AVAILABLE", way == "moved")
        async with made(tmp_path) as pool:
            whole = await the_artifact(pool)
            at = {"first": 0, "middle": LARGE // 2, "last": LARGE - 16}[where]
            old = whole[at : at + 16]
            new = old[:-1] + bytes([old[-1] ^ 1])
            async with a_changer(pool, old, new) as changer:
                changer.point_to(monkeypatch)
                body = b""
                with contextlib.suppress(aiohttp.ServerDisconnectedError):
                    _, body = await downloaded(pool, again=False)
                assert "an artifact was changed on its way" in caplog.text
                assert len(body) <= at // BLOCK * BLOCK
                assert body or where != "last"
                status, rest = await downloaded(pool, f"bytes={len(body)}-")
                assert status == 206
                assert body + rest == whole
                assert pool.is_right((await downloaded(pool))[1])
                assert changer.heard.count(b"GET ") == 1
        caplog.clear()

    async def test_a_changed_small_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """It comes in one piece: nothing of it is passed on, so that a client that asks again has
        it by TLS.
        """
        async with made(tmp_path, SMALL) as pool:
            old = await the_artifact(pool)
            async with a_changer(pool, old, bytes(SMALL)) as changer:
                changer.point_to(monkeypatch)
                assert pool.is_right((await downloaded(pool))[1])
                assert changer.heard.count(b"GET ") == 1
        assert "an artifact was changed on its way" in caplog.text
        caplog.clear()

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"200 OK", b"206 Partial Content"),
            (b"200 OK", b"302 Found\r\nLocation: http://127.0.0.1:9/"),
            (b"200 OK", b"500 Internal Server Error"),
            (b"Content-Length: 9000001", b"Content-Length: 9000000"),
            (b"Content-Length: 9000001", b"Transfer-Encoding: chunked"),
            (b"HTTP/1.1", b"SSH-2.0"),
            (b"", FORGED),
        ],
        ids=["part", "elsewhere", "error", "shorter", "chunked", "no HTTP", "forged error"],
    )
    async def test_another_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, old: bytes, new: bytes
    ) -> None:
        """Is not believed: the artifact comes by TLS, whole and right."""
        async with made(tmp_path) as pool, a_changer(pool, old, new) as changer:
            changer.point_to(monkeypatch)
            status, body = await downloaded(pool)
            assert status == 200
            assert pool.is_right(body)
            assert changer.heard
        (said,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert "artifacts come by TLS for a while" in said
        assert len(said) < 300
        assert said.isprintable()
        caplog.clear()

    async def test_what_somebody_hears(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A ticket that has been used, in a header; not who the scheduler is, nor which build."""
        async with made(tmp_path) as pool, a_changer(pool, b"", b"") as changer:
            changer.point_to(monkeypatch)
            assert pool.is_right((await downloaded(pool))[1])
            line, *heads = changer.heard.decode().split("\r\n")
            assert line == f"GET {transfers.TRANSFER_PATH} HTTP/1.1"
            (text,) = [
                head.split(": ")[1] for head in heads if head.startswith(transfers.TICKET_HEADER)
            ]
            assert pool.build.id not in changer.heard.decode()
            assert pool.scheduler.id not in changer.heard.decode()
            await refused(pool.plain_url + transfers.TRANSFER_PATH, text)

"""The body of an answer that breaks off: said in words that do not take HTTP to be known."""

import asyncio
from typing import Any

import aiohttp
import pytest

from protocol.errors import Unavailable, Unreachable
from protocol.ports.service import LOCAL, ByteStream
from protocol.remote.client import HttpService

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "said",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        HEAD + b"Content-Length: 9\r\n\r\nhello",
    ],
    ids=["growing", "whole"],
)
async def test_a_body_that_breaks_off(said: bytes) -> None:
    """What came is given, and then it is said that there was more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        service = HttpService(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        opened = await service.open_artifact(LOCAL, "ab", "x")
        got = bytearray()
        with pytest.raises(Unavailable) as broken:
            await _read(opened.stream, got)
        await opened.stream.close()
        await service.close()
    assert (got, broken.value.detail) == (b"hello", "the source broke off before its end")


@pytest.mark.gen_test
async def test_connections_that_are_closed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a node is found elsewhere, between the head of its answer and the body."""
    request = aiohttp.ClientSession.request

    async def ended(session: aiohttp.ClientSession, *arguments: Any, **options: Any) -> Any:
        response = await request(session, *arguments, **options)
        await session.close()
        return response

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 9\r\n\r\n")
        await reader.read()
        writer.close()

    monkeypatch.setattr(aiohttp.ClientSession, "request", ended)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable):
            await HttpService(url).status(LOCAL)
        service = HttpService(url)
        opened = await service.open_artifact(LOCAL, "ab", "x")
        with pytest.raises(Unavailable):
            await _read(opened.stream, bytearray())
        await opened.stream.close()
        with pytest.raises(Unreachable):
            await service.status(LOCAL)


async def _read(stream: ByteStream, got: bytearray) -> None:
    async for piece in stream:
        got += piece

"""What is no pool's URL is said to be none at once: nobody waits for a pool that is not there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from imagepool import AsyncClient, Client
from imagepool.client import Invalid, Unavailable
from tests.cli.shell import imagepool

AT_ONCE = 5.0
"""Seconds; a pool that does not answer is waited for 30."""


@asynccontextmanager
async def answering(said: bytes) -> AsyncIterator[str]:
    """The URL of a server that says this to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost", "ftp://x", "http://", "http://a b"])
def test_what_is_no_url_is_refused_when_the_client_is_made(url: str, monkeypatch) -> None:
    """Given, or in the variable; of both clients."""
    for kind in (Client, AsyncClient):
        with pytest.raises(Invalid) as refused:
            kind(url)
        assert (refused.value.field, repr(url) in refused.value.detail) == ("url", True)
    monkeypatch.setenv("IMAGEPOOL_URL", url)
    with pytest.raises(Invalid) as refused:
        Client()
    assert refused.value.field == "IMAGEPOOL_URL"


PAGE = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>Hi</p>"


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (PAGE % b"404 Not Found", "answered 404, and not as a program of ours: '<p>Hi</p>'"),
        (PAGE % b"200 OK", "an answer makes no sense"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP"),
    ],
    ids=["404", "page", "ssh"],
)
async def test_another_server_is_not_waited_for(said: bytes, words: str) -> None:
    """It will not become a pool."""
    async with answering(said) as url, AsyncClient(url) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=words):
            await client.status()
        assert time.monotonic() - began < AT_ONCE


@pytest.mark.gen_test(timeout=60)
async def test_the_command_line_says_so() -> None:
    """Exit code 2 for what is no URL, 3 where no pool is."""
    wrong = await imagepool("ls", "--url", "127.0.0.1:8080")
    assert (wrong.code, wrong.err) == (
        2,
        "Error: url is '127.0.0.1:8080' (expected: an http or https URL, without user, spaces and"
        " control characters)\n",
    )
    async with answering(PAGE % b"404 Not Found") as url:
        foreign = await imagepool("ls", url=url)
    assert (foreign.code, "not as a program of ours" in foreign.err) == (3, True)

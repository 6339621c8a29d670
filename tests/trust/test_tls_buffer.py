"""One buffer for what all TLS connections receive."""

import asyncio
import ssl
import time
from asyncio.sslproto import SSLProtocol
from pathlib import Path

import pytest

from protocol.program import identity
from protocol.program.identity import KEY
from protocol.remote import tls_buffer
from protocol.trust.certificates import SCHEDULER, server_name
from protocol.trust.membership import Memberships
from scheduler.config import SchedulerSettings
from scheduler.pool.door import Membered

_SENT = bytes(range(256)) * 40_000  # many records, and more than is received at a time
_MOST = 64 << 10  # bytes that a connection may keep for itself


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a scheduler; afterwards asyncio is as it was."""
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)
    monkeypatch.setattr(SSLProtocol, "get_buffer", SSLProtocol.get_buffer)
    assert tls_buffer.share()
    assert tls_buffer.share()  # once more does no harm


@pytest.fixture
def memberships(tmp_path: Path) -> Memberships:
    """Of a scheduler in its own pool."""
    identity.load(tmp_path)
    Membered(tmp_path, SchedulerSettings(), time.time)
    return Memberships(tmp_path, tmp_path / KEY)


@pytest.mark.gen_test
async def test_what_is_sent_arrives(memberships: Memberships) -> None:
    """On several connections at the same time, each its own, and none keeps a large buffer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        writer.write(first + _SENT)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=memberships.server())
    port = server.sockets[0].getsockname()[1]
    (pool,) = memberships.all()
    context, name = memberships.client(pool), server_name(SCHEDULER, pool)

    async def call(number: int) -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name
        )
        writer.write(bytes([number]))
        received = await reader.read()
        assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
        kept = writer.transport._ssl_protocol._ssl_buffer  # type: ignore[attr-defined]
        assert len(kept) <= _MOST
        writer.close()
        return received

    async with server:
        assert await asyncio.gather(*map(call, range(5))) == [bytes([n]) + _SENT for n in range(5)]
        server.close()


def test_another_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that keeps what it received elsewhere is left as it is."""

    def get_buffer(self: SSLProtocol, n: int) -> memoryview:
        return memoryview(bytearray(n))

    monkeypatch.setattr(SSLProtocol, "get_buffer", get_buffer)
    assert not tls_buffer.share()
    assert SSLProtocol.get_buffer is get_buffer

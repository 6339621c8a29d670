"""A program that passes on what it is sent, both ways, and keeps a copy: what somebody on the LAN
can do who lets others believe that a node is at their address.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PIECE = 1 << 16


class Wire:
    """Made by `a_wire`, or opened and closed by hand."""

    def __init__(self, host: str, port: int, there: str, there_port: int) -> None:
        """Listens at `host`, any port where it is 0, and connects `there`."""
        self.host = host
        self.port = port
        self.seen = bytearray()
        self.used = asyncio.Event()  # something came back from there
        self._there = (there, there_port)
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._connected, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Hang up on everybody."""
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(*self._there)
            back = asyncio.create_task(self._pass(far_reader, writer, self.used))
            try:
                await self._pass(reader, far_writer)
            finally:
                back.cancel()
                with suppress(OSError, asyncio.CancelledError):
                    await back
                far_writer.close()
                writer.close()
        self._passing.discard(task)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seen: asyncio.Event | None = None,
    ) -> None:
        while piece := await reader.read(_PIECE):
            self.seen += piece
            if seen is not None:
                seen.set()
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def a_wire(host: str, there: str, there_port: int) -> AsyncIterator[Wire]:
    """One that listens at any port of `host`."""
    wire = Wire(host, 0, there, there_port)
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()

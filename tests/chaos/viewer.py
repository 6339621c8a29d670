"""A client that follows a log and does not give up: cut off, or hanging up by itself, it goes on at
the byte where it was.
"""

import asyncio
import hashlib
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from protocol.errors import PoolError
from protocol.model.build import Position
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService

_AGAIN = 0.05  # seconds between tries


class Viewer:
    """One viewer's copy of a log, digested as it comes."""

    def __init__(self, client: HttpService, build_id: str, cuts: Iterable[int] = ()) -> None:
        """`cuts`: offsets, rising, at which it hangs up."""
        self._client = client
        self._build = build_id
        self._cuts = list(cuts)
        self.position = Position(1, 0)
        self.digest = hashlib.sha256()
        self.last = b""  # the end of what came
        self.broken = 0  # times that it was cut off
        self.refused = 0  # times that nobody could answer
        self.attempts: list[int] = []  # as it was told, each once

    async def watch(self) -> "Viewer":
        """Return when it was told that the log has ended."""
        while True:
            try:
                opened = await self._client.open_log(LOCAL, self._build, self.position, follow=True)
            except PoolError:
                self.refused += 1
                await asyncio.sleep(_AGAIN)
                continue
            if opened.attempt not in self.attempts:
                self.attempts.append(opened.attempt)
            assert (opened.attempt, opened.start) == (self.position.attempt, self.position.offset)
            try:
                if await self._read(opened.stream):
                    return self
            except PoolError:
                self.broken += 1
            finally:
                await opened.stream.close()

    async def _read(self, stream: object) -> bool:
        """Whether it came to the log's end, and not to the next cut."""
        async for piece in stream:  # type: ignore[attr-defined]
            at = self.position.offset
            if self._cuts and at + len(piece) >= self._cuts[0]:
                self._take(piece[: self._cuts.pop(0) - at])
                return False
            self._take(piece)
        return True

    def _take(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.last = (self.last + piece)[-200:]
        self.position = Position(1, self.position.offset + len(piece))


class Stalled:
    """A viewer that asks, and then reads nothing until it is told to."""

    def __init__(self, url: str, build_id: str) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname or "", place.port or 0))
        path = f"/api/v1/builds/{build_id}/log?position=1:0&follow=1"
        self._socket.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())

    def read(self) -> bytes:
        """All of it, once it does read. Blocks."""
        self._socket.settimeout(60)
        with self._socket, self._socket.makefile("rb") as file:
            while file.readline().strip():
                pass
            return file.read()

"""What chaos tests look at and interfere with beyond `tests/system/lan.py` and `pool.py`: engines'
journals, downloads by a client nobody here wrote, a wire that breaks off in the middle of one.

Times of schedulers are scaled down here, once for all of these tests.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Mapping

from msgspec import Struct

from node.engines.dummy import JOURNAL
from protocol.model.build import Build, Stage, State
from protocol.model.messages import Roster
from tests.system.lan import Host
from tests.system.pool import Program, Scheduler, Sight, state_of

SCALED: dict[str, float] = {
    "hold": 0.5,
    "patience": 1.0,
    "retry": 0.1,
    "silent_after": 1.5,
    "lost_after": 3.0,
}
"""A scheduler's times, in seconds, a tenth of what they are by default."""
_PIECE = 64 << 10
_ANSWER = 60.0  # seconds that a socket may take


# What ran


class Told(Struct, frozen=True):
    """A line of a dummy engine's journal."""

    at: float  # seconds since the epoch
    event: str
    build: str
    attempt: int
    container: str
    code: int | None


def journal(node: Program, build: str = "") -> tuple[Told, ...]:
    """What the node's engine wrote down, of one build or of all."""
    path = node.folder / JOURNAL
    lines = path.read_text().splitlines() if path.exists() else []
    told = (Told(**json.loads(line)) for line in lines)
    return tuple(line for line in told if build in ("", line.build))


def events(node: Program, build: str) -> list[tuple[str, int]]:
    """Event and attempt of each line of a build."""
    return [(line.event, line.attempt) for line in journal(node, build)]


def starts(build: str, *nodes: Program) -> list[tuple[str, int]]:
    """Node and attempt of every start of a build."""
    lines = [(line.at, node.host.name, line) for node in nodes for line in journal(node, build)]
    return [(name, line.attempt) for _, name, line in sorted(lines) if line.event == "start"]


def left_over(node: Program) -> set[str]:
    """Containers that were started there and not removed."""
    lines = journal(node)
    started = {line.container for line in lines if line.event == "start"}
    return started - {line.container for line in lines if line.event == "remove"}


# What a scheduler shows


def runs(build: Build) -> bool:
    """Whether its commands run."""
    return build.stage is Stage.RUNNING


def stopped(build: Build) -> bool:
    """Whether it has ended."""
    return build.state is State.STOPPED


def shows(state: str, *nodes: str) -> Sight:
    """Whether the roster has all these nodes, by id, in this state."""

    def sight(roster: Roster) -> bool:
        return all(state_of(roster, node) == state for node in nodes)

    return sight


def page(scheduler: Scheduler) -> str:
    """The roster as a browser gets it."""
    return scheduler.host.output("curl", "-sS", "-H", "Accept: text/html", scheduler.url + "/")


# Downloads


class Answer(Struct, frozen=True):
    """What a client got. `whole`: nothing told it that something is missing."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


class Fetch:
    """A GET by Python's own client, its body to be read in parts. Blocks; for threads."""

    def __init__(self, url: str, headers: Mapping[str, str] = {}, version: int = 11) -> None:
        """`version` of HTTP: 11, or 10."""
        place, _, path = url.removeprefix("http://").partition("/")
        self._connection = http.client.HTTPConnection(place, timeout=_ANSWER)
        self._connection._http_vsn = version  # type: ignore[attr-defined]
        self._connection._http_vsn_str = f"HTTP/{version / 10}"  # type: ignore[attr-defined]
        self._connection.request("GET", f"/{path}", headers=dict(headers))
        assert self._connection.sock is not None
        self._socket = self._connection.sock.dup()
        self._response = self._connection.getresponse()
        self._body = bytearray()
        self._whole = True

    def read(self, most: int | None = None) -> Answer:
        """What came, at most so many bytes in all; None: up to the end."""
        while self._whole and (most is None or len(self._body) < most):
            size = _PIECE if most is None else min(_PIECE, most - len(self._body))
            try:
                piece = self._response.read(size)
            except (http.client.HTTPException, OSError):
                self._whole = False
                break
            self._body += piece
            if not piece:
                self._whole = not self._response.length
                break
        headers = {name.lower(): text for name, text in self._response.getheaders()}
        return Answer(self._response.status, headers, bytes(self._body), self._whole)

    def hang_up(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._response.close()
        self._connection.close()
        self._socket.close()


def fetched(url: str, headers: Mapping[str, str] = {}, most: int | None = None) -> Answer:
    """A GET, hung up on after so many bytes of its body."""
    fetch = Fetch(url, headers)
    try:
        return fetch.read(most)
    finally:
        fetch.hang_up()


class Wire:
    """A way to a node, on the scheduler's own host, that can be cut in the middle of a download."""

    def __init__(self, node: Program, host: Host) -> None:
        self._node = node
        self._host = host
        self._cut_after: int | None = None
        self._server: asyncio.Server | None = None

    def open(self) -> str:
        """The URL of its end."""
        self._host.at_close(self._close)
        return self._host.run(self._listen())

    def cut_after(self, count: int) -> None:
        """Cut the connection of the next download when so many bytes of its answer went by."""
        self._cut_after = count

    async def _listen(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._node.host.address, self._node.port)
        left: list[int] = []  # bytes that may still come back, where there is a limit

        async def forth() -> None:
            while data := await reader.read(_PIECE):
                if b"/artifacts/" in data and self._cut_after is not None:
                    left.append(self._cut_after)
                    self._cut_after = None
                there[1].write(data)
                await there[1].drain()

        async def back() -> None:
            while data := await there[0].read(min([_PIECE, *left])):
                writer.write(data)
                await writer.drain()
                if left:
                    left[0] -= len(data)

        tasks = {asyncio.ensure_future(forth()), asyncio.ensure_future(back())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        there[1].transport.abort()
        writer.close()
        for task in tasks:
            task.cancel()
        with contextlib.suppress(OSError):
            await asyncio.gather(*tasks, return_exceptions=True)

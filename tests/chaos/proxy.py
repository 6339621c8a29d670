"""A TCP proxy before one program, which understands enough HTTP/1.1 to do to a request what a bad
network does: hold it back in one direction or both, delay it, lose its reply after it was
delivered, deliver it twice, cut it off, refuse it.

What is held back is delivered late, as TCP does when a partition heals, also where nobody waits for
it any more.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from msgspec import Struct

_HEAD = 64 << 10  # bytes that the head of a message may have
_PIECE = 64 << 10
_BODILESS = (204, 304)


class Message(Struct):
    """A request or the head of a reply, as bytes and in parts."""

    start: str  # its first line
    headers: dict[str, str]  # names in lower case
    raw: bytes

    @property
    def method(self) -> str:
        """Of a request."""
        return self.start.split(" ")[0]

    @property
    def path(self) -> str:
        """Of a request, without its query."""
        return self.start.split(" ")[1].partition("?")[0]

    @property
    def status(self) -> int:
        """Of a reply."""
        return int(self.start.split(" ")[1])


class Hold:
    """A place where the next request of a kind is held: see `Proxy.hold`."""

    def __init__(self, method: str, path: str, where: str) -> None:
        self.method = method
        self.path = path
        self.where = where
        self.reached = asyncio.Event()
        self.headers: dict[str, str] = {}  # of the request; names in lower case
        self._gate = asyncio.Event()

    def let_go(self) -> None:
        """What is held goes on, and so does all that follows."""
        self._gate.set()

    async def pause(self, request: "Message") -> None:
        """Called by the proxy."""
        self.headers = request.headers
        self.reached.set()
        await self._gate.wait()


class Proxy:
    """Listens on a port of 127.0.0.1 for what is meant for another; a context manager."""

    def __init__(self, port: int, target: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.delay = 0.0  # seconds that each message takes, either way
        self.lose_replies = 0  # replies to POSTs to lose
        self.repeat_requests = 0  # POSTs to deliver twice
        self.answers: dict[tuple[str, str], bytes] = {}  # (method, path) -> answered at once
        self.done: Counter[str] = Counter()  # what was done to messages
        self._port = port
        self._target = target
        self._gates = {"to": asyncio.Event(), "back": asyncio.Event()}
        self._holds: list[Hold] = []
        self._listener: socket.socket | None = None
        self._conversations: set[asyncio.Task[None]] = set()
        self._repeats: set[asyncio.Task[None]] = set()
        self.heal()

    async def __aenter__(self) -> "Proxy":
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        await _cancelled(self._repeats)

    # Faults

    async def accept(self) -> None:
        """Take connections."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), backlog=1024)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def refuse(self) -> None:
        """Take no connections, and cut those that there are."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self.cut()

    async def cut(self) -> None:
        """Cut all connections; what is held on them is lost."""
        await _cancelled(self._conversations)

    def part(self, *directions: str) -> None:
        """Hold back what goes "to" the program, or comes "back" from it."""
        for direction in directions:
            self._gates[direction].clear()

    def join(self) -> None:
        """Hold back nothing any more."""
        for gate in self._gates.values():
            gate.set()

    def heal(self) -> None:
        """End every fault; what is held by `hold` stays so."""
        self.delay, self.lose_replies, self.repeat_requests = 0.0, 0, 0
        self.join()

    def hold(self, method: str, path: str, where: str) -> Hold:
        """Hold the next request like this: where only "half" of it was delivered, its "request"
        before it is delivered, or its "reply" before that is passed on.
        """
        held = Hold(method, path, where)
        self._holds.append(held)
        return held

    # Passing on

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):  # whoever called is gone again
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            task = _do(self._conversations, self._converse(accepted))
            # A task that is cancelled before it began closes nothing itself.
            task.add_done_callback(lambda _: accepted.close())

    async def _converse(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted, limit=_HEAD)
        upstream: _Connection | None = None
        try:
            while (request := await _request(reader)) is not None:
                if answer := self.answers.get((request.method, request.path)):
                    self.done["answers made up"] += 1
                    writer.write(answer)
                    continue
                upstream = upstream or await _connect(self._target)
                await self._deliver(request, upstream)
                if request.method == "POST" and self.lose_replies:
                    self.lose_replies -= 1
                    self.done["replies lost"] += 1
                    async for _ in _reply(upstream.reader, request):
                        pass
                    return
                await self._pass_back(request, upstream, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()
            if upstream is not None:
                upstream.writer.transport.abort()

    async def _deliver(self, request: Message, upstream: "_Connection") -> None:
        await self._pass("to")
        if held := self._held(request, "request"):
            await held.pause(request)
        sent = 0
        if held := self._held(request, "half"):
            sent = len(request.raw) // 2
            upstream.writer.write(request.raw[:sent])
            await held.pause(request)
        if request.method == "POST" and self.repeat_requests:
            self.repeat_requests -= 1
            self.done["requests repeated"] += 1
            _do(self._repeats, self._repeat(request))
        upstream.writer.write(request.raw[sent:])
        await upstream.writer.drain()

    async def _pass_back(
        self, request: Message, upstream: "_Connection", writer: asyncio.StreamWriter
    ) -> None:
        pieces = _reply(upstream.reader, request)
        if held := self._held(request, "reply"):
            whole = b"".join([piece async for piece in pieces])
            await held.pause(request)
            writer.write(whole)
            return
        await self._pass("back")
        async for piece in pieces:
            await self._gates["back"].wait()
            if writer.is_closing():
                raise ConnectionResetError
            writer.write(piece)
            await writer.drain()

    async def _pass(self, direction: str) -> None:
        if self.delay:
            self.done["messages delayed"] += 1
            await asyncio.sleep(self.delay)
        if not self._gates[direction].is_set():
            self.done[f"messages held {direction}"] += 1
            await self._gates[direction].wait()

    async def _repeat(self, request: Message) -> None:
        """Deliver it once more, by a connection of its own; nobody hears the reply."""
        with contextlib.suppress(OSError, EOFError):
            upstream = await _connect(self._target)
            try:
                upstream.writer.write(request.raw)
                async for _ in _reply(upstream.reader, request):
                    pass
            finally:
                upstream.writer.transport.abort()

    def _held(self, request: Message, where: str) -> Hold | None:
        for held in self._holds:
            if (held.method, held.path, held.where) == (request.method, request.path, where):
                self._holds.remove(held)
                return held
        return None


class _Connection(Struct):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def _connect(port: int) -> _Connection:
    return _Connection(*await asyncio.open_connection("127.0.0.1", port, limit=_HEAD))


async def _head(reader: asyncio.StreamReader) -> Message:
    """The head of a message. Raises EOFError (IncompleteReadError) where there is none."""
    raw = await reader.readuntil(b"\r\n\r\n")
    start, *lines = raw.decode("latin-1").splitlines()
    pairs = (line.partition(":") for line in lines if line)
    return Message(start, {name.lower(): value.strip() for name, _, value in pairs}, raw)


async def _request(reader: asyncio.StreamReader) -> Message | None:
    """A whole request; None where there are no more."""
    try:
        request = await _head(reader)
    except asyncio.IncompleteReadError:
        return None
    request.raw += await reader.readexactly(int(request.headers.get("content-length", 0)))
    return request


async def _reply(reader: asyncio.StreamReader, request: Message) -> AsyncIterator[bytes]:
    """A reply, piece by piece. Raises EOFError where it breaks off."""
    head = await _head(reader)
    yield head.raw
    if request.method == "HEAD" or head.status in _BODILESS:
        return
    if head.headers.get("transfer-encoding", "") == "chunked":
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line, 16)
            yield line + await reader.readexactly(size + 2)
        return
    left = int(head.headers["content-length"])
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise EOFError
        left -= len(piece)
        yield piece


def _do(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    """End these; what they had open is closed when this returns."""
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)

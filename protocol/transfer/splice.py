"""Moves large bodies between descriptors without a copy through Python: socket to socket by splice,
file to socket by sendfile.

One thread with an epoll of its own moves all of them in turns; it lives while there is something to
move. A transfer holds one pipe and nothing else: a client that reads slowly slows its source. Where
either end is gone, the transfer ends with Unavailable; to stop one, cancel its future.

A stream offers this by a method `direct` (`DirectStream`); `protocol/api/content.py` uses it where
the client's side can do the same. Not for TLS, nor for bodies without a length.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import threading
from collections import deque
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from protocol.errors import Unavailable

AVAILABLE = all(hasattr(os, name) for name in ("splice", "sendfile", "eventfd"))
"""Whether this system can do it: Linux can."""
SMALLEST = 256 << 10
"""Bytes of a body below which it is not worth the trouble."""
_PIPE = 1 << 20  # bytes that may be between source and sink
_BATCH = 64 << 10  # bytes that a source has to have before it is worth waking up for
_TURN = 8  # steps that a transfer does before it is another's turn

Moved = asyncio.Future[None]
"""Done when a body has arrived, or will not."""


class Source(Struct, frozen=True):
    """A body that need not pass through this program. Whoever is given it closes it."""

    ahead: bytes  # its beginning, which is here already
    descriptor: int  # where the rest comes from, a duplicate; -1 where there is no rest
    offset: int | None  # where in a file; None: the descriptor is a socket
    length: int  # bytes of the rest

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)


@runtime_checkable
class DirectStream(Protocol):
    """A `ByteStream` that can be moved without being read."""

    def direct(self) -> Source | None:
        """The rest of the stream; None where it has to be read after all.

        After an answer other than None the stream is only good for being closed.
        """


def send(source: Source, sink: int) -> Moved:
    """Move all of the source behind `ahead` to a non-blocking socket. The future is done, or raises
    Unavailable, when nothing is moved any more. Both ends may be closed while it is under way.
    """
    future: Moved = asyncio.get_running_loop().create_future()
    kind = _FromSocket if source.offset is None else _FromFile
    try:
        with ExitStack() as opened:
            transfer = kind(source, sink, future, opened)
            transfer.opened = opened.pop_all()
    except OSError as error:
        raise Unavailable(f"the body could not be moved: {error}") from error
    _pump.begin(transfer)
    future.add_done_callback(lambda ended: _pump.stop(transfer) if ended.cancelled() else None)
    return future


class _Transfer:
    """One body on its way. After its making, for use in the pump's thread only."""

    def __init__(self, source: Source, sink: int, future: Moved, opened: ExitStack) -> None:
        self.opened = opened  # closes what it has open
        self._total = self._left = source.length
        self._piped = 0  # bytes that have left the source and are not with the sink
        self._loop = future.get_loop()
        self._future = future
        self._sink = self._own(os.dup(sink))
        self._source = self._own(os.dup(source.descriptor))

    def step(self) -> tuple[int, int] | None:
        """Move some bytes. What to wait for, as descriptor and mask, or None for more at once.

        Raises Unavailable where the source breaks off, OSError where the sink does.
        """
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether all bytes are with the sink."""
        return not self._left and not self._piped

    def end(self, error: Unavailable | None) -> None:
        """Let go of both ends, then say so."""
        self.opened.close()
        with contextlib.suppress(RuntimeError):  # the event loop was closed before us
            self._loop.call_soon_threadsafe(_settle, self._future, error)

    def _own(self, descriptor: int) -> int:
        self.opened.callback(os.close, descriptor)
        return descriptor

    def _broke_off(self, cause: object) -> Unavailable:
        moved = self._total - self._left
        return Unavailable(f"the source broke off after {moved} of {self._total} bytes: {cause}")


class _FromFile(_Transfer):
    """From an open file."""

    def __init__(self, source: Source, *more: Any) -> None:
        super().__init__(source, *more)
        self._offset = source.offset or 0

    def step(self) -> tuple[int, int] | None:
        """See _Transfer."""
        try:
            moved = os.sendfile(self._sink, self._source, self._offset, min(self._left, _PIPE))
        except BlockingIOError:
            return self._sink, select.EPOLLOUT
        if not moved:
            raise self._broke_off("the file is shorter than it was")
        self._offset += moved
        self._left -= moved
        return None


class _FromSocket(_Transfer):
    """From a socket, by way of a pipe."""

    def __init__(self, source: Source, *more: Any) -> None:
        super().__init__(source, *more)
        self._out, self._in = map(self._own, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        with contextlib.suppress(OSError):  # over the user's share of pipes: a small one serves too
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE)
        self._batch = 0  # what the source is set to

    def step(self) -> tuple[int, int] | None:
        """See _Transfer."""
        return self._drain() if self._piped else self._fill()

    def _fill(self) -> tuple[int, int] | None:
        try:
            moved = os.splice(self._source, self._in, min(self._left, _PIPE), flags=_FLAGS)
        except BlockingIOError:
            self._wake_at(min(self._left, _BATCH))
            return self._source, select.EPOLLIN
        except OSError as error:
            raise self._broke_off(error) from error
        if not moved:
            raise self._broke_off("it was closed")
        self._piped = moved
        self._left -= moved
        return None

    def _drain(self) -> tuple[int, int] | None:
        try:
            self._piped -= os.splice(self._out, self._sink, self._piped, flags=_FLAGS)
        except BlockingIOError:
            return self._sink, select.EPOLLOUT
        return None

    def _wake_at(self, count: int) -> None:
        """Be woken by so many bytes, or by the end: each waking costs more than moving a few."""
        if count != self._batch:
            self._batch = count
            with socket.socket(fileno=os.dup(self._source)) as source:
                source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


class _Pump:
    """The thread, and how it is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: deque[tuple[_Transfer, bool]] = deque()  # to begin, or else to stop
        self._bell = -1  # an eventfd while the thread lives

    def begin(self, transfer: _Transfer) -> None:
        """Move its bytes from now on."""
        with self._lock:
            if self._bell < 0:
                bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                threading.Thread(target=self._run, args=(bell,), name="pump", daemon=True).start()
                self._bell = bell
            self._tell(transfer, begin=True)

    def stop(self, transfer: _Transfer) -> None:
        """Do no more for it; one that has ended stays as it is."""
        with self._lock:
            if self._bell >= 0:
                self._tell(transfer, begin=False)

    def _tell(self, transfer: _Transfer, *, begin: bool) -> None:
        self._orders.append((transfer, begin))
        os.eventfd_write(self._bell, 1)

    def _run(self, bell: int) -> None:
        with select.epoll() as epoll:
            epoll.register(bell, select.EPOLLIN)
            turns = _Turns(epoll)
            while self._obey(turns):
                for descriptor, _ in epoll.poll(0 if turns.ready else -1):
                    if descriptor == bell:
                        os.eventfd_read(bell)
                    else:
                        turns.wake(descriptor)
                turns.all()

    def _obey(self, turns: "_Turns") -> bool:
        """Take new orders; False where nothing is left to do, and the thread ends."""
        with self._lock:
            while self._orders:
                transfer, begin = self._orders.popleft()
                if begin:
                    turns.begin(transfer)
                else:
                    turns.end(transfer, Unavailable("it was stopped"))
            if not turns.alive:
                os.close(self._bell)
                self._bell = -1
            return bool(turns.alive)


class _Turns:
    """Whose turn it is, and who waits for what."""

    def __init__(self, epoll: select.epoll) -> None:
        self.alive: set[_Transfer] = set()
        self.ready: deque[_Transfer] = deque()
        self._epoll = epoll
        self._waiting: dict[int, _Transfer] = {}  # descriptor -> who waits for it
        self._awaited: dict[_Transfer, int] = {}

    def begin(self, transfer: _Transfer) -> None:
        """It joins."""
        self.alive.add(transfer)
        self.ready.append(transfer)

    def wake(self, descriptor: int) -> None:
        """What somebody waited for has happened."""
        transfer = self._waiting.pop(descriptor)
        del self._awaited[transfer]
        self._epoll.unregister(descriptor)
        self.ready.append(transfer)

    def all(self) -> None:
        """A turn for everybody who is ready."""
        for _ in range(len(self.ready)):
            transfer = self.ready.popleft()
            try:
                if transfer in self.alive:
                    self._turn(transfer)
            except Unavailable as error:
                self.end(transfer, error)
            except OSError as error:
                self.end(transfer, Unavailable(f"the client is gone: {error}"))

    def end(self, transfer: _Transfer, error: Unavailable | None) -> None:
        """It leaves; nothing happens where it has left before."""
        if transfer in self.alive:
            self.alive.remove(transfer)
            if (descriptor := self._awaited.pop(transfer, None)) is not None:
                del self._waiting[descriptor]
                self._epoll.unregister(descriptor)
            transfer.end(error)

    def _turn(self, transfer: _Transfer) -> None:
        for _ in range(_TURN):
            if transfer.done:
                self.end(transfer, None)
                return
            if wish := transfer.step():
                descriptor, mask = wish
                self._epoll.register(descriptor, mask)
                self._waiting[descriptor] = transfer
                self._awaited[transfer] = descriptor
                return
        self.ready.append(transfer)


def _settle(future: Moved, error: Unavailable | None) -> None:
    if not future.done():
        future.set_exception(error) if error else future.set_result(None)


_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if AVAILABLE else 0
_pump = _Pump()

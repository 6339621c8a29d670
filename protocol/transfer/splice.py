"""Moves large bodies between descriptors without a copy through Python: socket to socket by splice,
file to socket by sendfile. What is to be checked on its way is copied after all, and looked at.

One thread moves all of them in turns (`protocol/transfer/pump.py`). A transfer holds one pipe or
buffer and nothing else: a client that reads slowly slows its source. Where either end is gone, the
transfer ends with Unavailable; to stop one, cancel its future.

A stream offers this by a method `direct` (`DirectStream`); `protocol/api/content.py` uses it where
the client's side can do the same. Not for TLS, nor for bodies without a length.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import socket
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from protocol.errors import Unavailable
from protocol.transfer.check import Check
from protocol.transfer.pump import Pump, Wait

AVAILABLE = all(hasattr(os, name) for name in ("splice", "sendfile", "eventfd"))
"""Whether this system can do it: Linux can."""
SMALLEST = 256 << 10
"""Bytes of a body below which it is not worth the trouble."""
_PIPE = 1 << 20  # bytes that may be between source and sink
_LOOK = 256 << 10  # bytes that are looked at in one go: they stay in the processor's cache
_BATCH = 64 << 10  # bytes that a source has to have before it is worth waking up for

Moved = asyncio.Future[None]
"""Done when a body has arrived, or will not."""


class Source(Struct, frozen=True):
    """A body that need not pass through this program. Whoever is given it closes it."""

    ahead: bytes  # its beginning, which is here already
    descriptor: int  # where the rest comes from, a duplicate; -1 where there is no rest
    offset: int | None  # where in a file; None: the descriptor is a socket
    length: int  # bytes of the rest
    check: Check | None = None  # has seen what is here, and has to see the rest, a socket's

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
    try:
        with ExitStack() as opened:
            transfer = _kind(source)(source, sink, future, opened)
            transfer.opened = opened.pop_all()
    except OSError as error:
        raise Unavailable(f"the body could not be moved: {error}") from error
    _pump.begin(transfer)
    future.add_done_callback(lambda ended: _pump.stop(transfer) if ended.cancelled() else None)
    return future


def _kind(source: Source) -> "type[_Transfer]":
    if source.offset is not None:
        return _FromFile
    return _Spliced if source.check is None else _Checked


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

    def step(self) -> Wait | None:
        """Move some bytes. What to wait for, or None for more at once.

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

    def step(self) -> Wait | None:
        """See _Transfer."""
        try:
            moved = os.sendfile(self._sink, self._source, self._offset, min(self._left, _PIPE))
        except BlockingIOError:
            return Wait(self._sink, select.EPOLLOUT)
        if not moved:
            raise self._broke_off("the file is shorter than it was")
        self._offset += moved
        self._left -= moved
        return None


class _FromSocket(_Transfer):
    """From a socket, by way of what holds a little of it."""

    def __init__(self, source: Source, *more: Any) -> None:
        super().__init__(source, *more)
        self._batch = 0  # what the source is set to
        self._flows = True  # something came since we last waited for it

    def step(self) -> Wait | None:
        """See _Transfer."""
        return self._drain() if self._piped else self._fill()

    def _pull(self, most: int) -> tuple[int, int]:
        """Take bytes from the source: how many, 0 where it has ended, and how many can be given to
        the sink then. Raises OSError; Unavailable for wrong ones.
        """
        raise NotImplementedError

    def _push(self) -> int:
        """Give of these to the sink. Raises OSError."""
        raise NotImplementedError

    def _fill(self) -> Wait | None:
        try:
            moved, self._piped = self._pull(self._left)
        except BlockingIOError:
            return self._wait()
        except OSError as error:
            raise self._broke_off(error) from error
        if not moved:
            raise self._broke_off("it was closed")
        self._left -= moved
        self._flows = True
        return None

    def _drain(self) -> Wait | None:
        try:
            self._piped -= self._push()
        except BlockingIOError:
            return Wait(self._sink, select.EPOLLOUT)
        return None

    def _wait(self) -> Wait:
        """For a batch while bytes flow; a source may pause behind fewer, which are wanted too."""
        flows, self._flows = self._flows, False
        self._wake_at(min(self._left, _BATCH) if flows else 1)
        return Wait(self._source, select.EPOLLIN, brief=flows)

    def _wake_at(self, count: int) -> None:
        """Be woken by so many bytes, or by the end: each waking costs more than moving a few."""
        if count != self._batch:
            self._batch = count
            with socket.socket(fileno=os.dup(self._source)) as source:
                source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


class _Spliced(_FromSocket):
    """By way of a pipe."""

    def __init__(self, source: Source, *more: Any) -> None:
        super().__init__(source, *more)
        self._out, self._in = map(self._own, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        with contextlib.suppress(OSError):  # over the user's share of pipes: a small one serves too
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE)

    def _pull(self, most: int) -> tuple[int, int]:
        moved = os.splice(self._source, self._in, min(most, _PIPE), flags=_FLAGS)
        return moved, moved

    def _push(self) -> int:
        return os.splice(self._out, self._sink, self._piped, flags=_FLAGS)


class _Checked(_FromSocket):
    """By way of a block that is looked at. `tee` into a second pipe would spare one copy of two;
    the digest costs more than both, and nothing could be held back.
    """

    def __init__(self, source: Source, *more: Any) -> None:
        super().__init__(source, *more)
        assert source.check is not None
        self._check = source.check
        self._right = memoryview(b"")

    def _pull(self, most: int) -> tuple[int, int]:
        moved = os.readv(self._source, [self._check.room()[: min(most, _LOOK)]])
        if moved:
            self._right = self._check.filled(moved)
        return moved, len(self._right)

    def _push(self) -> int:
        given = os.write(self._sink, self._right)
        self._right = self._right[given:]
        return given


def _settle(future: Moved, error: Unavailable | None) -> None:
    if not future.done():
        future.set_exception(error) if error else future.set_result(None)


_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if AVAILABLE else 0
_pump = Pump()

"""Logs on their way from nodes to those who follow them here. Nothing is kept but the end of each
log that is followed.

A viewer who is far behind gets what is there from the node past us (`protocol/transfer/splice.py`),
as often as it takes. At the end of the log all viewers share one connection to the node, and read
from a window of what came last; who is too slow for it drops out, and is far behind again. So a
viewer slows nobody, and costs what he reads.

Where the node goes away, viewers are told by Unavailable: their connections are cut, never ended as
if the log were whole. So they are where the node is there and says nothing, when the record says
that the attempt is over.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from protocol.builds.board import Board
from protocol.concurrency.watch import Watch
from protocol.errors import NotFound, PoolError, Unavailable
from protocol.model.build import Build, Position, State
from protocol.ports.service import ByteStream, Caller, OpenLog
from protocol.transfer.splice import SMALLEST, DirectStream, Source
from scheduler.pool.target import NodeClient

WINDOW = 1 << 20
"""Bytes that are kept of each log's end."""
_PIECE = 256 << 10
_HELD = 60.0  # seconds between looks at a build of which nothing is heard
_LAST = 5.0  # seconds in which a node says the last of an attempt that is over

Open = Callable[[int, bool], Awaitable[OpenLog]]
"""The node's log of one attempt from an offset, to be followed or as it is now."""
Attempt = tuple[str, int]
"""Build and attempt."""


class Viewing:
    """All logs that are followed here. For use on the event loop."""

    def __init__(
        self, board: Board, node_of: Callable[[Build], NodeClient], caller: Caller
    ) -> None:
        """`node_of`: the node that has a build's log, or Unavailable; `caller`: who we are."""
        self._board = board
        self._node_of = node_of
        self._caller = caller
        self._ends: dict[Attempt, LogEnd] = {}

    async def open(self, build: Build, offset: int, *, limit: int | None, follow: bool) -> OpenLog:
        """The log of the build's attempt. Raises Unavailable, NotFound."""
        if not follow or limit is not None or build.state is State.STOPPED:
            return await self._opened(build, offset, follow, limit)
        opening = partial(self._opened, build)
        opened = await opening(offset, False)
        stream = ViewerStream(self, (build.id, build.attempt), opening, opened)
        return OpenLog(opened.attempt, opened.start, stream)

    async def _opened(
        self, build: Build, offset: int, follow: bool, limit: int | None = None
    ) -> OpenLog:
        position = Position(build.attempt, offset)
        opened = await self._node_of(build).open_log(
            self._caller, build.id, position, limit=limit, follow=follow
        )
        if opened.attempt != build.attempt:
            await opened.stream.close()
            raise Unavailable(f"the node has attempt {opened.attempt}, not {build.attempt}")
        return opened

    def join(self, attempt: Attempt, offset: int, opening: Open) -> "LogEnd":
        """The log's end, where this viewer has arrived. To be left."""
        end = self._ends.get(attempt)
        if end is None or not end.reaches(offset):
            end = self._ends[attempt] = LogEnd(offset, opening, partial(self._is_over, *attempt))
        end.viewers += 1
        return end

    async def _is_over(self, build_id: str, attempt: int) -> None:
        """Return when, as far as we know, the attempt does not run any more."""
        with contextlib.suppress(NotFound):
            build = self._board.get(build_id)
            while build.attempt == attempt and build.state is State.RUNNING:
                build = await self._board.held(build_id, build.revision, _HELD)

    def leave(self, attempt: Attempt, end: "LogEnd") -> None:
        """The viewer has fallen behind, or is gone."""
        end.viewers -= 1
        if not end.viewers:
            end.close()
            if self._ends.get(attempt) is end:
                del self._ends[attempt]


class LogEnd:
    """The last bytes of a log that grows. It is read only while somebody waits for more."""

    def __init__(self, offset: int, opening: Open, over: Callable[[], Awaitable[None]]) -> None:
        """`over`: returns when the attempt is over."""
        self.viewers = 0
        self._start = offset  # of the window
        self._window = bytearray()
        self._wanted = offset  # how far somebody has come
        self._over = False
        self._problem = ""
        self._changed = Watch()
        self._asked = Watch()
        self._stirred = Watch(self._changed, self._asked)
        self._reading = asyncio.create_task(self._read(opening))
        self._watching = asyncio.create_task(self._give_up(over))

    @property
    def _end(self) -> int:
        return self._start + len(self._window)

    @property
    def _is_ahead(self) -> bool:
        """Whether there is enough for the fastest viewer, and no more is read until he comes."""
        return self._end >= self._wanted + WINDOW

    def reaches(self, offset: int) -> bool:
        """Whether a viewer there is served from here, now or soon."""
        return not self._over and self._start <= offset <= self._end + WINDOW

    async def after(self, offset: int) -> bytes | None:
        """What comes at the offset, as soon as it is there; nothing: the log has ended; None: it is
        not here any more. Raises Unavailable where the node broke off.
        """
        while True:
            if offset < self._start:
                return None
            if offset < self._end:
                first = offset - self._start
                return bytes(memoryview(self._window)[first : first + _PIECE])
            if self._problem:
                raise Unavailable(self._problem)
            if self._over:
                return b""
            self._wanted = max(self._wanted, offset)
            self._asked.touch()
            await self._changed.wait(self._changed.count, None)

    def close(self) -> None:
        """Nobody is here any more."""
        self._over = True
        self._reading.cancel()
        self._watching.cancel()

    async def _read(self, opening: Open) -> None:
        stream: ByteStream | None = None
        try:
            opened = await opening(self._end, True)
            stream = opened.stream
            if opened.start != self._end:
                raise Unavailable("the log is shorter than it was")
            async for piece in stream:
                self._add(piece)
                while self._is_ahead:
                    await self._asked.wait(self._asked.count, None)
        except PoolError as error:
            self._problem = error.detail
        finally:
            self._over = True
            self._changed.touch()
            self._watching.cancel()
            if stream is not None:
                await stream.close()

    async def _give_up(self, over: Callable[[], Awaitable[None]]) -> None:
        """Wait no longer for a node that says no more of an attempt that is over."""
        await over()
        while await self._stirred.wait(self._stirred.count, _LAST) or self._is_ahead:
            continue
        self._problem = "the attempt is over, and its node says no more of it"
        self._reading.cancel()

    def _add(self, piece: bytes) -> None:
        self._window += piece
        if (surplus := len(self._window) - WINDOW) > 0:
            del self._window[:surplus]
            self._start += surplus
        self._changed.touch()


class ViewerStream:
    """One viewer's way through a log; see PartedStream."""

    def __init__(self, viewing: Viewing, attempt: Attempt, opening: Open, first: OpenLog) -> None:
        self._viewing = viewing
        self._attempt = attempt
        self._opening = opening
        self._offset = first.start
        self._behind: OpenLog | None = first  # what is there, and he has not
        self._end: LogEnd | None = None  # where he has arrived

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._all(direct=False):
            assert isinstance(part, bytes)
            yield part

    def parts(self) -> AsyncIterator[bytes | Source]:
        """See PartedStream."""
        return self._all(direct=True)

    async def close(self) -> None:
        """Let go of whatever is read."""
        if (behind := self._behind) is not None:
            self._behind = None
            await behind.stream.close()
        if (end := self._end) is not None:
            self._end = None
            self._viewing.leave(self._attempt, end)

    async def _all(self, *, direct: bool) -> AsyncIterator[bytes | Source]:
        more = True
        while more:
            async for part in self._catch_up(direct):
                yield part
            self._end = end = self._viewing.join(self._attempt, self._offset, self._opening)
            while piece := await end.after(self._offset):
                self._offset += len(piece)
                yield piece
            more = piece is None
            await self.close()

    async def _catch_up(self, direct: bool) -> AsyncIterator[bytes | Source]:
        """What is there, until that is little."""
        length = SMALLEST
        while length >= SMALLEST:
            begun = self._offset
            opened = self._behind or await self._opening(begun, False)
            self._behind = opened
            if opened.start != begun:
                raise Unavailable("the log is shorter than it was")
            stream = opened.stream
            source = stream.direct() if direct and isinstance(stream, DirectStream) else None
            if source is not None:
                self._offset += len(source.ahead) + source.length
                yield source
            else:
                async for piece in stream:
                    self._offset += len(piece)
                    yield piece
            await self.close()
            length = self._offset - begun

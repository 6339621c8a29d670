"""Parts of a log: what one command wrote.

A command's bytes are those between its start and its end in the attempt's log. While it runs its
end is not known; then no byte is given that a record of its progress does not prove to be its own.
"""

from collections.abc import AsyncIterator

from msgspec import Struct

from protocol.errors import NotFound
from protocol.model.build import Build, CommandStatus, Position, State
from protocol.ports.service import BuildService, ByteStream, Caller, OpenLog
from protocol.transfer.streams import no_log

HELD = 60.0
"""Seconds after which a build that did not change is looked at again."""


class Span(Struct, frozen=True):
    """Where something lies in an attempt's log, as far as is known."""

    start: int
    end: int
    ended: bool  # it does not grow any more


def command_of(build: Build, index: int) -> CommandStatus:
    """The command of this index. Raises NotFound."""
    if index >= len(build.commands):
        raise NotFound(
            f"the build has {len(build.commands)} commands",
            field="command",
            expected="an index from 0",
        )
    return build.commands[index]


def span_of(build: Build, index: int | None) -> Span:
    """Where the command of this index wrote; None: all of them. Raises NotFound."""
    stopped = build.state is State.STOPPED
    if index is None:
        return Span(0, build.log_size, stopped)
    command = command_of(build, index)
    if command.start is None:
        return Span(0, 0, stopped)
    if command.end is not None and command.end <= build.log_size:
        return Span(command.start, command.end, True)
    return Span(command.start, max(command.start, build.log_size), stopped)


async def open_command(
    service: BuildService,
    caller: Caller,
    build_id: str,
    index: int,
    position: Position,
    *,
    limit: int | None = None,
    follow: bool = False,
) -> OpenLog:
    """What a command wrote, from a position, `limit` bytes at most; following ends when the command
    does, or the attempt. Raises NotFound.
    """
    build = await service.get(caller, build_id)
    while follow and command_of(build, index).start is None and build.state is not State.STOPPED:
        build = await service.get(caller, build_id, after=build.revision, wait=HELD)
    span = span_of(build, index)
    if command_of(build, index).start is None:
        return no_log(build.attempt)
    known = position.attempt in (0, build.attempt)
    start = max(span.start, min(position.offset, span.end)) if known else span.start
    stream = CommandStream(service, caller, build, index, start, limit, follow)
    return OpenLog(build.attempt, start, stream)


class CommandStream:
    """One reader's way through what a command wrote."""

    def __init__(
        self,
        service: BuildService,
        caller: Caller,
        build: Build,
        index: int,
        start: int,
        limit: int | None,
        follow: bool,
    ) -> None:
        self._service = service
        self._caller = caller
        self._build = build
        self._index = index
        self._offset = start
        self._last = None if limit is None else start + limit
        self._follow = follow
        self._open: ByteStream | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        attempt = self._build.attempt
        while self._build.attempt == attempt:
            span = span_of(self._build, self._index)
            end = span.end if self._last is None else min(span.end, self._last)
            async for piece in self._read(end):
                yield piece
            over = span.ended and self._offset >= span.end
            over = over or self._build.state is State.STOPPED or self._offset == self._last
            if over or not self._follow:
                return
            self._build = await self._service.get(
                self._caller, self._build.id, after=self._build.revision, wait=HELD
            )

    async def _read(self, end: int) -> AsyncIterator[bytes]:
        if self._offset >= end:
            return
        wanted = Position(self._build.attempt, self._offset)
        opened = await self._service.open_log(
            self._caller, self._build.id, wanted, limit=end - self._offset
        )
        self._open = opened.stream
        try:
            if opened.start == self._offset:
                async for piece in opened.stream:
                    self._offset += len(piece)
                    yield piece
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of the log."""
        stream, self._open = self._open, None
        if stream is not None:
            await stream.close()

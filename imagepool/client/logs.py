"""A build's log, piece by piece, going on where a connection was cut."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from imagepool.client.events import LogPiece
from imagepool.client.trying import Trying
from protocol.errors import NotFound, Unavailable
from protocol.model.build import Build, CommandStatus, Position, State
from protocol.ports.service import LOCAL, BuildService, OpenLog

_HOLD = 30.0
"""Seconds that a question may be held while nothing changes."""

Getting = Callable[[int | None, float], Awaitable[Build]]
"""(revision, seconds) -> the build, held so long while its revision is that one."""


async def whole(
    pool: BuildService, build: Build, getting: Getting, position: Position, trying: Trying
) -> AsyncGenerator[LogPiece, None]:
    """The log from a position on, until the build has stopped; a new attempt's from its
    beginning. Raises Unavailable where it breaks off and does not go on.
    """
    while True:
        if build.state is State.WAITING:
            build = await getting(build.revision, _HOLD)
            continue
        if build.node is None:
            return
        before = position
        try:
            async with _opened(pool, build.id, position, follow=True) as opened:
                position = Position(opened.attempt, opened.start)
                async for data in opened.stream:
                    trying.progressed()
                    yield LogPiece(position.attempt, position.offset, data)
                    position = _behind(position, data)
        except Unavailable as error:
            await trying.after(error)
            continue
        if build.state is State.STOPPED:
            return  # it had stopped before its log was read to the end
        known, build = build, await getting(None, 0)
        if build.revision == known.revision and position == before:
            build = await getting(build.revision, _HOLD)
        if build.state is State.STOPPED and position == Position(build.attempt, build.log_size):
            return


async def so_far(
    pool: BuildService, build_id: str, position: Position, trying: Trying
) -> AsyncGenerator[LogPiece, None]:
    """The log from a position on, as far as it goes now."""
    while True:
        try:
            async with _opened(pool, build_id, position) as opened:
                position = Position(opened.attempt, opened.start)
                async for data in opened.stream:
                    trying.progressed()
                    yield LogPiece(position.attempt, position.offset, data)
                    position = _behind(position, data)
            return
        except Unavailable as error:
            await trying.after(error)


async def of_command(
    pool: BuildService,
    build: Build,
    getting: Getting,
    wanted: int | str,
    trying: Trying,
    *,
    follow: bool,
) -> AsyncGenerator[LogPiece, None]:
    """What one command printed: its number, from 1, or its name. Raises NotFound."""
    position = Position()
    while True:
        command = command_of(build, wanted)
        if command.start is not None and position.attempt != build.attempt:
            position = Position(build.attempt, command.start)
        end = build.log_size if command.end is None else command.end
        try:
            if command.start is not None and position.offset < end:
                limit = end - position.offset
                async with _opened(pool, build.id, position, limit=limit) as opened:
                    async for data in opened.stream:
                        if opened.attempt != position.attempt:
                            break  # the build will say where the command is in that attempt's
                        trying.progressed()
                        yield LogPiece(position.attempt, position.offset, data)
                        position = _behind(position, data)
        except Unavailable as error:
            await trying.after(error)
            continue
        done = command.end is not None and position.offset >= command.end
        if done or not follow or build.state is State.STOPPED:
            return
        build = await getting(build.revision, _HOLD)


async def lines(pieces: AsyncGenerator[LogPiece, None]) -> AsyncGenerator[str, None]:
    """The pieces as lines of text without their ends; what is not UTF-8 is replaced."""
    rest, attempt = b"", 0
    async for piece in pieces:
        if piece.attempt != attempt and rest:
            yield rest.decode("utf-8", "replace")
            rest = b""
        attempt = piece.attempt
        *whole, rest = (rest + piece.data).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


def command_of(build: Build, wanted: int | str) -> CommandStatus:
    """The build's command with this number, from 1, or name; steps that the node added have a name
    only. Raises NotFound.
    """
    own = [command for command in build.commands if not command.added]
    if isinstance(wanted, int) or (wanted.isascii() and wanted.isdigit()):
        if 1 <= int(wanted) <= len(own):
            return own[int(wanted) - 1]
        raise NotFound(
            f"the build has no command {wanted}",
            field="command",
            expected=f"a number from 1 to {len(own)}, or a name",
        )
    for command in build.commands:
        if command.name == wanted:
            return command
    names = ", ".join(repr(command.name) for command in build.commands)
    raise NotFound(
        f"the build has no command {wanted[:80]!r}", field="command", expected=f"one of: {names}"
    )


def _behind(position: Position, data: bytes) -> Position:
    return Position(position.attempt, position.offset + len(data))


@asynccontextmanager
async def _opened(
    pool: BuildService,
    build_id: str,
    position: Position,
    *,
    limit: int | None = None,
    follow: bool = False,
) -> AsyncIterator[OpenLog]:
    opened = await pool.open_log(LOCAL, build_id, position, limit=limit, follow=follow)
    try:
        yield opened
    finally:
        await opened.stream.close()

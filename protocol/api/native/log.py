"""A build's log: its bytes as the commands wrote them, whole or in part, or as events while it is
written.

The bytes are the commands' own, whatever they are; they are called `text/plain; charset=utf-8`,
which is what they mostly are, and what makes a browser show them instead of saving them. As events
they are text: what is no UTF-8 is a replacement character there.
"""

import codecs
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.content import asked_range, pump
from protocol.api.native.log_parts import command_of, open_command, span_of
from protocol.api.negotiation import PLAIN, SSE, preferred
from protocol.api.operation import Answer, Argument, Operation, PositionText, Truth, Whole
from protocol.api.route import ID, Route
from protocol.api.sse import EventStream
from protocol.errors import Conflict, Invalid, Unavailable, Unsatisfiable
from protocol.model.build import Build, Position, State
from protocol.ports.service import ByteRange, OpenLog
from protocol.transfer.streams import Slice

BATCH = 64 << 10
"""Bytes of a log that one event has at most."""
_AGAIN = 2.0  # seconds after which a node that does not answer is asked again


class Asked(Struct, frozen=True):
    """What part of a log is wanted, and how."""

    position: Position
    last: Position | None  # of the last event that the client has
    command: int | None
    limit: int | None
    follow: bool


class Log(Handler):
    """The log of a build's newest attempt."""

    PRODUCES: ClassVar[tuple[str, ...]] = ()

    async def get(self, build_id: str) -> None:
        """The bytes from `position` (attempt:offset), `limit` at most, only those of `command`,
        following with `follow=1`; or a byte range; or, for who accepts it, an event stream.

        The headers Log-Attempt and Log-Offset say what the first byte is.
        """
        asked = self._asked()
        if preferred(self.request.headers.get("Accept", ""), (PLAIN, SSE)) == SSE:
            await LogEvents(self, build_id, asked).send()
            return
        part = None if self._is_positioned() else asked_range(self.request)
        if part is not None and await self._send_range(build_id, asked, part):
            return
        opening = self.open(build_id, asked)
        self._begin(await (self.unless_gone(opening) if asked.follow else opening))
        await self._send()

    async def open(self, build_id: str, asked: Asked) -> OpenLog:
        """What is asked for of the log. Raises NotFound, Unavailable."""
        opening: Callable[..., Awaitable[OpenLog]] = self.service.open_log
        if asked.command is not None:
            opening = partial(open_command, self.service, index=asked.command)
        return await opening(
            self.caller, build_id, position=asked.position, limit=asked.limit, follow=asked.follow
        )

    async def _send_range(self, build_id: str, asked: Asked, part: ByteRange) -> bool:
        """Answer with a byte range; not where the log still grows and the range has no end."""
        build = await self.service.get(self.caller, build_id)
        span = span_of(build, asked.command)
        size = span.end - span.start
        if not span.ended and (part.end is None or part.start < 0):
            return False
        found = part.within(size)
        if found is None:
            raise Unsatisfiable(
                f"the log has {size} bytes" + ("" if span.ended else " so far"),
                size=size,
                field="Range",
                expected=f"bytes within 0-{max(0, size - 1)}",
            )
        start, end = found
        position = Position(build.attempt, span.start + start)
        opened = await self.service.open_log(self.caller, build_id, position, limit=end - start)
        if (opened.attempt, opened.start) != (position.attempt, position.offset):
            await opened.stream.close()
            raise Conflict("another attempt took the place of this one; ask again", field="Range")
        self.set_status(206)
        self.set_header("Content-Length", str(end - start))
        self.set_header("Content-Range", f"bytes {start}-{end - 1}/{size if span.ended else '*'}")
        stream = Slice(opened.stream, 0, end - start, end - start)
        self._begin(OpenLog(opened.attempt, opened.start, stream))
        await self._send()
        return True

    def _begin(self, opened: OpenLog) -> None:
        self.set_header("Content-Type", f"{PLAIN}; charset=utf-8")
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("Vary", "Accept")
        if opened.length is not None:
            self.set_header("Content-Length", str(opened.length))
        self.set_header("Log-Attempt", str(opened.attempt))
        self.set_header("Log-Offset", str(opened.start))
        self._opened = opened

    async def _send(self) -> None:
        stream = self._opened.stream
        try:
            await self.flush()
            await pump(self, stream)
            self.finish()
        finally:
            await stream.close()

    def _is_positioned(self) -> bool:
        """Whether arguments say what part is wanted: a range says it otherwise."""
        return bool({"position", "follow", "limit"} & self.request.query_arguments.keys())

    def _asked(self) -> Asked:
        last = self.request.headers.get("Last-Event-ID", "")
        return Asked(
            position=position_of(self.get_query_argument("position", "0:0"), "position"),
            last=position_of(last, "Last-Event-ID") if last else None,
            command=self.whole("command", high=10_000),
            limit=self.whole("limit"),
            follow=self.truth("follow"),
        )


class LogEvents:
    """A log as events: each has some text, and as its id the position behind it."""

    def __init__(self, handler: Log, build_id: str, asked: Asked) -> None:
        self._handler = handler
        self._id = build_id
        self._command = asked.command
        self._position = asked.last or asked.position
        self._stream = EventStream(handler)

    async def send(self) -> None:
        """Until the build has stopped, or the command that is asked for. Raises NotFound."""
        build = await self._build()
        span_of(build, self._command)
        await self._stream.begin()
        while True:
            over = self._is_over(build)
            told = await self._send_attempt()
            if over:
                await self._send_end(build, told)
                break
            build = await self._stream.until(self._build(build.revision, _AGAIN))
        self._handler.finish()

    async def _send_attempt(self) -> str:
        """Send what the newest attempt's log has beyond our position, until its end. Why that did
        not go well, where its node does not answer or it broke off.
        """
        asked = Asked(self._position, None, self._command, None, True)
        try:
            opened = await self._stream.until(self._handler.open(self._id, asked))
        except Unavailable as error:
            return error.detail
        try:
            if self._position.attempt not in (0, opened.attempt):
                begin = str(Position(opened.attempt, opened.start))
                self._stream.put("attempt", {"attempt": opened.attempt}, begin)
            self._position = Position(opened.attempt, opened.start)
            await self._send_text(opened)
        except Unavailable as error:
            return error.detail
        finally:
            await opened.stream.close()
        return ""

    async def _send_text(self, opened: OpenLog) -> None:
        """What is not whole yet of a character at the end waits for its rest. Raises
        Unavailable.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces, offset = aiter(opened.stream), opened.start
        while True:
            piece = await self._stream.until(anext(pieces, None))
            for place in range(0, len(piece), BATCH) if piece is not None else (0,):
                part = b"" if piece is None else piece[place : place + BATCH]
                offset += len(part)
                text = decoder.decode(part, final=piece is None)
                await self._send_batch(text, opened.attempt, offset - len(decoder.getstate()[0]))
            if piece is None:
                return

    async def _send_batch(self, text: str, attempt: int, behind: int) -> None:
        if text:
            self._position = Position(attempt, behind)
            await self._stream.send("", text, str(self._position))

    async def _build(self, after: int | None = None, wait: float = 0) -> Build:
        handler = self._handler
        return await handler.service.get(handler.caller, self._id, after=after, wait=wait)

    def _is_over(self, build: Build) -> bool:
        if self._command is None or build.state is State.STOPPED:
            return build.state is State.STOPPED
        command = command_of(build, self._command)
        return command.exit_code is not None

    async def _send_end(self, build: Build, problem: str) -> None:
        """The last event; `problem`: why this is not the whole log."""
        said: dict[str, object] = {
            "status": build.state.value,
            "result": build.result.value if build.result is not None else None,
            "reason": build.reason,
        }
        if self._command is not None:
            said["exit_code"] = command_of(build, self._command).exit_code
        if problem:
            said["problem"] = problem
        await self._stream.send("end", said, str(self._position))


def position_of(text: str, field: str) -> Position:
    """A place in a log. Raises Invalid."""
    try:
        return Position.parse(text)
    except ValueError as error:
        raise Invalid(
            f"{field} is {text[:40]!r}", field=field, expected="ATTEMPT:OFFSET"
        ) from error


_HEADERS = {
    "Log-Attempt": "which attempt's log this is",
    "Log-Offset": "where in it the first byte is",
}

ROUTES = (
    Route(
        f"/api/v1/builds/{ID}/log",
        Log,
        {"GET": Permission.READ},
        operations={
            "GET": Operation(
                "The log\nIts bytes as the commands wrote them. As events where that is accepted:"
                " text, with the position behind it as id; `attempt` where another one took its"
                " place, `end` with the result.",
                {
                    200: Answer("the bytes, or events", None, (PLAIN, SSE), _HEADERS),
                    206: Answer("the range that Range says", None, (PLAIN,), _HEADERS),
                },
                (
                    Argument("position", PositionText, "where to begin: ATTEMPT:OFFSET"),
                    Argument("limit", Whole, "bytes at most"),
                    Argument(
                        "command",
                        Annotated[int, Meta(ge=0, le=10_000)],
                        "only what the command of this index wrote, from 0",
                    ),
                    Argument("follow", Truth, "go on until the attempt ends, or the command"),
                    Argument("Range", str, "a range of bytes", "header"),
                    Argument("Last-Event-ID", PositionText, "of the last event", "header"),
                ),
                errors=(416, 502),
            )
        },
    ),
)

"""Server-Sent Events, as browsers' EventSource and curl read them."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from protocol import wire
from protocol.api.base import Handler
from protocol.api.negotiation import SSE

T = TypeVar("T")

PING = 15.0
"""Seconds without an event after which a comment is sent: neither side nor anything between them
takes the connection for dead.
"""


class EventStream:
    """An answer that goes on for as long as the client listens."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def begin(self) -> None:
        """Send the head."""
        self._handler.set_header("Content-Type", SSE)
        self._handler.set_header("X-Accel-Buffering", "no")
        await self._handler.flush()

    async def send(self, event: str, data: Any, id: str = "") -> None:
        """An event of this name; empty: of the usual one. Returns when the client's side has room
        for more.
        """
        self.put(event, data, id)
        await self.flush()

    def put(self, event: str, data: Any, id: str = "") -> None:
        """The same, to go out with the next that is sent."""
        lines = [f"id: {id}"] if id else []
        lines += [f"event: {event}"] if event else []
        lines.append(f"data: {wire.encode(data).decode()}")
        self._handler.write("\n".join(lines) + "\n\n")

    async def flush(self) -> None:
        """Send what was put; returns when the client's side has room for more. Raises
        StreamClosedError where it hung up.
        """
        await self.until(self._handler.flush())

    async def until(self, awaitable: Awaitable[T]) -> T:
        """The awaitable's value, with pings meanwhile; where the client hangs up first it is
        cancelled. Raises StreamClosedError.
        """
        return await self._handler.unless_gone(awaitable, every=PING, meanwhile=self._ping)

    def _ping(self) -> None:
        self._handler.write(": ping\n\n")
        self._handler.flush()

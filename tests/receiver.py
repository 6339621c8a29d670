"""A receiver of notices on loopback: a real server that keeps what it is sent, and answers as it is
told to.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from msgspec import Struct


class Got(Struct, frozen=True):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def event(self) -> tuple[str, str, int]:
        """Where it came, the state it tells of, and its number."""
        return self.path, self.said["status"], self.said["event"]


Answer = Callable[[Got], web.StreamResponse]


class Receiver:
    """What came, in order. `answer` says what each request gets; `open` lets answers go."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answer: Answer = lambda got: web.Response()
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""
        self._came = asyncio.Event()

    async def until(
        self, sight: Callable[[list[Got]], bool], path: str = "", seconds: float = 20
    ) -> list[Got]:
        """What came to this path (all paths), as soon as it looks like that."""
        async with asyncio.timeout(seconds):
            while not sight(found := [one for one in self.got if path in ("", one.path)]):
                self._came.clear()
                await self._came.wait()
        return found

    async def count(self, number: int, path: str = "") -> list[Got]:
        """What came, as soon as it is so many."""
        return await self.until(lambda got: len(got) >= number, path)

    async def stopped(self, path: str = "") -> list[Got]:
        """What came, as soon as the build's end was among it."""
        return await self.until(
            lambda got: any(one.said["status"] == "stopped" for one in got), path
        )

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Called by aiohttp."""
        body = await request.read()
        got = Got(request.method, request.path, dict(request.headers), body)
        self.got.append(got)
        self._came.set()
        await self.open.wait()
        return self.answer(got)


@asynccontextmanager
async def a_receiver() -> AsyncIterator[Receiver]:
    """One that takes everything."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()

"""Asking a pool: the connection, made when it is needed, and asking again while nobody answers."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar, cast
from urllib.parse import urlsplit

from imagepool.client.credentials import token_of
from imagepool.client.finding import URL, find_scheduler
from imagepool.client.trying import Trying
from protocol.errors import Busy, Invalid, Unavailable
from protocol.model.checks import check_url
from protocol.ports.service import BuildService, Caller
from protocol.program.settings import is_loopback
from protocol.remote.client import HttpService

T = TypeVar("T")


class Asking:
    """What `AsyncClient` stands on."""

    def __init__(
        self, url: str = "", *, owner: str = "", persistence: float = 30.0, token: str = ""
    ) -> None:
        """Raises Invalid where the URL is none, or the token is none that is to go there."""
        given = url or os.environ.get(URL, "")
        if given:
            check_url(given, "url" if url else URL)
        self.url = given.rstrip("/")
        self._named = bool(given)
        self._token = token_of(token, named=self._named)
        self._caller = Caller(owner=owner) if owner else None
        self._persistence = persistence
        self._service: HttpService | None = None
        self._finding = asyncio.Lock()
        self._known = False  # whether it has answered

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._service is not None:
            await self._service.close()

    async def _pool(self) -> BuildService:
        return cast(BuildService, await self._connected())

    async def _connected(self) -> HttpService:
        async with self._finding:
            if self._service is None:
                self.url = self.url or await find_scheduler()
                self._service = HttpService(self.url, caller=self._caller, token=self._token)
            return self._service

    async def _check_known(self, what: str) -> None:
        """Raises Invalid where nobody said where the pool is, and what mDNS found is not of this
        machine: whoever answers first would have `what`, or have us believe it.
        """
        if self._named:
            return
        await self._connected()
        if not is_loopback(urlsplit(self.url).hostname or ""):
            raise Invalid(
                f"{what} is not for whoever mDNS finds, which is {self.url}",
                field="url",
                expected=f"the URL that it is for, by --url or {URL}",
            )

    async def _once(self, verb: Callable[[BuildService], Awaitable[T]]) -> T:
        answer = await verb(await self._pool())
        self._known = True
        return answer

    async def _persisting(self, verb: Callable[[BuildService], Awaitable[T]]) -> T:
        """The verb's answer, asked for again while nobody answers."""
        trying = self._trying()
        while True:
            try:
                return await self._once(verb)
            except (Unavailable, Busy) as error:
                await trying.after(error)

    async def _scheduler(self, verb: Callable[[HttpService], Awaitable[T]]) -> T:
        service = await self._connected()
        return await self._persisting(lambda _: verb(service))

    def _trying(self) -> Trying:
        return Trying(self._persistence, known=self._known)

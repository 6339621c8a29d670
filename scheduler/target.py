"""One program that may be polled: where it may be, and how to speak to it there."""

import asyncio
from collections.abc import Callable

from protocol.client import HttpService
from scheduler.core.roster import Entry


class Target:
    """One program: where it may be, how to speak to it there, and the task that polls it."""

    def __init__(
        self, urls: tuple[str, ...], entry: Entry, connect: Callable[[str], HttpService]
    ) -> None:
        self.urls = urls
        self.entry = entry
        self.task: asyncio.Task[None] | None = None
        self.goodbye = False  # one was heard: if it does not answer now, it has left
        self.departed = False  # off the roster, kept while builds of ours may be on it
        self._connect = connect
        self._clients: dict[str, HttpService] = {}  # by URL; downloads may still run over any

    @property
    def client(self) -> HttpService:
        """How to speak to it where it answered last."""
        return self.client_at(self.entry.url)

    def client_at(self, url: str) -> HttpService:
        """How to speak to it there."""
        if url not in self._clients:
            self._clients[url] = self._connect(url)
        return self._clients[url]

    async def close(self) -> None:
        """Stop polling and close every connection."""
        if self.task is not None:
            self.task.cancel()
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

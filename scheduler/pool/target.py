"""One program that may be polled: where it may be, and how to speak to it there."""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from protocol.errors import Unreachable
from protocol.model.build import Build, Position
from protocol.model.messages import Acknowledgement, Report
from protocol.model.request import BuildRequest, Forward, Secrets
from protocol.ports.service import ByteRange, ByteStream, Caller, OpenArtifact, OpenLog
from scheduler.core.roster import Entry

_SAID = {"mdns", "registered"}
"""Ways in which anybody can say that there is a node."""


class NodeClient(Protocol):
    """What the scheduler asks of a node: a part of `BuildService`, which says what each verb
    means.
    """

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
    ) -> Build:
        """See BuildService."""

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """See BuildService."""

    async def open_log(
        self,
        caller: Caller,
        build_id: str,
        position: Position,
        *,
        limit: int | None = None,
        follow: bool = False,
    ) -> OpenLog:
        """See BuildService."""

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService."""

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """See BuildService."""

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """See Blobs."""

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """See Blobs."""

    async def close(self) -> None:
        """Close the connections."""


class Target:
    """One program: where it may be, how to speak to it there, and the task that polls it."""

    def __init__(
        self, urls: tuple[str, ...], entry: Entry, connect: Callable[[str, str], NodeClient]
    ) -> None:
        """`connect`: a client for a URL and the id of the program that must answer there, empty
        where nobody knows it yet. Raises Unproven.
        """
        self.urls = urls
        self.entry = entry
        self.proven = entry.id  # who must answer; empty: whoever does, and then nobody else
        self.task: asyncio.Task[None] | None = None
        self.goodbye = False  # one was heard: if it does not answer now, it has left
        self.departed = False  # off the roster, kept while builds of ours may be on it
        self._connect = connect
        self._closed = False
        self._clients: dict[str, NodeClient] = {}  # by URL; downloads may still run over any

    @property
    def client(self) -> NodeClient:
        """How to speak to it where it answered last."""
        return self.client_at(self.entry.url)

    @property
    def is_stranger(self) -> bool:
        """Whether only the network says that there is somebody, who never answered."""
        return self.entry.report is None and not {*self.entry.found} - _SAID

    def client_at(self, url: str) -> NodeClient:
        """How to speak to it there. Raises Unproven, Unreachable."""
        if self._closed:  # who began to ask before that would leave a connection open
            raise Unreachable(f"{url} is not asked any more")
        if url not in self._clients:
            self._clients[url] = self._connect(url, self.proven)
        return self._clients[url]

    async def expect(self, program: str) -> None:
        """From now on the program of this id must answer, empty: any node."""
        self.proven = program
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def close(self) -> None:
        """Stop polling and close every connection."""
        self._closed = True
        if self.task is not None:
            self.task.cancel()
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

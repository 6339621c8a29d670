"""A client that does not give up: it repeats a create with its Idempotency-Key, and every other
question, until somebody answers.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

from protocol.errors import Busy, Unavailable
from protocol.model.build import Build, State
from protocol.model.messages import BuildQuery, Roster
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL, Caller
from protocol.remote.client import HttpService

T = TypeVar("T")

_AGAIN = 0.1  # seconds between tries
_PATIENCE = 2.0  # seconds until a silent program is asked again


class Client:
    """One owner's client of a program; a context manager."""

    def __init__(self, url: str, owner: str = "", seconds: float = 60.0) -> None:
        """`seconds`: after which a program that does not answer fails the test."""
        caller = Caller(owner=owner) if owner else None
        self.service = HttpService(url, caller=caller, patience=_PATIENCE)
        self.tries = 0  # of creates
        self._seconds = seconds

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.close()

    async def heard(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to this question. Raises what is no reason to ask again."""
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return await ask()
            except (Unavailable, Busy):
                assert time.monotonic() < deadline, f"nobody answers at {self.service.url}"
                await asyncio.sleep(_AGAIN)

    async def create(self, request: BuildRequest, key: str) -> Build:
        """The build, once it is acknowledged."""

        async def ask() -> Build:
            self.tries += 1
            return await self.service.submit(LOCAL, request, key=key)

        return await self.heard(ask)

    async def get(self, build_id: str) -> Build:
        """The build as it is."""
        return await self.heard(partial(self.service.get, LOCAL, build_id))

    async def until(
        self, build_id: str, sight: Callable[[Build], bool], seconds: float = 30.0
    ) -> Build:
        """The build as soon as it looks like that."""
        build = await self.get(build_id)
        async with asyncio.timeout(seconds):
            while not sight(build):
                held = partial(self.service.get, LOCAL, build_id, after=build.revision, wait=5)
                build = await self.heard(held)
        return build

    async def ended(self, build_id: str, seconds: float = 30.0) -> Build:
        """The build when it has stopped."""
        return await self.until(build_id, lambda build: build.state is State.STOPPED, seconds)

    async def all(self) -> dict[str, Build]:
        """Every build that the program knows."""
        found: dict[str, Build] = {}
        cursor = ""
        while True:
            query = BuildQuery(limit=1000, cursor=cursor)
            page = await self.heard(partial(self.service.list, LOCAL, query))
            found |= {build.id: build for build in page.builds}
            if not (cursor := page.next):
                return found

    async def watch(
        self,
        until: Callable[[dict[str, Build]], bool],
        see: Callable[[Build], None] = lambda build: None,
        seconds: float = 60.0,
    ) -> dict[str, Build]:
        """All builds, followed by their changes until they look like that; `see` is told of each.
        A program that starts again tells them anew.
        """
        found: dict[str, Build] = {}
        cursor = ""
        deadline = time.monotonic() + seconds
        while not until(found):
            held = partial(self.service.changes, LOCAL, cursor=cursor, wait=1)
            changes = await self.heard(held)
            cursor = changes.cursor
            for build in changes.builds:
                found[build.id] = build
                see(build)
            assert time.monotonic() < deadline, _in_words(found, seconds)
        return found

    async def all_ended(self, ids: Collection[str], seconds: float = 60.0) -> dict[str, Build]:
        """These builds, when all have stopped."""
        found = await self.watch(lambda found: have_ended(found, ids), seconds=seconds)
        return {key: found[key] for key in ids}

    async def roster_until(self, sight: Callable[[Roster], bool], seconds: float = 30.0) -> Roster:
        """A scheduler's roster as soon as it looks like that."""
        deadline = time.monotonic() + seconds
        while True:
            # Held until anything changes; what time alone brings is seen after 0.1 s.
            token = (await self.heard(partial(self.service.status, LOCAL))).token
            roster = await self.heard(self.service.roster)
            if sight(roster):
                return roster
            assert time.monotonic() < deadline, f"after {seconds:g} s the roster is {roster}"
            await self.heard(partial(self.service.status, LOCAL, after=token, wait=0.1))

    async def has_ready(self, count: int, seconds: float = 30.0) -> Roster:
        """The roster when so many nodes are ready."""
        return await self.roster_until(
            lambda roster: sum(node.state == "ready" for node in roster.nodes) == count, seconds
        )

    async def cancel(self, build_id: str) -> Build:
        """The build, ended."""
        return await self.heard(partial(self.service.cancel, LOCAL, build_id))

    async def digest(self, build: Build) -> tuple[str, str]:
        """The digest that the build's artifact is said to have, and that of what is downloaded."""
        (artifact,) = build.artifacts
        opened = await self.heard(
            partial(self.service.open_artifact, LOCAL, build.id, artifact.name)
        )
        digest = hashlib.sha256()
        try:
            async for piece in opened.stream:
                digest.update(piece)
        finally:
            await opened.stream.close()
        return artifact.sha256, digest.hexdigest()


def have_ended(found: dict[str, Build], ids: Collection[str]) -> bool:
    """Whether all of these are among them, and have stopped."""
    return all(key in found and found[key].state is State.STOPPED for key in ids)


def _in_words(found: dict[str, Build], seconds: float) -> str:
    open_ones = [
        f"{build.id} {build.stage.value} attempt {build.attempt} on {build.node}: {build.reason}"
        for build in found.values()
        if build.state is not State.STOPPED
    ]
    return f"after {seconds:g} s these have not ended:\n" + "\n".join(open_ones[:20])

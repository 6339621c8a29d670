"""`AsyncClient`: a pool as a Python program sees it, over `HttpService`.

What may be repeated is repeated by itself while the pool does not answer: reads, and creates, which
carry an idempotency key. To add a verb: a method here, and its line in `plain.py`.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import msgspec

from imagepool.client import downloads, logs, orders, watching
from imagepool.client.events import Event, LogPiece
from imagepool.client.orders import Wanted
from imagepool.client.people import AskingPeople
from protocol.model.build import Artifact, Build, Position, State
from protocol.model.messages import (
    AuthorityState,
    BuildPage,
    BuildQuery,
    Explanation,
    Invitation,
    Report,
    Roster,
    RosterEntry,
)
from protocol.model.recipe import InputFile, UploadedContent
from protocol.model.request import Secrets
from protocol.ports.blobs import Blobs
from protocol.ports.service import LOCAL

_HOLD = 30.0  # seconds that a question may be held while nothing changes
_ALL = BuildQuery(limit=200)  # so many at once
_REST = 5.0  # seconds that the end of a stopped build's log is waited for


class AsyncClient(AskingPeople):
    """A pool, or a node, at a URL; without one at $IMAGEPOOL_URL, else where mDNS finds a
    scheduler. An asynchronous context manager.

    `owner`: whose builds these are. `persistence`: the seconds for which what may be repeated is
    repeated while nobody answers; an address where no pool ever answered, and that refuses the
    connection or answers as no pool does, is not waited for. `token`: what proves who asks, else
    $IMAGEPOOL_TOKEN, else the file ~/.config/imagepool/token; it is sent to a URL that was given,
    never to what mDNS finds, and secrets to that only on this machine. Raises Invalid where the URL
    is none.

    Every method raises Unavailable where the pool does not answer, and Invalid, Denied, NotFound,
    Conflict or Busy as it answers.
    """

    # Builds

    async def submit(
        self,
        wanted: Wanted,
        *,
        secrets: Secrets | None = None,
        files: Mapping[str, Path | bytes] | None = None,
        key: str = "",
    ) -> Build:
        """Have it built; the pool has it on disk when this returns. `files`: further inputs, by
        name, from this machine. `key`: an idempotency key of your own; without one a new one, under
        which the create is repeated until it is answered.
        """
        order = orders.order_of(wanted, secrets)
        if order.secrets:
            await self._check_known("a secret")
        order = orders.with_inputs(order, await self._inputs(files or {}))
        used = key or uuid.uuid4().hex
        return await self._persisting(
            lambda pool: pool.submit(LOCAL, order.request, key=used, secrets=order.secrets)
        )

    async def preview(
        self, wanted: Wanted, *, files: Mapping[str, Path | bytes] | None = None
    ) -> Explanation:
        """What would become of it: where it would be placed, or why it would wait. Nothing is
        accepted, and `files` are looked at, not sent.
        """
        order = orders.order_of(wanted)
        order = orders.with_inputs(order, await asyncio.to_thread(orders.stand_ins, files or {}))
        return await self._persisting(lambda pool: pool.preview(LOCAL, order.request))

    async def get(self, build_id: str, *, after: int | None = None, wait: float = 0) -> Build:
        """The build as it is now; held up to `wait` seconds while its revision is `after`."""
        return await self._persisting(
            lambda pool: pool.get(LOCAL, build_id, after=after, wait=wait)
        )

    async def wait(self, build_id: str, *, timeout: float | None = None) -> Build:
        """The build when it has stopped. Raises TimeoutError after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        build = await self.get(build_id)
        while build.state is not State.STOPPED:
            left = _HOLD if deadline is None else min(_HOLD, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"build {build_id} is {build.state.value} after {timeout:g} s")
            build = await self.get(build_id, after=build.revision, wait=left)
        return build

    async def watch(self, build_id: str) -> AsyncGenerator[Event, None]:
        """Each change of the build (`Changed`) and its log (`LogPiece`); the last event is the
        stopped build. Goes on where a connection was cut.
        """
        build = await self.get(build_id)
        trying = self._trying()
        log = logs.whole(await self._pool(), build, self._getting(build_id), Position(), trying)
        watched = watching.events(build, self._getting(build_id), log, lambda: trying.hurry(_REST))
        async with aclosing(watched) as happening:
            async for event in happening:
                yield event

    async def log(
        self,
        build_id: str,
        *,
        position: Position | None = None,
        follow: bool = False,
        command: int | str | None = None,
    ) -> AsyncGenerator[LogPiece, None]:
        """The log from a position on, as pieces that say where they belong; with `follow` until
        the build has stopped. `command`: only what this one printed, by its number from 1 or its
        name. Goes on, byte for byte, where a connection was cut.
        """
        build, pool, trying = await self.get(build_id), await self._pool(), self._trying()
        getting, start = self._getting(build_id), position or Position()
        if command is not None:
            reading = logs.of_command(pool, build, getting, command, trying, follow=follow)
        elif follow:
            reading = logs.whole(pool, build, getting, start, trying)
        else:
            reading = logs.so_far(pool, build_id, start, trying)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                yield piece

    async def lines(
        self, build_id: str, *, follow: bool = False, command: int | str | None = None
    ) -> AsyncGenerator[str, None]:
        """The log as lines of text without their ends; what is not UTF-8 is replaced."""
        async with aclosing(self.log(build_id, follow=follow, command=command)) as pieces:
            async for line in logs.lines(pieces):
                yield line

    async def artifacts(self, build_id: str) -> tuple[Artifact, ...]:
        """What the build made."""
        return await self._persisting(lambda pool: pool.artifacts(LOCAL, build_id))

    async def artifact(self, build_id: str, name: str | None = None) -> Artifact:
        """The artifact of this name, or the only one. Raises NotFound, Conflict (several)."""
        build = await self.get(build_id)
        why = f"the build is {build.state.value}" + (f": {build.reason}" if build.reason else "")
        return downloads.chosen(build.artifacts, name, why)

    async def download(
        self,
        build_id: str,
        target: Path | str,
        *,
        name: str | None = None,
        progress: Callable[[int, int], None] = downloads.silent,
    ) -> Artifact:
        """Write what the build made to the file `target`, whole and with the right digest, or not
        at all. What broke off is gone on with, also by a later call. An artifact that is still
        being made is waited for.

        `name`: which, where there are several; `progress` is told bytes there and bytes in all.
        Raises NotFound, Conflict (a wrong digest; another download writes the file now).
        """
        artifact = await self.artifact(build_id, name)
        if artifact.growing:
            await self.wait(build_id)
            artifact = await self.artifact(build_id, artifact.name)
        pool = await self._pool()
        await downloads.save(pool, build_id, artifact, Path(target), progress, self._trying())
        return artifact

    async def read(
        self, build_id: str, *, name: str | None = None, start: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """An artifact's bytes, from `start` on. One that is still being made is read while it is,
        from its beginning.
        """
        artifact = await self.artifact(build_id, name)
        pool = await self._pool()
        if artifact.growing:
            reading = downloads.growing(pool, build_id, artifact.name)
        else:
            reading = downloads.pieces(pool, build_id, artifact, start, self._trying())
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                yield piece

    async def page(self, query: BuildQuery) -> BuildPage:
        """Some builds, and where the next page begins."""
        return await self._persisting(lambda pool: pool.list(LOCAL, query))

    async def builds(self, query: BuildQuery = _ALL) -> AsyncGenerator[Build, None]:
        """All builds that the query asks for, page after page; `limit` is that of a page."""
        while True:
            page = await self.page(query)
            for build in page.builds:
                yield build
            if not page.next:
                return
            query = msgspec.structs.replace(query, cursor=page.next)

    async def explain(self, build_id: str) -> Explanation:
        """Why the build waits, or what happened to it."""
        return await self._persisting(lambda pool: pool.explain(LOCAL, build_id))

    async def cancel(self, build_id: str) -> Build:
        """End a build; one that has stopped stays as it is."""
        return await self._persisting(lambda pool: pool.cancel(LOCAL, build_id))

    async def retry(self, build_id: str, *, secrets: Secrets | None = None, key: str = "") -> Build:
        """A new build of a stopped build's request. Its secrets are not kept: give them anew."""
        if secrets:
            await self._check_known("a secret")
        used = key or uuid.uuid4().hex
        return await self._persisting(
            lambda pool: pool.retry(LOCAL, build_id, key=used, secrets=secrets)
        )

    async def pin(self, build_id: str) -> Build:
        """Keep the build, its log and artifacts until it is unpinned."""
        return await self._persisting(lambda pool: pool.pin(LOCAL, build_id, True))

    async def unpin(self, build_id: str) -> Build:
        """Keep it no longer than others."""
        return await self._persisting(lambda pool: pool.pin(LOCAL, build_id, False))

    async def delete(self, build_id: str) -> None:
        """Forget a stopped build, its log and artifacts."""
        await self._once(lambda pool: pool.delete(LOCAL, build_id))

    async def upload(self, source: Path | bytes) -> UploadedContent:
        """Give the pool a file, or bytes, unless it has them; the content by which a recipe names
        them.
        """
        digest, size = await asyncio.to_thread(orders.digest_of, source)
        blobs = cast(Blobs, await self._pool())
        if await self._persisting(lambda _: blobs.missing(LOCAL, (digest,))):
            await self._persisting(
                lambda _: blobs.upload(
                    LOCAL, orders.SourceStream(source, size), sha256=digest, size=size
                )
            )
        return UploadedContent(digest)

    # The pool

    async def status(self, *, after: str | None = None, wait: float = 0) -> Report:
        """What the program at the URL states of itself; held up to `wait` seconds while its token
        is `after`.
        """
        return await self._persisting(lambda pool: pool.status(LOCAL, after=after, wait=wait))

    async def nodes(self) -> Roster:
        """Every node that the scheduler knows of."""
        return await self._scheduler(lambda pool: pool.roster())

    async def node(self, node: str) -> RosterEntry:
        """One of them, by name or id."""
        return await self._scheduler(lambda pool: pool.node(node))

    async def cordon(self, node: str, reason: str = "") -> None:
        """Give a node, by name or id, no new builds; what runs there goes on."""
        await self._scheduler(lambda pool: pool.cordon(node, reason))

    async def drain(self, node: str, reason: str = "") -> None:
        """The same, to be empty: its state is `drained` when nothing is on it any more."""
        await self._scheduler(lambda pool: pool.drain(node, reason))

    async def uncordon(self, node: str) -> None:
        """Give it builds again."""
        await self._scheduler(lambda pool: pool.uncordon(node))

    async def invitation(self, *, new: bool = False) -> Invitation:
        """What somebody pastes on another machine to bring it into the pool; `new`: with another
        token, the one before admits nobody any more.
        """
        await self._check_known("an invitation")
        return await self._scheduler(lambda pool: pool.invitation(new=new))

    async def admit(self, node: str) -> None:
        """Let a node in that waits for an admin's yes."""
        await self._scheduler(lambda pool: pool.admit(node))

    async def revoke(self, node: str, reason: str = "by an admin") -> None:
        """Put a node out of the pool, for good."""
        await self._scheduler(lambda pool: pool.revoke(node, reason))

    async def authority(self, step: str = "") -> AuthorityState:
        """The pool's certificate authority, after a step of replacing it: "begin" makes another
        one, "next" does not wait for members that are not ready.
        """
        return await self._scheduler(lambda pool: pool.authority(step))

    # Parts of these

    def _getting(self, build_id: str) -> logs.Getting:
        return lambda after, wait: self.get(build_id, after=after, wait=wait)

    async def _inputs(self, files: Mapping[str, Path | bytes]) -> tuple[InputFile, ...]:
        made: list[InputFile] = []
        for name, source in files.items():
            content: Any = await asyncio.to_thread(orders.text_of, source)
            content = content or await self.upload(source)
            made.append(InputFile(name, content, executable=orders.is_program(source)))
        return tuple(made)

"""Where the bytes are that a build takes from elsewhere, and how they get to its node: uploads from
our own folder, artifacts of earlier builds from the nodes that have them, passed on piece by piece.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

from protocol.errors import Invalid, NotFound, PoolError, Unavailable, Unreachable
from protocol.model.build import Build
from protocol.model.references import provided, uploaded
from protocol.model.request import BuildRequest, Reference, contents, uploads
from protocol.ports.service import LOCAL, ByteStream, Caller
from protocol.remote.exchange import STALL
from protocol.storage.blob_folder import BlobFolder
from scheduler.ledger import Ledger
from scheduler.pool.poller import Pool
from scheduler.pool.target import NodeClient

_HOLD = 1.0  # seconds until a source that failed is tried again; twice as long each time
_HOLD_LIMIT = 300.0  # seconds that this is at most
_PATIENCE = STALL / 2  # seconds for a piece of a source: it is blamed, not who waits for it
_AWAY = ("silent", "lost", "unanswered")  # states of nodes that are not asked


class SourceGone(Exception):
    """What the build needs is not kept any more."""


class SourceSilent(Exception):
    """Who has what the build needs does not answer."""


class Sources:
    """For use on the event loop."""

    def __init__(self, caller: Caller, pool: Pool, ledger: Ledger, blobs: BlobFolder) -> None:
        """`caller`: this scheduler, as nodes know it."""
        self.blobs = blobs
        self._caller = caller
        self._pool = pool
        self._ledger = ledger
        self._held: dict[str, tuple[float, float, str]] = {}  # build -> until, seconds, why

    async def accepted(self, request: BuildRequest, *, forwarded: bool = False) -> BuildRequest:
        """The request with all digests, whose uploads are here. `forwarded`: what a scheduler above
        sent before it need not be an artifact that we know. Raises Invalid, NotFound, Conflict.
        """
        sent = uploads(request) if forwarded else frozenset()
        missing = partial(self.blobs.missing, LOCAL)
        return await provided(request, self._ledger.get, missing, sent=sent, needed=uploaded)

    # Before a build is placed

    def why_not(self, build: Build) -> str:
        """Why what it needs cannot be had now; empty where it can, or nobody knows."""
        until, _, reason = self._held.get(build.id, (0.0, 0.0, ""))
        if time.monotonic() < until:
            return reason
        for reference in _references(build.request):
            source = self._source(reference)
            if source is None or source.node is None or self.blobs.path(reference.sha256 or ""):
                continue
            if why := self._why_away(source.node.id):
                return f"{_words(reference)} is on {source.node.name}, which {why}"
        return ""

    def hold(self, build: Build, reason: str) -> None:
        """A source failed: the build waits before it is tried again, longer each time."""
        _, seconds, _ = self._held.get(build.id, (0.0, _HOLD / 2, ""))
        seconds = min(2 * seconds, _HOLD_LIMIT)
        self._held[build.id] = (time.monotonic() + seconds, seconds, reason)

    def forget(self, build: Build) -> None:
        """Nothing need be remembered of a build that has stopped, or is on its way."""
        self._held.pop(build.id, None)

    def _source(self, reference: Reference) -> Build | None:
        known = reference.build in self._ledger
        return self._ledger.get(reference.build) if known else None

    def _why_away(self, node: str) -> str:
        for entry in self._pool.entries():
            if entry.program == node:
                state = self._pool.standing(entry).state
                if entry.error or state in _AWAY:
                    return f"does not answer: {entry.error or state}"
                return ""
        return "is not in the pool now"

    # On its way

    async def give(self, build: Build, node: NodeClient) -> None:
        """Have on the node all that the build needs. Raises SourceGone, SourceSilent, and for the
        node what `Blobs.upload` does: Unreachable where it does not answer, since no forward has
        left.
        """
        needed = uploads(build.request)
        try:
            missing = await node.missing(self._caller, needed) if needed else frozenset()
            for digest in sorted(missing & needed):
                await self._give_one(build.request, digest, node)
        except Unreachable:
            raise
        except Unavailable as error:
            raise Unreachable(error.detail) from error
        self.forget(build)

    async def _give_one(self, request: BuildRequest, digest: str, node: NodeClient) -> None:
        stream, size, source = await self._opened(request, digest)
        watched = _Watched(stream)
        try:
            await node.upload(self._caller, watched, sha256=digest, size=size)
        except PoolError as error:
            if watched.broke_off:
                raise SourceSilent(f"what it needs broke off: {watched.broke_off}") from error
            if isinstance(error, Invalid) and error.field == "sha256":
                self._blame(source, watched.digest.hexdigest(), digest)
                raise SourceGone(f"what it needs has changed: {error.detail}") from error
            raise
        finally:
            await stream.close()

    def _blame(self, source: Reference | None, served: str, digest: str) -> None:
        """Whoever received it says that it is something else; where that is so, its node is held
        back.
        """
        made = self._source(source) if source is not None else None
        if source is not None and made is not None and made.node is not None and served != digest:
            cause = f"it served other bytes than {_words(source)}"
            self._pool.held_back.failed(made, cause)
            self._pool.changed.touch()

    async def _opened(
        self, request: BuildRequest, digest: str
    ) -> tuple[ByteStream, int, Reference | None]:
        """A reader of the bytes with this digest, how many there are, and whose artifact they
        are.
        """
        if opened := await asyncio.to_thread(self.blobs.open, digest):
            return *opened, None
        reason = f"the upload {digest} is not kept any more"
        silent = ""
        for reference in _references(request):
            if reference.sha256 != digest:
                continue
            try:
                return *await self._opened_artifact(reference, digest), reference
            except NotFound as error:
                reason = f"{_words(reference)} is not kept any more: {error.detail}"
            except PoolError as error:
                silent = f"{_words(reference)} cannot be had: {error.detail}"
        if silent:
            raise SourceSilent(silent)
        raise SourceGone(reason)

    async def _opened_artifact(self, reference: Reference, digest: str) -> tuple[ByteStream, int]:
        client = self._pool.client_of(self._ledger.get(reference.build))
        opened = await client.open_artifact(self._caller, reference.build, reference.name)
        if opened.artifact.sha256 != digest:
            await opened.stream.close()
            raise NotFound("there is another one of this name now")
        return opened.stream, opened.artifact.size


class _Watched:
    """A stream of which is known whether it broke off itself, and what came."""

    def __init__(self, stream: ByteStream) -> None:
        self.broke_off = ""
        self.digest = hashlib.sha256()
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._stream)
        while (piece := await self._next(pieces)) is not None:
            self.digest.update(piece)
            yield piece

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await anext(pieces, None)
        except PoolError as error:
            self.broke_off = error.detail
            raise
        except TimeoutError as error:
            self.broke_off = f"nothing came for {_PATIENCE:g} s"
            raise Unavailable(self.broke_off) from error

    async def close(self) -> None:
        """Let go of it."""
        await self._stream.close()


def _references(request: BuildRequest) -> Iterator[Reference]:
    return (content for _, content in contents(request) if isinstance(content, Reference))


def _words(reference: Reference) -> str:
    return f"the artifact {reference.name} of build {reference.build}"

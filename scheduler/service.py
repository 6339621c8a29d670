"""The scheduler's build service: queues, places, forwards to nodes, relays what they give back."""

import logging
from collections.abc import Collection
from functools import partial

from msgspec.structs import replace

from protocol.builds.after import to_repeat
from protocol.concurrency.watch import Watch
from protocol.errors import PoolError
from protocol.model.build import (
    Artifact,
    Build,
    Position,
    Result,
    Stage,
    State,
    artifact_named,
)
from protocol.model.checks import check_request
from protocol.model.messages import (
    Acknowledgement,
    BuildPage,
    BuildQuery,
    Changes,
    Explanation,
    Report,
)
from protocol.model.record import reported
from protocol.model.request import BuildRequest, Forward, Secrets
from protocol.ports.service import ByteRange, ByteStream, Caller, OpenArtifact, OpenLog
from protocol.program.identity import Identity
from protocol.transfer.streams import no_log
from protocol.trust.owned import seen_by
from scheduler.accepting import Accepting
from scheduler.as_node import AsNode
from scheduler.config import SchedulerSettings
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.explaining import explain, preview
from scheduler.keeping import Keeping
from scheduler.viewing import Viewing

log = logging.getLogger(__name__)


class SchedulerService:
    """`BuildService` over the nodes of a pool."""

    def __init__(
        self, me: Identity, name: str, settings: SchedulerSettings, dispatcher: Dispatcher
    ) -> None:
        self._me = me
        self._name = name
        self._settings = settings
        self._dispatcher = dispatcher
        self._pool = dispatcher.pool
        self._ledger = dispatcher.ledger
        self._board = dispatcher.ledger.board
        self._changed = Watch(self._pool.changed, self._board.changed)
        self._caller = dispatcher.caller
        self._blobs = dispatcher.sources.blobs
        self.keeping = Keeping(settings, dispatcher)
        self._as_node = AsNode(me, name, dispatcher)
        supersede = partial(self.cancel, superseded=True)
        self._accepting = Accepting(me, settings, dispatcher, self._as_node, supersede)
        self._viewing = Viewing(self._board, self._pool.client_of, self._caller)

    @property
    def leaving(self) -> bool:
        """Whether it shuts down now."""
        return self._as_node.leaving

    def leave(self) -> None:
        """It shuts down: schedulers above us are told."""
        self._as_node.leaving = True
        self._pool.changed.touch()

    # Builds

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
    ) -> Build:
        """See BuildService."""
        return await self._accepting.submit(caller, request, forward, key, secrets)

    async def preview(self, caller: Caller, request: BuildRequest) -> Explanation:
        """See BuildService."""
        check_request(request, self._settings.images)
        self._accepting.check_addresses(request)
        request = await self._accepting.acceptable(request, caller.owner)
        return preview(self._dispatcher, request, caller.owner)

    async def retry(
        self, caller: Caller, build_id: str, key: str = "", secrets: Secrets | None = None
    ) -> Build:
        """See BuildService."""
        request = to_repeat(self._board.get(build_id), secrets)
        return await self._accepting.submit(caller, request, None, key, secrets, retry_of=build_id)

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""
        return await self._lasting(await self._board.held(build_id, after, wait))

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """See BuildService."""
        page = await self._board.page(query)
        for build in page.builds:
            await self._lasting(build)
        return page

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """See BuildService."""
        changes = await self._board.changes(cursor, wait, seen_by(caller))
        for build in changes.builds:
            await self._lasting(build)
        return changes

    async def _lasting(self, build: Build) -> Build:
        """The build; an end is on disk before anybody hears of it, or a restart would take it back.
        Raises Unavailable.
        """
        if build.stage is Stage.STOPPED:
            await self._ledger.saved(build.id)
        return build

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """See BuildService. The node's own word counts where it answers."""
        build, attempts = self._board.get(build_id), self._dispatcher.attempts
        asked = self._ledger.as_asked(build).attempt
        if build.stage is Stage.STOPPED or attempt not in (None, asked):
            return build
        if build.node is not None and (client := self._pool.client(build.node.id)):
            try:
                ended = await client.cancel(
                    self._caller, build_id, build.attempt, superseded=superseded
                )
                if not (superseded and ended.result is Result.LOST):  # which is none of its faults
                    attempts.follow(ended, build.node.id)
            except PoolError as error:
                log.info("cancelling %s on %s: %s", build_id, build.node.name, error.detail)
        build = self._board.get(build_id)
        if superseded:
            build = attempts.superseded(build, "another attempt took its place")
        else:
            build = attempts.cancelled(build, "it was cancelled")
        self._dispatcher.follower.tell_cancelled(build)
        await self._ledger.saved(build_id)
        return build

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        return explain(self._dispatcher, self._board.get(build_id))

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        return await self.keeping.pin(build_id, pinned)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        await self.keeping.delete(caller, build_id)

    # Logs and artifacts: relayed from the node, never kept

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
        build = self._board.get(build_id)
        while follow and build.state is State.WAITING:
            build = await self._board.held(build_id, build.revision, 60)
        outer = self._ledger.as_asked(build).attempt
        if build.node is None or build.state is State.WAITING:
            return no_log(outer)
        offset = position.offset if position.attempt in (0, outer) else 0
        opened = await self._viewing.open(build, offset, limit=limit, follow=follow)
        return replace(opened, attempt=outer)

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        return self._board.get(build_id).artifacts

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""
        if artifact_named(self._board.get(build_id).artifacts, name).growing:
            await self._ledger.saved(build_id)  # what was read while it grew is not tried again
        client = self._pool.client_of(self._board.get(build_id))
        return await client.open_artifact(self._caller, build_id, name, part)

    # Blobs

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """See Blobs."""
        return await self._blobs.missing(caller, digests)

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """See Blobs."""
        return await self._blobs.upload(caller, stream, sha256=sha256, size=size)

    # The scheduler itself

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService. To a scheduler above us we are one node: our nodes' free slots,
        summed.
        """
        if after == self._token and wait > 0:
            await self._changed.wait(self._changed.count, wait)
        told = reported(self._as_node.placed_by(caller), caller.store)
        return self._as_node.report(self._token, told)

    @property
    def _token(self) -> str:
        """Opaque to others: another boot or another count is another state."""
        return f"{self._me.boot}.{self._changed.count}"

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        for key, attempt in acknowledgement.attempts:
            build = self._board.get(key) if key in self._board else None
            if build is None or not caller.program or build.origin != caller.program:
                continue
            if self._ledger.as_asked(build).attempt == attempt:
                self._ledger.acknowledged(key, acknowledgement.store)
        self._changed.touch()

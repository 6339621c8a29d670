"""The scheduler's build service: queues, places, forwards to nodes, relays what they give back."""

import logging
import time
from secrets import token_bytes

from msgspec.structs import replace

from protocol.checks import check_request, check_secrets
from protocol.client import HttpService
from protocol.errors import Busy, Conflict, PoolError, Unavailable
from protocol.idempotency import check_same
from protocol.identity import Identity
from protocol.locks import Locks
from protocol.messages import (
    PATH_LIMIT,
    Acknowledgement,
    BuildPage,
    BuildQuery,
    Changes,
    Explanation,
    Report,
)
from protocol.model import (
    Artifact,
    Build,
    Position,
    Stage,
    State,
    artifact_named,
    build_id,
    new_build,
)
from protocol.record import reported
from protocol.request import BuildRequest, Forward, Secrets
from protocol.service import LOCAL, ByteRange, Caller, OpenArtifact, OpenLog
from protocol.streams import no_log
from protocol.watch import Watch
from scheduler.as_node import AsNode
from scheduler.config import SchedulerSettings
from scheduler.core.placement import in_words
from scheduler.dispatch import Dispatcher

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
        self._locks = Locks()  # one create at a time for a key, one forward for a build
        self._changed = Watch(self._pool.changed, self._board.changed)
        self._caller = dispatcher.caller
        self._as_node = AsNode(me, name, dispatcher)

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
        check_request(request, self._settings.images)
        check_secrets(request, secrets or {})
        if forward is not None:
            async with self._locks[forward.id]:
                return await self._from_above(request, forward, secrets)
        if not key:
            return await self._new(caller, request, "", secrets)
        await self._dispatcher.recovered.wait()  # a node may know the key, where our store is new
        async with self._locks[caller.owner, key]:
            known = self._ledger.made_with((caller.owner, key))
            if known is None:
                return await self._new(caller, request, key, secrets)
            check_same(known, request)
            return known

    async def _new(
        self, caller: Caller, request: BuildRequest, key: str, secrets: Secrets | None
    ) -> Build:
        if self._ledger.waiting >= self._settings.waiting_limit:
            raise Busy(
                f"{self._ledger.waiting} builds wait already",
                retry_after=round(min(600, self._dispatcher.estimate(1) or 30)) or 1,
            )
        now = time.time()
        identity = build_id(now, token_bytes(10))
        build = new_build(
            identity, request, origin=self._me.id, owner=caller.owner, now=now, key=key
        )
        await self._ledger.add(build, None, secrets)
        self._pool.changed.touch()
        return build

    async def _from_above(
        self, request: BuildRequest, forward: Forward, secrets: Secrets | None
    ) -> Build:
        """A scheduler uses us as its node: taken while a node is ready, refused otherwise, as a
        node does.
        """
        if self._me.id in forward.path or len(forward.path) > PATH_LIMIT:
            raise Conflict(
                "the build came by this scheduler before, or by too many",
                field="forward.path",
                expected=f"at most {PATH_LIMIT} schedulers, each once",
            )
        known = self._board.get(forward.id) if forward.id in self._board else None
        last = self._ledger.forward_of(forward.id)
        if known is not None and last is None and known.origin == forward.origin:
            return self._ledger.as_asked(self._ledger.replaced(known, forward))  # adopted before
        if known is not None:
            if last is None or last.origin != forward.origin or forward.attempt < last.attempt:
                raise Conflict("this build is here already", field="forward.attempt")
            if forward.attempt == last.attempt:
                return self._ledger.as_asked(known)
            known = await self.cancel(LOCAL, known.id)
        if reason := self._as_node.why_busy():
            raise Busy(f"{self._name} takes no build: {reason}", retry_after=1)
        build = new_build(
            forward.id,
            request,
            origin=forward.origin,
            owner=forward.owner,
            now=time.time(),
            attempt=known.attempt if known is not None else 0,
            key=forward.key,
        )
        if known is None:
            await self._ledger.add(build, forward, secrets)
        else:
            self._ledger.replaced(replace(build, revision=known.revision + 1), forward)
            await self._ledger.saved(build.id)
        self._pool.changed.touch()
        return self._ledger.as_asked(build)

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
        changes = await self._board.changes(cursor, wait)
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
        build = self._board.get(build_id)
        asked = self._ledger.as_asked(build).attempt
        if build.stage is Stage.STOPPED or attempt not in (None, asked):
            return build
        if build.node is not None and (client := self._pool.client(build.node.id)):
            try:
                ended = await client.cancel(self._caller, build_id, build.attempt)
                self._dispatcher.attempts.follow(ended, build.node.id)
            except PoolError as error:
                log.info("cancelling %s on %s: %s", build_id, build.node.name, error.detail)
        build = self._dispatcher.attempts.cancelled(self._board.get(build_id), "it was cancelled")
        self._dispatcher.follower.tell_cancelled(build)
        await self._ledger.saved(build_id)
        return build

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        build = self._board.get(build_id)
        if build.stage is not Stage.QUEUED:
            words = build.reason or self._dispatcher.why_still(build)
            return Explanation(build.id, build.state, words, history=build.history)
        choice = self._dispatcher.choice(build)
        place = self._dispatcher.place_in_queue(build_id)
        words = in_words(choice) if choice.node is None else "it is about to be placed"
        return Explanation(
            build.id,
            build.state,
            words,
            place,
            self._dispatcher.estimate(place) if place else None,
            choice.refusals,
            build.history,
        )

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
        opened = await self._node_of(build).open_log(
            self._caller, build_id, Position(build.attempt, offset), limit=limit, follow=follow
        )
        return OpenLog(outer, opened.start, opened.stream)

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        return self._board.get(build_id).artifacts

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""
        build = self._board.get(build_id)
        artifact_named(build.artifacts, name)
        return await self._node_of(build).open_artifact(self._caller, build_id, name, part)

    def _node_of(self, build: Build) -> HttpService:
        client = None if build.node is None else self._pool.client(build.node.id)
        if client is None:
            name = build.node.name if build.node else "none"
            raise Unavailable(f"the node that has it ({name}) is not in the pool now")
        return client

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

    async def forget_old(self) -> None:
        """Drop builds and keys that are older than the settings say."""
        now = time.time()
        self._ledger.forget_keys(now - self._settings.key_keep)
        for build in self._board:
            if build.stopped is not None and build.stopped < now - self._settings.keep:
                await self._dispatcher.forget(build.id)

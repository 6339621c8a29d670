"""The node's build service: builds from schedulers and from clients who speak to it directly, on
its own engine.

A scheduler's attempt runs at once or is refused; a client's build may wait here for a slot.
"""

from collections.abc import Collection
from functools import partial
from secrets import token_bytes

from node.allowed import check_allowed
from node.container import Place
from node.core.fence import admits
from node.keeping import Keeping
from node.ledger import Ledger
from node.runner import Runner
from node.state import NodeState
from protocol.builds.after import to_repeat
from protocol.concurrency.locks import Locks
from protocol.errors import Busy
from protocol.model.build import (
    Artifact,
    Build,
    Position,
    Stage,
    State,
    artifact_named,
    build_id,
    new_build,
)
from protocol.model.checks import check_addresses, check_request, check_secrets
from protocol.model.idempotency import check_same
from protocol.model.lifecycle import Event
from protocol.model.messages import (
    Acknowledgement,
    BuildPage,
    BuildQuery,
    Changes,
    Explanation,
    Report,
)
from protocol.model.networks import reach
from protocol.model.record import reported
from protocol.model.references import filled_like, provided
from protocol.model.request import BuildRequest, Forward, Secrets, uploads
from protocol.ports.service import LOCAL, ByteRange, ByteStream, Caller, OpenArtifact, OpenLog
from protocol.transfer.streams import no_log
from protocol.trust.owned import seen_by


class NodeService:
    """`BuildService` on an engine. Made by `node/parts.py`."""

    def __init__(self, place: Place, state: NodeState, ledger: Ledger, runner: Runner) -> None:
        self._place = place
        self._state = state
        self._settings = place.settings
        self._ledger = ledger
        self._board = ledger.board
        self._runner = runner
        self._locks = Locks()  # one forward at a time for a build, one create for a key
        self.keeping = Keeping(place, ledger, runner, self._locks)

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
        check_secrets(request, secrets or {}, forwarded=forward is not None)
        if secrets and (problem := self._place.secrets.problem()):
            raise Busy(f"{self._place.node.name} takes no build with secrets: {problem}")
        return await self._submitted(caller, request, forward, key, secrets)

    async def _submitted(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
        *,
        retry_of: str = "",
    ) -> Build:
        check_request(request, self._settings.images, exchanges=forward is not None)
        check_allowed(request, self._settings)
        if forward is not None:
            async with self._locks[forward.id]:
                return await self._forwarded(request, forward, secrets)
        self._check_addresses(request)
        if not key:
            return await self._direct(caller, request, "", secrets, retry_of)
        async with self._locks[caller.owner, key]:
            since = self._place.clock() - self._settings.key_keep
            known = self._ledger.made_with(caller.owner, key, since)
            if known is None:
                return await self._direct(caller, request, key, secrets, retry_of)
            check_same(known, filled_like(request, known.request))
            return known

    async def _forwarded(
        self, request: BuildRequest, forward: Forward, secrets: Secrets | None
    ) -> Build:
        """A scheduler's attempt."""
        known = self._ledger.known(forward.id)
        if not admits(known, forward) and known is not None:
            return known
        request = await self._provided(request, uploads(request))
        if known is not None:
            await self._runner.end(known.id, Event.GIVE_UP, "a later attempt takes its place")
        if reason := self._runner.why_busy():
            raise Busy(f"{self._place.node.name} takes no build: {reason}", retry_after=1)
        build = new_build(
            forward.id,
            request,
            origin=forward.origin,
            owner=forward.owner,
            now=self._place.clock(),
            attempt=forward.attempt,
            key=forward.key,
            retry_of=forward.retry_of,
        )
        with self._runner.one_coming():
            await self._ledger.add(build, forward, secrets)
            if known is not None:
                await self.keeping.drop_earlier(known)
        self._runner.begin(build)
        return self._ledger.get(build.id)

    async def _direct(
        self,
        caller: Caller,
        request: BuildRequest,
        key: str,
        secrets: Secrets | None,
        retry_of: str,
    ) -> Build:
        """A client's build: begun now, or put into the node's own short queue."""
        request = await self._acceptable(request, caller.owner)
        with self._runner.quotas.one_coming(caller.owner):
            now = self._place.clock()
            build = new_build(
                build_id(now, token_bytes(10)),
                request,
                origin=self._place.node.id,
                owner=caller.owner,
                now=now,
                attempt=1,
                key=key,
                retry_of=retry_of,
            )
            await self._ledger.add(build, None, secrets)
        self._runner.wait_for_slot(build)
        return self._ledger.get(build.id)

    async def _acceptable(self, request: BuildRequest, owner: str) -> BuildRequest:
        """A client's request with all digests. Raises what `submit` does."""
        self._runner.quotas.check(owner)
        if self._state.leaving or self._runner.waiting >= self._settings.waiting_limit:
            raise Busy(f"{self._runner.waiting} builds wait here already", retry_after=10)
        return await self._provided(request)

    def _check_addresses(self, request: BuildRequest) -> None:
        """Raises Denied for a URL that we would not call."""
        notified = reach(self._settings.notice_networks, "notice_networks")
        check_addresses(request, notified, reach(self._settings.fetch_networks, "fetch_networks"))

    async def _provided(
        self, request: BuildRequest, sent: frozenset[str] = frozenset()
    ) -> BuildRequest:
        """The request with all digests, of which all bytes are here; `sent`: what a scheduler sent
        before its forward. Raises Invalid, NotFound, Conflict.
        """
        missing = partial(self._place.blobs.missing, LOCAL)
        return await provided(request, self._ledger.get, missing, sent=sent, needed=uploads)

    async def preview(self, caller: Caller, request: BuildRequest) -> Explanation:
        """See BuildService."""
        check_request(request, self._settings.images)
        check_allowed(request, self._settings)
        self._check_addresses(request)
        await self._acceptable(request, caller.owner)
        reason, ahead = self._runner.why_busy(), self._runner.waiting
        if not reason and not ahead:
            return Explanation("", State.WAITING, "it would begin now")
        return Explanation("", State.WAITING, reason or "others wait here", ahead + 1)

    async def retry(
        self, caller: Caller, build_id: str, key: str = "", secrets: Secrets | None = None
    ) -> Build:
        """See BuildService."""
        request = to_repeat(self._ledger.get(build_id), secrets)
        check_secrets(request, secrets or {})
        return await self._submitted(caller, request, None, key, secrets, retry_of=build_id)

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        return await self.keeping.pin(build_id, pinned)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        await self.keeping.delete(caller, build_id)

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""
        return await self._board.held(build_id, after, wait)

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """See BuildService."""
        return await self._board.page(query)

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """See BuildService."""
        return await self._board.changes(cursor, wait, seen_by(caller))

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """See BuildService."""
        build = self._ledger.get(build_id)
        event, cause = Event.CANCEL, "it was cancelled"
        if superseded:
            event, cause = Event.GIVE_UP, "another attempt took its place"
        if attempt in (None, build.attempt):
            await self._runner.end(build_id, event, cause)
        return self._ledger.get(build_id)

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        build = self._ledger.get(build_id)
        place, reason = self._runner.place_of(build_id), build.reason
        if place is not None:
            reason = self._state.facts_reason(self._runner.used, 0)
            reason = reason or self._runner.why_held(build)
        return Explanation(build.id, build.state, reason, place, history=build.history)

    # Logs and artifacts

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
        build = self._ledger.get(build_id)
        while follow and build.stage is Stage.QUEUED and self._runner.log_of(build) is None:
            build = await self._board.held(build_id, build.revision, 60)
        served = self._runner.log_of(build)
        if served is None:
            return no_log(build.attempt)
        known = position.attempt in (0, served.attempt)
        return served.open(position.offset if known else 0, limit, follow)

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        return self._ledger.get(build_id).artifacts

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""
        artifact = artifact_named(self._ledger.get(build_id).artifacts, name)
        if artifact.growing:
            return await self._runner.open_growing(build_id, part)
        return self._place.artifacts.open(build_id, artifact, part)

    # Blobs

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """See Blobs."""
        return await self._place.blobs.missing(caller, digests)

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """See Blobs."""
        return await self._place.blobs.upload(caller, stream, sha256=sha256, size=size)

    # The node itself

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService. A scheduler sees its own builds that it has not acknowledged."""
        if after == self._state.token and wait > 0:
            await self._state.changed.wait(self._state.changed.count, wait)
        told = reported(self._ledger.unsettled(caller.program, caller.store), caller.store)
        return self._state.report(self._runner.used, self._runner.waiting, told)

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        for key, attempt in acknowledgement.attempts:
            build = self._ledger.known(key)
            if build and build.origin == caller.program and build.attempt == attempt:
                await self._ledger.acknowledged(key, acknowledgement.store)
        self._state.changed.touch()

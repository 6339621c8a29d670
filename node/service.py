"""The node's build service: builds from schedulers and from clients who speak to it directly, on
its own engine.

A scheduler's attempt runs at once or is refused; a client's build may wait here for a slot.
"""

import asyncio
import logging
import secrets
from collections import deque
from pathlib import Path

from msgspec.structs import replace

from node.builder import Builder
from node.container import Place
from node.core.retention import expired
from node.logs import ServedLog
from node.state import NodeState
from protocol.board import Board
from protocol.checks import check_request
from protocol.errors import Busy, Conflict
from protocol.lifecycle import Event, advance, may
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
    BuildRequest,
    Forward,
    Position,
    Stage,
    artifact_named,
    build_id,
    new_build,
)
from protocol.service import ByteRange, Caller, OpenArtifact, OpenLog
from protocol.streams import no_log

log = logging.getLogger(__name__)


class NodeService:
    """`BuildService` on an engine. Made by `node/app.py`; `close` ends every build."""

    def __init__(self, place: Place, state: NodeState, logs: Path) -> None:
        self._place = replace(place, publish=self._publish)
        self._state = state
        self._settings = place.settings
        self._logs = logs
        self._board = Board()
        self._builders: dict[str, Builder] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._served: dict[str, ServedLog] = {}
        self._waiting: deque[str] = deque()  # direct builds without a slot
        self._acknowledged: set[tuple[str, int]] = set()

    # Builds

    async def submit(
        self, caller: Caller, request: BuildRequest, forward: Forward | None = None
    ) -> Build:
        """See BuildService."""
        check_request(request, self._settings.images)
        if forward is None:
            return self._direct(caller, request)
        if forward.id in self._board:
            known = self._board.get(forward.id)
            if known.attempt == forward.attempt and known.origin == forward.origin:
                return known
            await self._supersede(known, forward)
        if len(forward.path) > PATH_LIMIT:
            raise Conflict(
                f"it came by {len(forward.path)} schedulers",
                field="forward.path",
                expected=f"at most {PATH_LIMIT}",
            )
        self._require_slot()
        build = new_build(
            forward.id,
            request,
            origin=forward.origin,
            owner=forward.owner,
            now=self._place.clock(),
            attempt=forward.attempt,
        )
        self._begin(self._publish(build))
        return self._board.get(build.id)

    def _direct(self, caller: Caller, request: BuildRequest) -> Build:
        """A client's build: begun now, or put into the node's own short queue."""
        if self._state.leaving or len(self._waiting) >= self._settings.waiting_limit:
            raise Busy(f"{len(self._waiting)} builds wait here already", retry_after=10)
        now = self._place.clock()
        build = new_build(
            build_id(now, secrets.token_bytes(10)),
            request,
            origin=self._place.node.id,
            owner=caller.owner,
            now=now,
            attempt=1,
        )
        self._publish(build)
        self._waiting.append(build.id)
        self._fill_slots()
        return self._board.get(build.id)

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""
        return await self._board.held(build_id, after, wait)

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """See BuildService."""
        return self._board.page(query)

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """See BuildService."""
        return await self._board.changes(cursor, wait)

    async def cancel(self, caller: Caller, build_id: str) -> Build:
        """See BuildService."""
        self._board.get(build_id)
        await self._end(build_id, Event.CANCEL, "it was cancelled")
        return self._board.get(build_id)

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        build = self._board.get(build_id)
        place, reason = None, build.reason
        if build_id in self._waiting:
            place = self._waiting.index(build_id) + 1
            reason = self._state.facts_reason(len(self._builders), 0)
        return Explanation(build.id, build.state, reason, place, (), build.history)

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
        build = self._board.get(build_id)
        while follow and build_id not in self._served and build.stage is Stage.QUEUED:
            build = await self._board.held(build_id, build.revision, 60)
        served = self._served.get(build_id)
        if served is None:
            return no_log(build.attempt)
        known = position.attempt in (0, served.attempt)
        return served.open(position.offset if known else 0, limit, follow)

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        return self._board.get(build_id).artifacts

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""
        artifact = artifact_named(self._board.get(build_id).artifacts, name)
        return self._place.artifacts.open(build_id, artifact, part)

    # The node itself

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService. A scheduler sees its own builds that it has not acknowledged."""
        if after == self._state.token and wait > 0:
            await self._state.changed.wait(self._state.changed.count, wait)
        builds = tuple(
            build
            for build in self._board
            if caller.program
            and build.origin == caller.program
            and (build.id, build.attempt) not in self._acknowledged
        )
        return self._state.report(len(self._builders), len(self._waiting), builds)

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        for key in acknowledgement.attempts:
            build_id, attempt = key
            build = self._board.get(build_id) if build_id in self._board else None
            if build and build.origin == caller.program and build.attempt == attempt:
                self._acknowledged.add(key)

    def forget_old(self) -> None:
        """Drop builds, logs and artifacts that ended longer ago than the setting says."""
        for key in expired(self._board, self._place.clock(), self._settings.keep):
            build = self._board.get(key)
            self._acknowledged.discard((key, build.attempt))
            self._board.forget(key)
            if served := self._served.pop(key, None):
                served.path.unlink(missing_ok=True)
            self._place.artifacts.remove(key)

    async def close(self, cause: str) -> None:
        """End every build; schedulers hear it in the last report."""
        for key in tuple(self._waiting):
            await self._end(key, Event.GIVE_UP, cause)
        for builder in self._builders.values():
            builder.stop(Event.GIVE_UP, cause)
        if tasks := tuple(self._tasks.values()):
            await asyncio.wait(tasks)

    # Running

    def _begin(self, build: Build) -> None:
        """Run the build now; the caller has seen that there is a slot."""
        path = self._logs / f"{build.id}.{build.attempt}.log"
        served = self._served[build.id] = ServedLog(path, build.attempt)
        build = replace(build, node=self._place.node)
        builder = self._builders[build.id] = Builder(self._place, build, served)
        self._tasks[build.id] = asyncio.create_task(self._run(builder))
        self._state.changed.touch()

    async def _run(self, builder: Builder) -> None:
        build_id = builder.build.id
        try:
            await builder.run()
        finally:
            if self._builders.get(build_id) is builder:
                del self._builders[build_id], self._tasks[build_id]
            self._state.changed.touch()
            self._fill_slots()

    def _fill_slots(self) -> None:
        """Give free slots to the builds that wait here, oldest first."""
        while self._waiting and not self._state.facts_reason(len(self._builders), 0):
            self._begin(self._board.get(self._waiting.popleft()))

    def _require_slot(self) -> None:
        reason = self._state.facts_reason(len(self._builders), len(self._waiting))
        if reason:
            raise Busy(f"{self._place.node.name} takes no build: {reason}", retry_after=1)

    async def _end(self, build_id: str, event: Event, cause: str) -> None:
        """End a build, whether it waits or runs; one that has stopped stays as it is."""
        if builder := self._builders.get(build_id):
            builder.stop(event, cause)
            await asyncio.wait({self._tasks[build_id]})
            return
        build = self._board.get(build_id)
        if build_id in self._waiting and may(build, event):
            self._waiting.remove(build_id)
            self._publish(advance(build, event, self._place.clock(), cause))

    async def _supersede(self, known: Build, forward: Forward) -> None:
        """A later attempt of a build that is here: end the earlier one. Raises Conflict for an
        earlier one.
        """
        if known.origin != forward.origin or forward.attempt < known.attempt:
            raise Conflict(
                f"attempt {known.attempt} of this build is here already",
                field="forward.attempt",
                expected=f"over {known.attempt}",
            )
        await self._end(known.id, Event.CANCEL, "a later attempt takes its place")
        self._acknowledged.discard((known.id, known.attempt))

    def _publish(self, build: Build) -> Build:
        self._board.put(build)
        self._state.changed.touch()
        return build

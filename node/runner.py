"""The node's slots: which builds run, which of its own wait, and how it goes on with what an
earlier life left in the middle.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from node.attempt.builder import Builder
from node.container import LABEL, Place, image_of
from node.core.resume import Way, way_on
from node.engines.base import Container, ContainerState
from node.engines.errors import EngineError
from node.files.logs import ServedLog, ended_log
from node.ledger import Ledger
from node.records import Kept
from node.state import NodeState
from protocol.builds.quotas import Limits, Quotas
from protocol.concurrency.errands import Errands
from protocol.errors import PoolError, Unavailable
from protocol.model.build import Build
from protocol.model.lifecycle import Event, advance, may
from protocol.ports.service import ByteRange, OpenArtifact

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds between tries, where engine or disk does not do what it is to

Attempt = tuple[str, int]


class Runner:
    """Runs builds. For use on the event loop."""

    def __init__(self, place: Place, state: NodeState, ledger: Ledger, logs: Path) -> None:
        self._place = place
        self._state = state
        self._ledger = ledger
        self._logs = logs
        self._builders: dict[str, Builder] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._served: dict[str, ServedLog] = {}
        self._waiting: deque[str] = deque()  # direct builds without a slot
        self._unresumed = ledger.unended()
        self._errands = Errands("a build was not ended")
        self._coming = 0  # builds that are being written down
        own = place.settings
        limits = Limits(own.owner_waiting, own.owner_running, own.owner_size)
        self.quotas = Quotas(limits, ledger.board.tally)

    @property
    def used(self) -> int:
        """Slots that are not free."""
        return len(self._builders) + self._coming + len(self._unresumed)

    @property
    def waiting(self) -> int:
        """Builds of clients that wait here."""
        return len(self._waiting)

    def attempts(self) -> frozenset[Attempt]:
        """Those whose containers and folders are in use."""
        running = {(b.build.id, b.build.attempt) for b in self._builders.values()}
        builds = [kept.record.build for kept in self._unresumed]
        return frozenset(running | {(build.id, build.attempt) for build in builds})

    def builders(self) -> tuple[Builder, ...]:
        """The builds that run."""
        return tuple(self._builders.values())

    def images(self) -> frozenset[str]:
        """Images that they use."""
        return frozenset(image_of(self._place, b.build) for b in self._builders.values())

    def place_of(self, build_id: str) -> int | None:
        """Its place among those that wait, from 1."""
        return self._waiting.index(build_id) + 1 if build_id in self._waiting else None

    def why_busy(self) -> str:
        """Why no build is taken now; empty where one is."""
        return self._state.facts_reason(self.used, self.waiting)

    def log_of(self, build: Build) -> ServedLog | None:
        """The log of its attempt; None where that has not begun."""
        if build.id in self._served:
            return self._served[build.id]
        path = self._log_path(build)
        if not path.exists():
            return None
        served = self._served[build.id] = ended_log(path, build.attempt)
        return served

    async def open_growing(self, build_id: str, part: ByteRange | None) -> OpenArtifact:
        """What the build streams. Raises Unsatisfiable, Conflict, Unavailable."""
        builder = self._builders.get(build_id)
        if builder is None or builder.streaming is None:
            raise Unavailable("its node goes on with it in a moment; ask again")
        return await builder.streaming.open(part)

    def follow(self, build: Build) -> None:
        """Somebody else than its builder changed the build."""
        if builder := self._builders.get(build.id):
            builder.build = replace(builder.build, pinned=build.pinned, revision=build.revision)

    def forget_log(self, build: Build) -> Path:
        """Its log is opened for nobody any more; where it lies, to be removed."""
        self._served.pop(build.id, None)
        return self._log_path(build)

    # Beginning and ending

    @contextmanager
    def one_coming(self) -> Iterator[None]:
        """A slot is kept free while its build is written down."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def wait_for_slot(self, build: Build) -> None:
        """A client's build: begun when there is a slot."""
        self._waiting.append(build.id)
        self.fill_slots()

    def fill_slots(self) -> None:
        """Give free slots to the builds that wait here, oldest first."""
        while self._waiting and not self._state.facts_reason(self.used, 0):
            waiting = map(self._ledger.get, self._waiting)
            build = next((build for build in waiting if not self.why_held(build)), None)
            if build is None:
                return
            self._waiting.remove(build.id)
            self.begin(build)

    def why_held(self, build: Build) -> str:
        """Why it may not begin though there is a slot: its owner has as many as one may."""
        running = sum(b.build.owner == build.owner for b in self._builders.values())
        return self.quotas.why_not(build.owner, running)

    async def keep_filling(self) -> None:
        """For as long as the node lives: also what keeps builds waiting other than builds - the
        engine, the disk - comes to an end.
        """
        while True:
            await self._state.changed.wait(self._state.changed.count, None)
            self.fill_slots()

    def begin(self, build: Build, found: Container | None = None) -> None:
        """Run the build, or watch on where its container was found."""
        build = replace(build, node=self._place.node)
        try:
            served = self._served[build.id] = ServedLog(self._log_path(build), build.attempt)
        except OSError as error:
            words = f"its log cannot be made: {error.strerror or error}"
            self._errands.do(partial(self._not_begun, build, words))
            return
        builder = self._builders[build.id] = Builder(self._place, build, served)
        kept = self._ledger.kept(build.id)
        if kept.stop is not None:
            builder.stop(kept.stop.event, kept.stop.cause)
        self._tasks[build.id] = asyncio.create_task(self._run(builder, found))
        self._state.changed.touch()

    async def _not_begun(self, build: Build, cause: str) -> None:
        """It ends so, as soon as that can be written down; its slot is used until then."""
        log.warning("build %s: %s", build.id, cause)
        with self.one_coming():
            while True:
                try:
                    return await self._write_end(build, Event.GIVE_UP, cause)
                except PoolError as error:
                    log.warning("build %s: its end: %s", build.id, error.detail)
                    await asyncio.sleep(_AGAIN)

    async def _run(self, builder: Builder, found: Container | None) -> None:
        build_id = builder.build.id
        spent = self._ledger.spent(build_id) if found is not None else 0.0
        try:
            await builder.run(found, spent)
        finally:
            builder.let_go()
            if self._builders.get(build_id) is builder:
                del self._builders[build_id], self._tasks[build_id]
            self._state.changed.touch()
            self.fill_slots()

    async def end(self, build_id: str, event: Event, cause: str) -> None:
        """End a build, whether it waits or runs; one that has stopped stays as it is. Raises
        Unavailable.
        """
        if builder := self._builders.get(build_id):
            builder.stop(event, cause)
            await asyncio.wait({self._tasks[build_id]})
            return
        build = self._ledger.get(build_id)
        if build_id in self._waiting and may(build, event):
            self._waiting.remove(build_id)
            try:
                await self._write_end(build, event, cause)
            except PoolError:  # it has not happened
                self._waiting.appendleft(build_id)
                self.fill_slots()
                raise

    async def _write_end(self, build: Build, event: Event, cause: str) -> None:
        ended = advance(build, event, self._place.clock(), cause)
        await self._ledger.keep(ended, None)
        self._place.publish(ended)

    async def close(self, cause: str, limit: float) -> None:
        """Let what runs end, for so many seconds; give up the rest, that its schedulers try it
        elsewhere. What clients gave to this node goes on without it, and what of it waits waits
        until it starts again.
        """
        self._waiting.clear()
        await self._errands.cancel()
        if limit > 0 and self._tasks:
            log.info("%d builds run; they have %g s to end", len(self._tasks), limit)
            await asyncio.wait(tuple(self._tasks.values()), timeout=limit)
        for key, builder in self._builders.items():
            if self._ledger.kept(key).record.forward is None:
                self._tasks[key].cancel()
            else:
                builder.stop(Event.GIVE_UP, cause)
        if tasks := tuple(self._tasks.values()):
            await asyncio.wait(tasks)

    # Going on

    async def resume(self) -> None:
        """Go on with what an earlier life of the node left in the middle, when the engine
        answers.
        """
        while self._unresumed:
            try:
                containers = await asyncio.to_thread(self._containers)
            except EngineError as error:
                log.warning("builds of an earlier life wait for the engine: %s", error)
                await asyncio.sleep(_AGAIN)
                continue
            unresumed, self._unresumed = self._unresumed, ()
            for kept in unresumed:
                await self._go_on(kept, containers)
        self._state.changed.touch()
        self.fill_slots()

    def _containers(self) -> dict[Attempt, Container]:
        """Our containers that were started; those that never were are removed."""
        found: dict[Attempt, Container] = {}
        for container in self._place.engine.containers({f"{LABEL}.node": self._place.node.id}):
            if container.state is ContainerState.CREATED:
                self._place.engine.remove(container.id)
                continue
            build, attempt = (
                container.labels.get(f"{LABEL}.{n}", "") for n in ("build", "attempt")
            )
            if attempt.isdigit():
                found[build, int(attempt)] = container
        return found

    async def _go_on(self, kept: Kept, containers: dict[Attempt, Container]) -> None:
        build = kept.record.build
        found = containers.get((build.id, build.attempt))
        folder = self._place.work / f"{build.id}.{build.attempt}"
        way = way_on(
            build,
            direct=kept.record.forward is None,
            has_container=found is not None,
            has_folder=folder.is_dir(),
        )
        log.info("build %s, left %s: %s", build.id, build.stage.value, way.value)
        match way:
            case Way.WAIT:
                self._waiting.append(build.id)
            case Way.BEGIN:
                self.begin(build)
            case Way.GO_ON:
                self.begin(build, found)
            case Way.GIVE_UP:
                stopped = kept.stop
                event = stopped.event if stopped is not None else Event.GIVE_UP
                cause = self._ledger.away(build.id) + ", and its container is gone"
                await self._write_end(build, event, stopped.cause if stopped else cause)

    def _log_path(self, build: Build) -> Path:
        return self._logs / f"{build.id}.{build.attempt}.log"

"""Runs one attempt of a build: image, commands, container, log, result. What it means is decided in
`node/core/outcome.py`.

The container goes on by itself; this only watches, and a node that starts again watches on. What
would be lost with this process is on disk before it is acted on: that the build is ended from
outside before the container is killed, how it ended before anything of it is removed.
"""

import asyncio
import logging
from pathlib import Path

from msgspec.structs import replace

from node.attempt.command_timer import CommandTimer
from node.attempt.faults import Fault, event_after, fault_of, in_words
from node.attempt.left import Left
from node.attempt.measuring import Meter
from node.attempt.stopping import LET_GO, Stopped, Stopping, heeded
from node.attempt.tail import Tail
from node.container import Place, container_spec, statuses
from node.engines.base import Container, ContainerState, Exit
from node.files.logs import ServedLog
from node.files.workfolder import Plan, WorkFolder
from node.inputs.preparing import Preparation
from node.inputs.provisions import Provisions
from node.outputs.collecting import Collecting
from node.outputs.growing import Streaming
from node.outputs.streaming import streaming
from protocol.errors import PoolError
from protocol.model.build import Build, CommandStatus, Result, Stage
from protocol.model.lifecycle import Event, advance, events_between, may
from protocol.model.recipe import ImageOutput

log = logging.getLogger(__name__)


class Builder:
    """One attempt, from its preparation to its end."""

    def __init__(self, place: Place, build: Build, served: ServedLog) -> None:
        self._place = place
        self.build = build
        self._log = served
        self._needs = build.request.guidance.needs
        self._loop = asyncio.get_running_loop()
        self._stopping = Stopping()
        self._container = ""
        self._folder: WorkFolder | None = None
        self._provisions = Provisions(place, build)
        served.hide(self._provisions.mask)
        self.streaming: Streaming | None = None  # what its readers follow
        self._meter: Meter | None = None
        self._timer = CommandTimer(build.request.recipe.commands, self.stop)
        self._watched = True  # until the engine says otherwise
        self._spent = 0.0  # seconds that the attempt took in earlier lives of the node

    def stop(self, event: Event, cause: str) -> None:
        """End the build; the first reason counts. `run` returns when it is over."""
        self._stopping.stop(event, cause)

    def usage(self) -> int:
        """Bytes that the build has written. Blocks. Raises EngineDown."""
        layer = self._place.engine.usage(self._container) if self._container else 0
        work = self._folder.usage() if self._folder else 0
        return layer + work + self._provisions.usage() + self._log.size

    async def run(self, found: Container | None = None, spent: float = 0.0) -> Build:
        """The build, stopped. Never raises: whatever goes wrong ends the build with a reason.

        `found`: its container, where an earlier life of the node started it, `spent` seconds after
        the attempt began.
        """
        self._spent = spent
        limit = min(self._needs.time_limit or 1e9, self._place.settings.time_limit)
        timer = self._loop.call_later(
            limit - spent, self.stop, Event.TIME_OUT, f"it took longer than {limit:g} s"
        )
        try:
            event, cause = await self._attempt(found)
        except Stopped as stopped:
            event, cause = stopped.stop.event, stopped.stop.cause
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                log.exception("build %s", self.build.id)
            event, cause = event_after(fault), in_words(error, fault)
            self.build = replace(self.build, excused=fault is Fault.OUTSIDE)
        finally:
            timer.cancel()
            self._timer.end()
            if self.streaming is not None:
                self.streaming.rest()
        if event is Event.GIVE_UP and not self._stopping.done:
            # Or the next attempt comes here while the engine is away.
            await (self._place.look() if self._watched else self._place.doubt())
        await self._end(event, cause)
        return self.build

    async def _attempt(self, found: Container | None) -> tuple[Event, str]:
        if found is None:
            self._reach(Stage.PREPARING)
            preparing = Preparation(
                *(self._place, self.build, self._log, self._provisions),
                *(self._stopping.interrupt, self._note_added),
            )
            plan = await self._stopping.unless(preparing.plan())
            if isinstance(self.build.request.recipe.output, ImageOutput):
                return await self._stopping.unless(self._image(preparing))
            await self._start(plan)
        else:
            self._container = found.id
            self._folder = await asyncio.to_thread(WorkFolder.open, self._root)
        self._reach(Stage.RUNNING)
        assert self._folder is not None
        self.streaming = streaming(self._folder, self._note, self.stop)
        self._meter = Meter(self._place.engine, self._container, self.build.usage)
        tail = Tail(
            *(self._folder, self._log, self._loop, self._note),
            *(self._provisions.mask, self._meter.sample),
        )
        try:
            end = await self._container_end(tail.failed)
        finally:
            await tail.finish()
        await self._measured()
        self._reach(Stage.COLLECTING)
        self._watched = end.watched
        away = "" if end.watched else "its engine was away"
        if away and found is not None and found.state is ContainerState.ENDED:
            away = self._place.away(self.build.id)
        return await self._collected(end, away)

    # Starting

    @property
    def _root(self) -> Path:
        return self._place.work / f"{self.build.id}.{self.build.attempt}"

    async def _image(self, preparing: Preparation) -> tuple[Event, str]:
        """The image is the result: no container runs."""
        self._reach(Stage.COLLECTING)
        artifact = await preparing.image.artifact()
        self._publish(replace(self.build, artifacts=(artifact,)))
        return Event.SUCCEED, ""

    async def _start(self, plan: Plan) -> None:
        place, build = self._place, self.build
        busybox = Path(place.settings.busybox) if place.engine.runs_programs else None
        self._folder = await asyncio.to_thread(WorkFolder.create, self._root, plan, busybox)
        mounts, environment = self._provisions.mounts, self._provisions.environment
        spec = container_spec(place, build, self._folder, mounts=mounts, environment=environment)
        if spec.limits.network:
            await asyncio.to_thread(place.outlet.hold)
        self._container = await asyncio.to_thread(place.engine.start, spec)

    # Watching

    async def _container_end(self, tail_failed: "asyncio.Future[str]") -> Exit:
        waiting = self._loop.run_in_executor(
            self._place.long, self._place.engine.wait, self._container
        )
        waiting.add_done_callback(heeded)
        tail_failed.add_done_callback(lambda failed: self.stop(Event.FAIL, failed.result()))
        try:
            return await self._stopping.unless(asyncio.shield(waiting))
        except Stopped as stopped:
            try:
                await self._place.keep(self.build, stopped.stop)
            except PoolError as error:
                log.warning("build %s: its stop: %s", self.build.id, error.detail)
            await asyncio.to_thread(self._place.engine.kill, self._container)
            await asyncio.wait({waiting}, timeout=LET_GO)
            raise

    def _note(self) -> None:
        """Progress: what the work folder shows of the commands now."""
        folder = self._folder
        assert folder is not None
        size = self._log.size  # before the steps: what the command that runs then wrote
        commands = statuses(self.build, folder.steps(), folder.plan.log_base)
        self._timer.look(commands, self._gone)
        self._publish(
            replace(
                self.build,
                commands=commands,
                artifacts=(self.streaming and self.streaming.artifacts) or self.build.artifacts,
                usage=self._meter.usage if self._meter else self.build.usage,
                log_size=size,
                revision=self.build.revision + 1,
            )
        )

    async def _measured(self) -> None:
        """What the build used in all, before anything is taken out of its work folder."""
        if self._meter is not None and self._folder is not None:
            await asyncio.to_thread(self._meter.finish, self._folder)
            self.build = replace(self.build, usage=self._meter.usage)

    def _note_added(self, step: CommandStatus) -> None:
        """How far a step is that the node added before the container."""
        others = tuple(command for command in self.build.commands if command.name != step.name)
        self._publish(
            replace(
                self.build,
                commands=(*others, step),
                log_size=self._log.size,
                revision=self.build.revision + 1,
            )
        )

    def _gone(self) -> float:
        """Seconds for which the command that runs now ran in earlier lives of the node. A build
        that falsifies them is still ended by its own time limit.
        """
        assert self._folder is not None
        now = self._place.clock()
        return min(max(0.0, now - self._folder.begun(now)), self._spent)

    # Ending

    async def _collected(self, end: Exit, away: str) -> tuple[Event, str]:
        folder = self._folder
        assert folder is not None
        stream = self.streaming
        if stream is not None:
            await self._stopping.unless(stream.finish())
        self._note()
        self._timer.end()
        read = stream.whole if stream is not None else None
        collecting = Collecting(
            self._place, self.build, folder, self._log, read, self._stopping.interrupt
        )
        collected = await self._loop.run_in_executor(self._place.long, collecting.all)
        self._stopping.check()
        event, cause = collecting.outcome(collected, end, away)
        if event is Event.SUCCEED or stream is None:  # a stream is whole, or it is nothing
            self.build = replace(self.build, artifacts=collected.artifacts)
        return event, cause

    def let_go(self) -> None:
        """It has ended, or is left to a later life of the node: threads of it give up, and whoever
        reads what it streams is told whether that was all of it.
        """
        self._stopping.interrupt.set()
        if self.streaming is not None:
            self.streaming.end(well=self.build.result is Result.SUCCEEDED)

    async def _end(self, event: Event, cause: str) -> None:
        """Write down how it ended, then remove what is left of it; nobody sees it stopped
        before.
        """
        cause = self._provisions.mask.text(cause)  # some of it others said, or the build
        if cause:
            self._log.say_last(cause)
        if not may(self.build, event):  # the build failed before it was collected
            event = Event.GIVE_UP if event is Event.SUCCEED else event
        await self._measured()
        build = replace(self.build, log_size=self._log.size)
        if event is Event.CANCEL and build.artifacts:
            build = replace(build, artifacts=())
        ended = advance(build, event, self._place.clock(), cause)
        left = Left(self._place, self._provisions, self._container, self._folder)
        await left.behind(ended)
        self._log.end()
        self._publish(ended)

    def _reach(self, stage: Stage) -> None:
        """Step by step to that stage, from wherever the build is."""
        for event in events_between(self.build.stage, stage):
            build = replace(self.build, log_size=self._log.size)
            self._publish(advance(build, event, self._place.clock()))

    def _publish(self, build: Build) -> None:
        self.build = build
        self._place.publish(build)

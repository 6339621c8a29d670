"""Runs one attempt of a build: image, commands, container, log, result. What it means is decided in
`node/core/outcome.py`.

The container goes on by itself; this only watches, and a node that starts again watches on. What
would be lost with this process is on disk before it is acted on: that the build is ended from
outside before the container is killed, how it ended before anything of it is removed.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from node.container import Place, container_spec, image_of, statuses
from node.core.outcome import Ending, outcome
from node.engines.base import Container, ContainerState, EngineError, Exit, ImageUnknown
from node.logs import ServedLog
from node.preparing import prepared
from node.records import Stop
from node.tail import Tail
from node.workfolder import Plan, WorkFolder
from protocol.errors import PoolError
from protocol.lifecycle import Event, advance, events_between, may
from protocol.model import Artifact, Build, CommandStatus, Stage

log = logging.getLogger(__name__)

T = TypeVar("T")

_KILLED = 30.0  # seconds that a killed container may take to end
_AGAIN = 1.0  # seconds after which a failed write of the end is tried again


class Stopped(Exception):
    """The build is ended from outside: by its user, a time limit, or the node."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.cause)
        self.stop = stop


class Builder:
    """One attempt, from its preparation to its end."""

    def __init__(self, place: Place, build: Build, served: ServedLog) -> None:
        self._place = place
        self.build = build
        self._log = served
        self._needs = build.request.guidance.needs
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[Stopped] = self._loop.create_future()
        self._container = ""
        self._folder: WorkFolder | None = None
        self._ending = threading.Event()  # whatever reads much is to give up
        self._timed: tuple[int, asyncio.TimerHandle] | None = None  # the command whose time runs
        self._spent = 0.0  # seconds that the attempt took in earlier lives of the node

    def stop(self, event: Event, cause: str) -> None:
        """End the build; the first reason counts. `run` returns when it is over."""
        if not self._stop.done():
            self._stop.set_result(Stopped(Stop(event, cause)))
            self._ending.set()

    def usage(self) -> int:
        """Bytes that the build has written. Blocks. Raises EngineDown."""
        layer = self._place.engine.usage(self._container) if self._container else 0
        return layer + (self._folder.usage() if self._folder else 0) + self._log.size

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
        except ImageUnknown as error:
            event, cause = Event.FAIL, str(error)
        except EngineError as error:
            event, cause = Event.GIVE_UP, str(error)
        except (OSError, PoolError) as error:
            event, cause = Event.GIVE_UP, f"{type(error).__name__}: {error}"
        except Exception as error:
            log.exception("build %s", self.build.id)
            event, cause = Event.GIVE_UP, f"the node failed: {type(error).__name__}"
        finally:
            timer.cancel()
            self._time_command(None)
        if event is Event.GIVE_UP and not self._stop.done():
            await self._place.look()  # or the next attempt comes here while the engine is away
        await self._end(event, cause)
        return self.build

    async def _attempt(self, found: Container | None) -> tuple[Event, str]:
        if found is None:
            self._reach(Stage.PREPARING)
            await self._start(
                await self._unless_stopped(prepared(self._place, self.build, self._log))
            )
        else:
            self._container = found.id
            self._folder = await asyncio.to_thread(WorkFolder.open, self._root)
        self._reach(Stage.RUNNING)
        assert self._folder is not None
        tail = Tail(self._folder, self._log, self._loop, self._note)
        try:
            end = await self._container_end(tail.failed)
        finally:
            await tail.finish()
        self._reach(Stage.COLLECTING)
        away = "" if end.watched else "its engine was away"
        if away and found is not None and found.state is ContainerState.ENDED:
            away = self._place.away(self.build.id)
        return await self._collected(end, away)

    # Starting

    @property
    def _root(self) -> Path:
        return self._place.work / f"{self.build.id}.{self.build.attempt}"

    async def _start(self, plan: Plan) -> None:
        place, build = self._place, self.build
        busybox = Path(place.settings.busybox) if place.engine.runs_programs else None
        self._folder = await asyncio.to_thread(WorkFolder.create, self._root, plan, busybox)
        spec = container_spec(place, build, self._folder, image_of(place, build))
        self._container = await asyncio.to_thread(place.engine.start, spec)

    # Watching

    async def _container_end(self, tail_failed: "asyncio.Future[str]") -> Exit:
        waiting = self._loop.run_in_executor(
            self._place.long, self._place.engine.wait, self._container
        )
        waiting.add_done_callback(_heeded)
        tail_failed.add_done_callback(lambda failed: self.stop(Event.FAIL, failed.result()))
        try:
            return await self._unless_stopped(asyncio.shield(waiting))
        except Stopped as stopped:
            try:
                await self._place.keep(self.build, stopped.stop)
            except PoolError as error:
                log.warning("build %s: its stop: %s", self.build.id, error.detail)
            await asyncio.to_thread(self._place.engine.kill, self._container)
            await asyncio.wait({waiting}, timeout=_KILLED)
            raise

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """The work's value. Raises Stopped as soon as the build is ended; the work is then given
        up.
        """
        task = asyncio.ensure_future(work)
        task.add_done_callback(_heeded)
        either: set[asyncio.Future[Any]] = {task, self._stop}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._stop.done():
            task.cancel()
            raise self._stop.result()
        return task.result()

    def _note(self) -> None:
        """Progress: what the work folder shows of the commands now."""
        folder = self._folder
        assert folder is not None
        size = self._log.size  # before the steps: what the command that runs then wrote
        commands = statuses(self.build, folder.steps(), folder.plan.log_base)
        self._time_command(commands)
        self._publish(
            replace(
                self.build,
                commands=commands,
                log_size=size,
                revision=self.build.revision + 1,
            )
        )

    def _time_command(self, commands: tuple[CommandStatus, ...] | None) -> None:
        """Let the time of the command that runs now run; None: of no command."""
        running = next((i for i, c in enumerate(commands or ()) if c.state.value == "running"), -1)
        if self._timed is not None and self._timed[0] != running:
            self._timed[1].cancel()
            self._timed = None
        wanted = self.build.request.recipe.commands
        limit = wanted[running].time_limit if 0 <= running < len(wanted) else None
        if limit is not None and self._timed is None:
            cause = f"the command {wanted[running].name!r} took longer than {limit:g} s"
            timer = self._loop.call_later(limit - self._gone(), self.stop, Event.TIME_OUT, cause)
            self._timed = (running, timer)

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
        self._note()
        self._time_command(None)
        verdict = folder.verdict()
        problem = ""
        if verdict is not None and verdict.has_result:
            try:
                artifact = await asyncio.to_thread(self._taken, folder)
                self._publish(replace(self.build, artifacts=(artifact,)))
            except (OSError, ValueError) as error:
                problem = f"the image could not be taken: {error}"
            if self._stop.done():
                raise self._stop.result()
        return outcome(
            self.build.request.recipe,
            Ending(
                commands=self.build.commands,
                finished=verdict is not None,
                has_result=bool(self.build.artifacts),
                exit_code=end.code,
                engine_words=end.error,
                out_of_memory=end.out_of_memory,
                result_problem=problem,
                away=away,
                disk_problem=self._place.disk_problem(),
            ),
        )

    def _taken(self, folder: WorkFolder) -> Artifact:
        place = self._place.artifacts
        return place.take(self.build.id, folder.take_result, self._ending)

    async def _end(self, event: Event, cause: str) -> None:
        """Write down how it ended, then remove what is left of it; nobody sees it stopped
        before.
        """
        if cause:
            self._log.say_last(cause)
        if not may(self.build, event):  # the build failed before it was collected
            event = Event.GIVE_UP if event is Event.SUCCEED else event
        build = replace(self.build, log_size=self._log.size)
        if event is Event.CANCEL and build.artifacts:
            build = replace(build, artifacts=())
        ended = advance(build, event, self._place.clock(), cause)
        written = await self._written(ended)
        await self._clean_up()
        if not ended.artifacts:
            await asyncio.to_thread(self._place.artifacts.remove, ended.id)
        while not written:  # cleaning up has made room
            await asyncio.sleep(_AGAIN)
            written = await self._written(ended)
        self._log.end()
        self._publish(ended)

    async def _written(self, ended: Build) -> bool:
        try:
            await self._place.keep(ended, None)
        except PoolError as error:
            log.warning("build %s: its end: %s", ended.id, error.detail)
            return False
        return True

    async def _clean_up(self) -> None:
        """Nothing of the build stays on the engine or in the work folder; what does is removed
        later by `node/cleaner.py`.
        """
        try:
            if self._container:
                await asyncio.to_thread(self._place.engine.remove, self._container)
            if self._folder is not None:
                await asyncio.to_thread(self._folder.remove)
        except (EngineError, OSError) as error:
            log.warning("build %s: cleaning up: %s", self.build.id, error)

    def _reach(self, stage: Stage) -> None:
        """Step by step to that stage, from wherever the build is."""
        for event in events_between(self.build.stage, stage):
            build = replace(self.build, log_size=self._log.size)
            self._publish(advance(build, event, self._place.clock()))

    def _publish(self, build: Build) -> None:
        self.build = build
        self._place.publish(build)


def _heeded(task: "asyncio.Future[Any]") -> None:
    """Somebody looked at how this ended, so that no complaint is logged."""
    if not task.cancelled():
        task.exception()

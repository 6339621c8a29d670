"""Runs one attempt of a build: image, commands, container, log, result. What it means is decided in
`node/core/outcome.py`.

The container goes on by itself; this only watches. One thread tails the work folder into the served
log; the event loop waits for the container's end, the time limit, or somebody who wants the build
ended.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from node.container import Place, container_spec, statuses
from node.core.outcome import Ending, outcome
from node.engines.base import EngineError, Exit, ImageUnknown
from node.fetch import FetchFailed, fetch
from node.logs import ServedLog
from node.workfolder import Plan, PlannedCommand, WorkFolder
from protocol.lifecycle import Event, advance, may
from protocol.model import Artifact, Build, Command, CommandStatus, IsoOutput

log = logging.getLogger(__name__)

T = TypeVar("T")

_TAIL = 0.025  # seconds between looks at the work folder
_KILLED = 30.0  # seconds that a killed container may take to end
_PROGRESS = 1.0  # seconds between notes of progress where nothing else changes


class Stopped(Exception):
    """The build is ended from outside: by its user, its time limit, or the node."""

    def __init__(self, event: Event, cause: str) -> None:
        super().__init__(cause)
        self.event = event
        self.cause = cause


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
        self._ended = threading.Event()  # the container has; the tailing thread drains and ends

    def stop(self, event: Event, cause: str) -> None:
        """End the build; the first reason counts. `run` returns when it is over."""
        if not self._stop.done():
            self._stop.set_result(Stopped(event, cause))

    async def run(self) -> Build:
        """The build, stopped. Never raises: whatever goes wrong ends the build with a reason."""
        limit = min(self._needs.time_limit or 1e9, self._place.settings.time_limit)
        timer = self._loop.call_later(
            limit, self.stop, Event.TIME_OUT, f"it took longer than {limit:g} s"
        )
        try:
            event, cause = await self._attempt()
        except Stopped as stopped:
            event, cause = stopped.event, stopped.cause
        except ImageUnknown as error:
            event, cause = Event.FAIL, str(error)
        except (EngineError, OSError) as error:
            event, cause = Event.GIVE_UP, f"{type(error).__name__}: {error}"
        except Exception as error:
            log.exception("build %s", self.build.id)
            event, cause = Event.GIVE_UP, f"the node failed: {type(error).__name__}"
        finally:
            timer.cancel()
        await self._clean_up()
        if cause:
            self._log.say(cause)
        self._log.end()
        self._step(event, cause)
        return self.build

    async def _attempt(self) -> tuple[Event, str]:
        self._step(Event.PREPARE)
        plan = await self._unless_stopped(self._prepared())
        await self._start(plan)
        base = self._log.size
        tail = threading.Thread(target=self._tail, args=(base,), name=f"tail {self.build.id}")
        tail.start()
        self._step(Event.RUN)
        try:
            end = await self._container_end()
        finally:
            self._ended.set()
            await asyncio.to_thread(tail.join)
        self._step(Event.COLLECT)
        return await self._collected(end, base)

    # Preparing

    async def _prepared(self) -> Plan:
        """The image is there, and the text of every command."""
        say = self._log.say
        await asyncio.to_thread(self._place.engine.obtain, self._image(), say)
        recipe = self.build.request.recipe
        commands = [await self._planned(command) for command in recipe.commands]
        return Plan(
            commands=tuple(commands),
            keep_going=recipe.keep_going,
            log_limit=self._place.settings.log_limit,
            find_iso=isinstance(recipe.output, IsoOutput),
        )

    def _image(self) -> str:
        name = self.build.request.recipe.base.name or self._place.settings.base_image
        return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"

    async def _planned(self, command: Command) -> PlannedCommand:
        text, failure = (command.text or "").encode("utf-8", "surrogatepass"), ""
        if command.text is None and command.url is not None:
            settings = self._place.settings
            try:
                text = await fetch(
                    command.url, limit=settings.fetch_limit, seconds=settings.fetch_timeout
                )
            except FetchFailed as error:
                failure = str(error)
        return PlannedCommand(
            text=text,
            arguments=command.arguments,
            environment=command.environment,
            failure=failure,
        )

    async def _start(self, plan: Plan) -> None:
        place, build = self._place, self.build
        root = place.work / f"{build.id}.{build.attempt}"
        busybox = Path(place.settings.busybox) if place.engine.runs_programs else None
        self._folder = await asyncio.to_thread(WorkFolder.create, root, plan, busybox)
        spec = container_spec(place, build, self._folder, self._image())
        self._container = await asyncio.to_thread(place.engine.start, spec)

    # Watching

    async def _container_end(self) -> Exit:
        waiting = asyncio.ensure_future(asyncio.to_thread(self._place.engine.wait, self._container))
        waiting.add_done_callback(_heeded)
        try:
            return await self._unless_stopped(asyncio.shield(waiting))
        except Stopped:
            await asyncio.to_thread(self._place.engine.kill, self._container)
            await asyncio.wait({waiting}, timeout=_KILLED)
            raise

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """The work's value. Raises Stopped as soon as the build is ended; the work is then given
        up.
        """
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._stop}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.add_done_callback(_heeded)
        task.cancel()
        raise self._stop.result()

    def _tail(self, base: int) -> None:
        """In a thread: copy the work folder's log to the served one, note the commands' steps."""
        offset, seen, noted = 0, (), 0.0
        folder = self._folder
        assert folder is not None
        while True:
            last = self._ended.wait(_TAIL)
            while data := folder.read_log(offset, 1 << 20):
                self._log.append(data)
                offset += len(data)
            steps: tuple[Any, ...] = folder.steps()
            now = self._place.clock()
            if steps != seen or (
                now - noted >= _PROGRESS and self._log.size != self.build.log_size
            ):
                seen, noted = steps, now
                self._loop.call_soon_threadsafe(self._note, statuses(self.build, steps, base))
            if last:
                return

    def _note(self, commands: tuple[CommandStatus, ...]) -> None:
        build = self.build
        self._publish(
            replace(build, commands=commands, log_size=self._log.size, revision=build.revision + 1)
        )

    # Ending

    async def _collected(self, end: Exit, base: int) -> tuple[Event, str]:
        folder = self._folder
        assert folder is not None
        self._note(statuses(self.build, folder.steps(), base))
        verdict = folder.verdict()
        problem = ""
        if verdict is not None and verdict.has_result:
            try:
                artifact = await self._unless_stopped(asyncio.to_thread(self._taken, folder))
                self._publish(replace(self.build, artifacts=(artifact,)))
            except (OSError, ValueError) as error:
                problem = f"the image could not be taken: {error}"
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
            ),
        )

    def _taken(self, folder: WorkFolder) -> Artifact:
        return self._place.artifacts.take(self.build.id, folder.take_result)

    async def _clean_up(self) -> None:
        """Nothing of the build stays on the engine or in the work folder."""
        try:
            if self._container:
                await asyncio.to_thread(self._place.engine.remove, self._container)
            if self._folder is not None:
                await asyncio.to_thread(self._folder.remove)
        except (EngineError, OSError) as error:
            log.warning("build %s: cleaning up: %s", self.build.id, error)

    def _step(self, event: Event, cause: str = "") -> None:
        if not may(self.build, event):  # the build failed before it was collected
            event = Event.GIVE_UP if event is Event.SUCCEED else event
        build = replace(self.build, log_size=self._log.size)
        self._publish(advance(build, event, self._place.clock(), cause))

    def _publish(self, build: Build) -> None:
        self.build = build
        self._place.publish(build)


def _heeded(task: "asyncio.Future[Any]") -> None:
    """Somebody looked at how this ended, so that no complaint is logged."""
    if not task.cancelled():
        task.exception()

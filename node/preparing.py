"""What must be there before a build's container is made: its image and the text of each command."""

import asyncio
import threading

from node.container import Place, image_of
from node.fetch import FetchFailed, fetch
from node.logs import ServedLog
from node.plan import with_output
from node.workfolder import Plan, PlannedCommand
from protocol.model import Build
from protocol.recipe import Command


async def prepared(place: Place, build: Build, log: ServedLog) -> Plan:
    """The plan of the attempt; what obtaining the image says goes to its log. A command that cannot
    be fetched is planned all the same, with the reason. Raises EngineError, PoolError.
    """
    await _obtain(place, image_of(place, build), log)
    recipe = build.request.recipe
    commands = [await _planned(place, command) for command in recipe.commands]
    plan = Plan(
        commands=tuple(commands),
        keep_going=recipe.keep_going,
        log_limit=place.settings.log_limit,
        find_iso=False,
        log_base=log.size,
    )
    return with_output(plan, recipe.output, place.settings.result_files)


async def _obtain(place: Place, image: str, log: ServedLog) -> None:
    pulled = threading.Event()

    def say(line: str) -> None:
        pulled.set()
        log.say(line)

    loop = asyncio.get_running_loop()
    await loop.run_in_executor(place.long, place.engine.obtain, image, say)
    await place.used_image(image, pulled.is_set())


async def _planned(place: Place, command: Command) -> PlannedCommand:
    text, failure = (command.text or "").encode("utf-8", "surrogatepass"), ""
    if command.text is None and command.url is not None:
        settings = place.settings
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

"""What must be there before a build's container is made: its image, its inputs and secrets, the
text of each command.
"""

import asyncio

from node.container import Place
from node.engines.base import Interrupt
from node.fetch import FetchFailed, fetch
from node.images import ImageWork
from node.inputs import Gathering
from node.logs import ServedLog
from node.plan import with_output
from node.provisions import Provisions
from node.workfolder import Plan, PlannedCommand
from protocol.model import Build
from protocol.recipe import Command


async def prepared(
    place: Place,
    build: Build,
    log: ServedLog,
    provisions: Provisions,
    images: ImageWork,
    interrupt: Interrupt,
) -> Plan:
    """The plan of the attempt; what obtaining the image says goes to its log. A command that cannot
    be fetched is planned all the same, with the reason. Raises EngineError, PoolError, and
    FetchFailed for an input.
    """
    await asyncio.to_thread(provisions.begin)
    gathering = Gathering(provisions.inputs, place.blobs, place.settings, log.say, interrupt)
    await images.provide(gathering)
    recipe = build.request.recipe
    await gathering.inputs(recipe.inputs)
    commands = [await _planned(place, command) for command in recipe.commands]
    plan = Plan(
        commands=tuple(commands),
        keep_going=recipe.keep_going,
        log_limit=place.settings.log_limit,
        find_iso=False,
        log_base=log.size,
    )
    return with_output(plan, recipe.output, place.settings.result_files)


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

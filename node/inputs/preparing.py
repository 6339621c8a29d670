"""What must be there before a build's container is made: its image, its inputs and secrets, the
text of each command.
"""

import asyncio
from collections.abc import Callable

from node.container import Place
from node.core.plan import with_output
from node.engines.errors import Interrupt
from node.files.logs import ServedLog
from node.files.workfolder import Plan, PlannedCommand
from node.inputs.fetch import FetchFailed, fetch
from node.inputs.gathering import Gathering
from node.inputs.images import ImageWork
from node.inputs.provisions import Provisions
from protocol.model.build import Build, CommandStatus
from protocol.model.networks import reach
from protocol.model.recipe import Command


class Preparation:
    """Of one attempt."""

    def __init__(
        self,
        place: Place,
        build: Build,
        log: ServedLog,
        provisions: Provisions,
        interrupt: Interrupt,
        note: Callable[[CommandStatus], None],
    ) -> None:
        """`interrupt` ends what takes long; `note` is told how far a step is that the node adds."""
        self.image = ImageWork(place, build, provisions, log, interrupt, note)
        self._place = place
        self._recipe = build.request.recipe
        self._log = log
        self._provisions = provisions
        self._gathering = Gathering(
            provisions.inputs, place.blobs, place.settings, log.say, interrupt
        )

    async def plan(self) -> Plan:
        """The plan of the attempt, when all else is there; what obtaining the image says goes to
        the log. A command that cannot be fetched is planned all the same, with the reason.

        Raises EngineError, PoolError, OSError, and FetchFailed for an input.
        """
        await asyncio.to_thread(self._provisions.begin)
        await self.image.provide(self._gathering)
        recipe = self._recipe
        await self._gathering.inputs(recipe.inputs)
        commands = [await _planned(self._place, command) for command in recipe.commands]
        plan = Plan(
            commands=tuple(commands),
            keep_going=recipe.keep_going,
            log_limit=self._place.settings.log_limit,
            find_iso=False,
            log_base=self._log.size,
        )
        return with_output(plan, recipe.output, self._place.settings.result_files)


async def _planned(place: Place, command: Command) -> PlannedCommand:
    text, failure = (command.text or "").encode("utf-8", "surrogatepass"), ""
    if command.text is None and command.url is not None:
        settings = place.settings
        try:
            text = await fetch(
                command.url,
                allowed=reach(settings.fetch_networks, "fetch_networks"),
                limit=settings.fetch_limit,
                seconds=settings.fetch_timeout,
            )
        except FetchFailed as error:
            failure = str(error)
    return PlannedCommand(
        text=text,
        arguments=command.arguments,
        environment=command.environment,
        failure=failure,
    )

"""The time limit of a single command, which runs while the command does."""

import asyncio
from collections.abc import Callable

from protocol.model.build import CommandStatus, State
from protocol.model.lifecycle import Event
from protocol.model.recipe import Command


class CommandTimer:
    """Of one attempt. For use on the event loop."""

    def __init__(self, commands: tuple[Command, ...], stop: Callable[[Event, str], None]) -> None:
        """`stop` ends the build when the time of a command is over."""
        self._commands = commands
        self._stop = stop
        self._timed: tuple[int, asyncio.TimerHandle] | None = None  # the command whose time runs

    def look(self, statuses: tuple[CommandStatus, ...], gone: Callable[[], float]) -> None:
        """Let the time of the command that runs now run; `gone`: for how many seconds it ran in
        earlier lives of the node.
        """
        found = (i for i, status in enumerate(statuses) if status.state is State.RUNNING)
        running = next(found, -1)
        if self._timed is not None and self._timed[0] != running:
            self.end()
        wanted = self._commands
        limit = wanted[running].time_limit if 0 <= running < len(wanted) else None
        if limit is not None and self._timed is None:
            cause = f"the command {wanted[running].name!r} took longer than {limit:g} s"
            loop = asyncio.get_running_loop()
            timer = loop.call_later(limit - gone(), self._stop, Event.TIME_OUT, cause)
            self._timed = (running, timer)

    def end(self) -> None:
        """No command's time runs."""
        if self._timed is not None:
            self._timed[1].cancel()
            self._timed = None

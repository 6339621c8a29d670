"""The life of a build: one table of (stage, event) -> stage. Change it here and in the drawing in
docs/architecture.md.

A program performs a step by `advance`; what a node's report says of later stages is caught up with
event by event (`events_between`), so that a build's history has no holes where a report came late.
"""

import enum

from msgspec.structs import replace

from protocol.model.build import NEVER_RAN, Build, CommandStatus, Result, Stage, Step


class Event(enum.Enum):
    """What can happen to a build."""

    PLACE = "place"  # a node was chosen; its attempt is counted
    DECLINE = "decline"  # the chosen node had no room; uses up no attempt
    ADOPT = "adopt"  # an attempt that was given up, or that we forgot, was found on a node
    PREPARE = "prepare"  # the node obtains the image and the commands
    RUN = "run"  # the container runs
    COLLECT = "collect"  # the container has ended; the result is being taken
    LOSE = "lose"  # the attempt is given up, the build goes back to the queue
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    TIME_OUT = "time_out"
    GIVE_UP = "give_up"
    REFUSE = "refuse"


_Q, _P, _PREP, _RUN, _COLL, _STOP = Stage

TABLE: dict[tuple[Stage, Event], Stage] = {
    (_Q, Event.PLACE): _P,
    (_P, Event.DECLINE): _Q,
    (_Q, Event.ADOPT): _P,
    (_Q, Event.PREPARE): _PREP,
    (_P, Event.PREPARE): _PREP,
    (_PREP, Event.RUN): _RUN,
    (_RUN, Event.COLLECT): _COLL,
    (_P, Event.LOSE): _Q,
    (_PREP, Event.LOSE): _Q,
    (_RUN, Event.LOSE): _Q,
    (_COLL, Event.LOSE): _Q,
    (_COLL, Event.SUCCEED): _STOP,
    (_PREP, Event.FAIL): _STOP,
    (_RUN, Event.FAIL): _STOP,
    (_COLL, Event.FAIL): _STOP,
    (_PREP, Event.TIME_OUT): _STOP,
    (_RUN, Event.TIME_OUT): _STOP,
    (_COLL, Event.TIME_OUT): _STOP,
    (_Q, Event.CANCEL): _STOP,
    (_P, Event.CANCEL): _STOP,
    (_PREP, Event.CANCEL): _STOP,
    (_RUN, Event.CANCEL): _STOP,
    (_COLL, Event.CANCEL): _STOP,
    (_Q, Event.GIVE_UP): _STOP,
    (_P, Event.GIVE_UP): _STOP,
    (_PREP, Event.GIVE_UP): _STOP,
    (_RUN, Event.GIVE_UP): _STOP,
    (_COLL, Event.GIVE_UP): _STOP,
    (_Q, Event.REFUSE): _STOP,
    (_P, Event.REFUSE): _STOP,
}

RESULTS: dict[Event, Result] = {
    Event.SUCCEED: Result.SUCCEEDED,
    Event.FAIL: Result.FAILED,
    Event.CANCEL: Result.CANCELLED,
    Event.TIME_OUT: Result.TIMED_OUT,
    Event.GIVE_UP: Result.LOST,
    Event.REFUSE: Result.REFUSED,
}
ENDINGS: dict[Result, Event] = {result: event for event, result in RESULTS.items()}

_WAY = (
    (Event.PREPARE, Stage.PREPARING),
    (Event.RUN, Stage.RUNNING),
    (Event.COLLECT, Stage.COLLECTING),
)
_ORDER = tuple(Stage)


class IllegalStep(Exception):
    """A step that the table does not have; carries the build's whole history."""

    def __init__(self, build: Build, event: Event) -> None:
        steps = ", ".join(f"{step.event} -> {step.stage.value}" for step in build.history)
        super().__init__(
            f"build {build.id} is {build.stage.value} and cannot {event.value}; history: {steps}"
        )


def advance(build: Build, event: Event, now: float, cause: str = "") -> Build:
    """The build after the event, its history one entry longer. Raises IllegalStep."""
    stage = TABLE.get((build.stage, event))
    if stage is None:
        raise IllegalStep(build, event)
    build = replace(
        build,
        stage=stage,
        reason=cause,
        history=(*build.history, Step(now, event.value, stage, cause)),
        revision=build.revision + 1,
    )
    if stage is Stage.PREPARING and build.started is None:
        return replace(build, started=now)
    if stage is Stage.QUEUED:
        return _forget_attempt(build)
    if stage is Stage.STOPPED:
        return replace(
            build,
            stopped=now,
            result=RESULTS[event],
            commands=_closed(build.commands),
            artifacts=tuple(one for one in build.artifacts if not one.growing),
        )
    return build


def may(build: Build, event: Event) -> bool:
    """Whether the table has this step."""
    return (build.stage, event) in TABLE


def events_between(here: Stage, there: Stage) -> tuple[Event, ...]:
    """The steps that lead from one stage on the way PREPARING, RUNNING, COLLECTING to a later
    one, or to stopped.
    """
    last = _ORDER.index(Stage.COLLECTING if there is Stage.STOPPED else there)
    first = _ORDER.index(here)
    return tuple(event for event, stage in _WAY if first < _ORDER.index(stage) <= last)


def _forget_attempt(build: Build) -> Build:
    commands = tuple(CommandStatus(command.name) for command in build.request.recipe.commands)
    return replace(
        build, node=None, commands=commands, artifacts=(), log_size=0, started=None, usage=None
    )


def _closed(commands: tuple[CommandStatus, ...]) -> tuple[CommandStatus, ...]:
    """In a stopped build every command is stopped: what never ran or was cut off gets an exit
    code too.
    """
    return tuple(
        command
        if command.exit_code is not None
        else replace(command, exit_code=NEVER_RAN if command.start is None else 128 + 9)
        for command in commands
    )

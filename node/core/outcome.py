"""How a build ended, decided from what its container left behind."""

from msgspec import Struct

from protocol.model.build import NEVER_RAN, CommandStatus
from protocol.model.lifecycle import Event
from protocol.model.recipe import (
    ImageOutput,
    IsoOutput,
    NoOutput,
    OutboxOutput,
    Output,
    PathsOutput,
    Recipe,
    StreamOutput,
)

FIND_IMAGE = "find the image"
"""Name of the step that the node adds behind the commands."""
FIND_FILES = "find the files"
"""The same where the result is named by paths."""

_KILLED = 137


class Ending(Struct, frozen=True):
    """What the container left behind."""

    commands: tuple[CommandStatus, ...]
    finished: bool  # there is an exit record
    has_result: bool  # a file was taken
    exit_code: int  # of the container
    engine_words: str = ""  # what the engine says of the end
    out_of_memory: bool = False
    result_problem: str = ""  # why the result could not be taken
    away: str = ""  # why nobody watched the container end; empty where somebody did
    disk_problem: str = ""  # that the disk is full, and may be the cause; empty where it is not


def outcome(recipe: Recipe, ending: Ending) -> tuple[Event, str]:
    """The event that ends the build, and the reason in a sentence; a failure on a full disk names
    that too.
    """
    event, cause = _outcome(recipe, ending)
    if event is Event.FAIL and ending.disk_problem:
        cause = f"{cause}; {ending.disk_problem}"
    return event, cause


def _outcome(recipe: Recipe, ending: Ending) -> tuple[Event, str]:
    """A container that ended before its work was done is the build's own failure, unless it ended
    while nobody watched: then it may have been the machine or the engine, and is tried again.
    """
    if not ending.finished and ending.away and not ending.out_of_memory:
        return Event.GIVE_UP, f"{ending.away} when its container ended, with {ending.exit_code}"
    if not ending.finished:
        return Event.FAIL, _unfinished(ending)
    for command in ending.commands:
        if command.exit_code and command.exit_code != NEVER_RAN and not command.added:
            words = f"the command {command.name!r} ended with {command.exit_code}"
            killed = ending.out_of_memory and command.exit_code == _KILLED
            return Event.FAIL, f"{words}; the memory limit was reached" if killed else words
    for command in ending.commands:
        if command.exit_code == NEVER_RAN and not command.added:
            return Event.FAIL, f"the command {command.name!r} never ran"
    if not isinstance(recipe.output, NoOutput | ImageOutput) and not ending.has_result:
        return Event.FAIL, ending.result_problem or _missing(recipe.output)
    return Event.SUCCEED, ""


def _missing(output: Output) -> str:
    match output:
        case IsoOutput():
            return "no image was found; the last step says why"
        case PathsOutput():
            return "no files were found; the last step says why"
        case OutboxOutput():
            return "the outbox was not packed"
        case StreamOutput():
            return "nothing was streamed"
    return "there is no result"


def added_step(output: Output) -> str:
    """Name of the step behind the commands that looks for this result."""
    return FIND_FILES if isinstance(output, PathsOutput) else FIND_IMAGE


def _unfinished(ending: Ending) -> str:
    words = f"the container ended before the build did, with {ending.exit_code}"
    if ending.out_of_memory:
        words += "; its memory limit was reached"
    return f"{words}: {ending.engine_words}" if ending.engine_words else words

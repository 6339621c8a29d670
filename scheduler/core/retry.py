"""What follows from the end of an attempt: the build's end, or another attempt.

Only failures of the pool are tried again. A failed command is the user's result. What has begun to
stream is never tried again: somebody may have read it, and cannot be told to forget that.
"""

from protocol.model.build import NEVER_RAN, Build, Result
from protocol.model.lifecycle import ENDINGS, Event
from protocol.model.recipe import StreamOutput

STREAMED = "it is not tried again: its output had begun to be served"


def has_streamed(build: Build) -> bool:
    """Whether somebody may have read what the attempt makes: its node said that it grows, which is
    on disk before anybody reads it through us; or that the command has begun that makes it grow.
    """
    return any(artifact.growing for artifact in build.artifacts) or _has_begun(build)


def _has_begun(build: Build) -> bool:
    recipe = build.request.recipe
    if not isinstance(recipe.output, StreamOutput) or len(build.commands) < len(recipe.commands):
        return False
    last = build.commands[len(recipe.commands) - 1]
    return last.start is not None and last.exit_code != NEVER_RAN


def after(build: Build, reported: Build, limit: int) -> Event:
    """The event for our record when a node says that its attempt ended."""
    result = reported.result or Result.LOST
    if result is Result.LOST:
        return after_loss(build, limit)
    return ENDINGS[result]


def after_loss(build: Build, limit: int) -> Event:
    """The event for our record when its attempt is lost: `limit` attempts in all."""
    again = build.attempt < limit and not has_streamed(build)
    return Event.LOSE if again else Event.GIVE_UP


def why(build: Build, cause: str, limit: int) -> str:
    """The cause of that event, in words."""
    streamed = build.attempt < limit and has_streamed(build)
    return f"{cause}; {STREAMED}" if streamed else cause

"""What follows from the end of an attempt: the build's end, or another attempt.

Only failures of the pool are tried again. A failed command is the user's result.
"""

from protocol.lifecycle import ENDINGS, Event
from protocol.model import Build, Result


def after(reported: Build, attempt: int, limit: int) -> Event:
    """The event for our record when a node says that an attempt ended."""
    result = reported.result or Result.LOST
    if result is Result.LOST:
        return after_loss(attempt, limit)
    return ENDINGS[result]


def after_loss(attempt: int, limit: int) -> Event:
    """The event for our record when an attempt is lost: `limit` attempts in all."""
    return Event.LOSE if attempt < limit else Event.GIVE_UP

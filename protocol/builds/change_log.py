"""What changed and what went since a moment, for readers who come back with a cursor: builds of a
board, nodes of a roster.

A moment is a count, which only grows; whose it is, is the owner's matter. A log remembers so many
of the ids that went: who comes from before those cannot be told all that is gone, and begins anew.
"""

import secrets
from collections.abc import Iterator

from protocol.builds.order import ChangeOrder, Entry


class ChangeLog:
    """Ids by the counts of their last changes."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)  # cursors of another life are void
        self._changed = ChangeOrder()
        self._gone = ChangeOrder()
        self._forgotten = 0  # who comes from before this count is not told all that is gone

    def changed(self, id: str, count: int) -> None:
        """It is there, and changed just now."""
        self._changed.put(id, count)
        self._gone.drop(id)

    def went(self, id: str, count: int, remembered: int) -> None:
        """It is not there any more; so many of those that went are `remembered` at most."""
        self._changed.drop(id)
        self._gone.put(id, count)
        if len(self._gone) > remembered:
            self._forgotten = self._gone.drop_oldest()

    def tells_since(self, epoch: str, count: int, now: int) -> bool:
        """Whether who knows all up to that count of that life can be told the rest; `now`: the
        newest count.
        """
        return epoch == self.epoch and self._forgotten <= count <= now

    def after(self, count: int) -> Iterator[Entry]:
        """What is there and changed after that, the longest unchanged first."""
        return self._changed.after(count)

    def before(self, count: int) -> Iterator[Entry]:
        """What is there and has not changed since that, the last change first."""
        return self._changed.before(count)

    def gone_after(self, count: int) -> Iterator[Entry]:
        """What went after that, the first first."""
        return self._gone.after(count)

"""Ids in the order of their last change: what changed since a moment is found without looking at
the rest.

A change appends; where an id changed again, its older entry is void and passed over, and swept away
when there are more void entries than others.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import itemgetter

_SLACK = 1000  # void entries that are always put up with

Entry = tuple[int, str]
_COUNT = itemgetter(0)


class ChangeOrder:
    """Each id with the count of its last change; counts only grow."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._counts)

    def put(self, id: str, count: int) -> None:
        """It changed just now."""
        self._counts[id] = count
        self._entries.append((count, id))
        if len(self._entries) > 2 * len(self._counts) + _SLACK:
            self._entries = [entry for entry in self._entries if self._holds(entry)]

    def drop(self, id: str) -> None:
        """It is not there any more."""
        self._counts.pop(id, None)

    def drop_oldest(self) -> int:
        """Drop the one that is the longest unchanged; the count of its change."""
        count, id = next(self.after(0))
        self.drop(id)
        return count

    def after(self, count: int) -> Iterator[Entry]:
        """What changed after that, the longest unchanged first."""
        entries = self._entries
        for place in range(bisect_right(entries, count, key=_COUNT), len(entries)):
            if self._holds(entries[place]):
                yield entries[place]

    def before(self, count: int) -> Iterator[Entry]:
        """What has not changed since that, the last change first."""
        entries = self._entries
        for place in range(bisect_left(entries, count, key=_COUNT) - 1, -1, -1):
            if self._holds(entries[place]):
                yield entries[place]

    def _holds(self, entry: Entry) -> bool:
        return self._counts.get(entry[1]) == entry[0]

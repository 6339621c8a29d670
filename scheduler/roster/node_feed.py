"""The roster as changes since a cursor, for everybody who reads events: it is looked at once for
all of them.
"""

import re
import time
from collections.abc import Callable

from msgspec.structs import replace

from protocol.api.native.events import NodeNews
from protocol.builds.change_log import ChangeLog
from protocol.model.messages import Roster, RosterEntry

_FRESH = 0.5  # seconds for which a look at the roster is good
_GONE = 1000  # nodes of which it is remembered that they are gone
_SECONDS = re.compile(r"\d+")


class RosterFeed:
    """A `NodeFeed` over the scheduler's roster."""

    def __init__(
        self, roster: Callable[[], Roster], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._roster = roster
        self._clock = clock
        self._count = 0
        self._looked = float("-inf")
        self._entries: dict[str, RosterEntry] = {}
        self._log = ChangeLog()

    def since(self, cursor: str) -> NodeNews:
        """As `NodeFeed`."""
        self._look()
        now = f"{self._log.epoch}.{self._count}"
        if not cursor:
            return NodeNews(tuple(self._entries.values()), (), now)
        epoch, _, text = cursor.partition(".")
        seen = int(text)
        if not self._log.tells_since(epoch, seen, self._count):
            return NodeNews(tuple(self._entries.values()), (), now, reset=True)
        changed = tuple(self._entries[key] for _, key in self._log.after(seen))
        return NodeNews(changed, tuple(key for _, key in self._log.gone_after(seen)), now)

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < _FRESH:
            return
        self._looked = now
        entries = {entry.id or entry.url: entry for entry in self._roster().nodes}
        for key, entry in entries.items():
            before = self._entries.get(key)
            if before is None or _lasting(before) != _lasting(entry):
                self._count += 1
                self._log.changed(key, self._count)
        for key in self._entries.keys() - entries.keys():
            self._count += 1
            self._log.went(key, self._count, _GONE)
        self._entries = entries


def _lasting(entry: RosterEntry) -> RosterEntry:
    """All of it but what is another at each look; numbers in a reason count seconds."""
    reason = _SECONDS.sub("", entry.reason)
    return replace(entry, reason=reason, last_seen=None, latency=None, clock=None)

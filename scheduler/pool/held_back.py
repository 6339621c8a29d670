"""What keeps builds from nodes that would take them: an admin's word, and how they fared with the
builds that they had. Decisions are in `scheduler/core/quarantine.py`.
"""

import time
from collections.abc import Callable, Collection

from protocol.model.build import Build
from protocol.model.lifecycle import Event
from scheduler.core import quarantine
from scheduler.core.quarantine import Health, Rule
from scheduler.core.roster import Entry, Standing
from scheduler.pool.known import Known


class HeldBack:
    """Of every node by id. What an admin says outlives us, how nodes fared does not."""

    def __init__(self, known: Known, rule: Rule) -> None:
        self._known = known
        self._rule = rule
        self._health: dict[str, Health] = {}
        self._distrusted: dict[str, str] = {}  # node -> what it says that cannot be

    def standing(
        self, entry: Entry, now: float, builds_on: Callable[[str], Collection[str]]
    ) -> Standing | None:
        """What the node is held back by, `now` in monotonic seconds; None: by nothing. `builds_on`
        answers which of our builds are on a node.
        """
        node = entry.program
        known = self._known.of(node)
        if known is not None and known.cordoned is not None:
            in_use = len(builds_on(node)) or (entry.report.used if entry.report else 0)
            drained = known.draining and not in_use
            return Standing("drained" if drained else "cordoned", known.cordoned)
        if words := self._distrusted.get(node):
            return Standing("refused", words)
        health = self._health.get(node, Health())
        words = quarantine.quarantined(health, now)
        if words is None:
            return None
        return Standing("quarantined", words, quarantine.in_short(health))

    def distrust(self, node: str, words: str) -> None:
        """It says what cannot be, and gets nothing while it does; empty words: it does not."""
        if words:
            self._distrusted[node] = words
        else:
            self._distrusted.pop(node, None)

    def on_probation(self, node: str) -> bool:
        """Whether it gets one build at a time, for having failed some."""
        return quarantine.on_probation(self._health.get(node, Health()), time.monotonic())

    def failed(self, build: Build, cause: str) -> None:
        """Its node failed this build for a reason of its own."""
        assert build.node is not None
        node, now = build.node.id, time.monotonic()
        places = [step.at for step in build.history if step.event == Event.PLACE.value]
        placed = now - (time.time() - places[-1]) if places else None
        before = self._health.get(node, Health())
        self._health[node] = quarantine.after_failure(before, now, cause, self._rule, placed)

    def did_well(self, node: str) -> bool:
        """A build reached its own result there; whether that changes anything."""
        before = self._health.get(node, Health())
        self._health[node] = quarantine.after_success(before)
        return self._health[node] != before

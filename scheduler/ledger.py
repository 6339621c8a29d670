"""The scheduler's record of its builds, and the indexes that derive from it: who waits, who is
on which node.
"""

from collections import defaultdict

from msgspec.structs import replace

from protocol.board import Board
from protocol.model import Build, Forward, Stage
from scheduler.core.queue import order


class Ledger:
    """Every build by id. All changes go through `put`."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.forwards: dict[str, Forward] = {}  # builds of schedulers above us, as they came
        self._waiting: set[str] = set()
        self._on_node: defaultdict[str, set[str]] = defaultdict(set)  # node -> builds

    def __contains__(self, build_id: str) -> bool:
        return build_id in self.board

    def get(self, build_id: str) -> Build:
        """The newest value. Raises NotFound."""
        return self.board.get(build_id)

    def put(self, build: Build) -> Build:
        """Record a build's newest value."""
        if build.id in self.board and (before := self.board.get(build.id).node):
            self._on_node[before.id].discard(build.id)
        if build.node is not None and build.stage not in (Stage.QUEUED, Stage.STOPPED):
            self._on_node[build.node.id].add(build.id)
        if build.stage is Stage.QUEUED:
            self._waiting.add(build.id)
        else:
            self._waiting.discard(build.id)
        return self.board.put(build)

    def forget(self, build_id: str) -> None:
        """Drop a build that has stopped."""
        self.forwards.pop(build_id, None)
        self.board.forget(build_id)

    @property
    def waiting(self) -> int:
        """How many builds wait."""
        return len(self._waiting)

    def queue(self, now: float) -> list[Build]:
        """The builds that wait, the next one first."""
        return order((self.board.get(key) for key in self._waiting), now)

    def on_node(self, node: str) -> frozenset[str]:
        """Ids of the builds whose attempt is on this node."""
        return frozenset(self._on_node.get(node, ()))

    def nodes_in_use(self) -> frozenset[str]:
        """Ids of the nodes that builds are on."""
        return frozenset(node for node, builds in self._on_node.items() if builds)

    def as_asked(self, build: Build) -> Build:
        """As the scheduler above knows it, if there is one: all our attempts are one of its own."""
        forward = self.forwards.get(build.id)
        return build if forward is None else replace(build, attempt=forward.attempt)

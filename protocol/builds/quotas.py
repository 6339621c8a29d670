"""How much one owner may have of a program: builds that wait, builds that run, bytes of artifacts.
A limit of 0 is none.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from protocol.errors import Conflict, TooOften
from protocol.model.build import Build, Stage

_AGAIN = 30  # seconds after which a create is worth repeating that found too many waiting


class Limits(Struct, frozen=True):
    """What one owner may have; 0: as much as there is."""

    waiting: int = 0  # builds
    running: int = 0  # builds at the same time
    size: int = 0  # bytes of the artifacts that are kept


class Tally:
    """What each owner has, kept as builds change."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._size: Counter[str] = Counter()

    def change(self, before: Build | None, after: Build | None) -> None:
        """A build came (no `before`), changed, or went (no `after`)."""
        if before is not None:
            self._count(before, -1)
        if after is not None:
            self._count(after, 1)

    def waiting(self, owner: str) -> int:
        """Builds that wait."""
        return self._waiting[owner]

    def running(self, owner: str) -> int:
        """Builds that are on nodes, or on their way."""
        return self._running[owner]

    def size(self, owner: str) -> int:
        """Bytes of artifacts that are kept."""
        return self._size[owner]

    def _count(self, build: Build, sign: int) -> None:
        size = sum(artifact.size for artifact in build.artifacts if artifact.kept)
        queued, stopped = build.stage is Stage.QUEUED, build.stage is Stage.STOPPED
        amounts = ((self._waiting, queued), (self._running, not queued and not stopped))
        for counter, amount in (*amounts, (self._size, size)):
            counter[build.owner] += sign * int(amount)
            if not counter[build.owner]:  # owners come and go
                del counter[build.owner]


class Quotas:
    """The limits, applied."""

    def __init__(self, limits: Limits, tally: Tally) -> None:
        self._limits = limits
        self._tally = tally
        self._coming: Counter[str] = Counter()  # builds that are being written down

    def check(self, owner: str) -> None:
        """Raises TooOften where too many builds of this owner wait, Conflict where the artifacts of
        their builds have too many bytes.
        """
        limits = self._limits
        waiting = self._tally.waiting(owner) + self._coming[owner]
        if limits.waiting and waiting >= limits.waiting:
            raise TooOften(
                f"{waiting} builds of {owner or 'nobody'} wait already",
                retry_after=_AGAIN,
                field="owner",
                expected=f"fewer than {limits.waiting} that wait",
            )
        size = self._tally.size(owner)
        if limits.size and size >= limits.size:
            raise Conflict(
                f"the artifacts of {owner or 'nobody'} have {size} bytes",
                field="owner",
                expected=f"fewer than {limits.size} bytes: delete builds that nobody needs",
            )

    @contextmanager
    def one_coming(self, owner: str) -> Iterator[None]:
        """A build of this owner is being written down meanwhile. Raises as `check`."""
        self.check(owner)
        self._coming[owner] += 1
        try:
            yield
        finally:
            self._coming[owner] -= 1
            if not self._coming[owner]:
                del self._coming[owner]

    def why_not(self, owner: str, running: int | None = None) -> str:
        """Why no further build of this owner may begin; empty: it may. `running`: how many do,
        where the caller knows better.
        """
        running = self._tally.running(owner) if running is None else running
        limit = self._limits.running
        if not limit or running < limit:
            return ""
        return f"{running} builds of its owner run already, and {limit} may"

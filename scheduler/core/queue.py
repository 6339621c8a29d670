"""In which order waiting builds are placed: by priority, then fairly between owners, then by age;
waiting lifts priority slowly, so that nothing starves.

The waiting builds of one owner and one declared priority are a *line*, oldest first. Of all lines,
the next build comes from the one

1. with the highest priority: the declared one, and a step more for each LIFT that the line's first
   build has waited since it was created, or since the line was last served if that is later;
2. whose owner has the fewest builds running;
3. whose wait is longest, as counted in 1; then with the oldest build; then by id.

That a line which was served starts to wait anew keeps an owner with a thousand old builds from
outranking a newcomer. That each priority of an owner has a line of its own keeps an old backlog
from blocking the same owner's urgent builds, and these from making the backlog wait for ever.

**Nothing starves.** D priorities above its own (0 for the highest), with F other lines, and builds
of at most S seconds on k slots, the first of a line starts within

    (D + 1) * LIFT + S * ceil((F + 1) / k)

seconds, whatever arrives meanwhile: after (D + 1) * LIFT no line that is served, and none that is
new, can get ahead of it any more, so each other line goes before it at most once. The nth of a line
starts within n times that. It holds for builds that a node would take.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heapreplace

from msgspec import Struct, field

from protocol.model.build import Build

LIFT = 600.0
"""Seconds of waiting that weigh as much as one step of priority."""

_Line = tuple[str, int]  # owner, declared priority
_Rank = tuple[float, int, float, float, str]  # of a line; the lowest is next


class Share(Struct, frozen=True):
    """What an owner has of the pool."""

    running: int = 0  # builds that are on nodes now
    served: Mapping[int, float] = field(default_factory=dict)
    """Declared priority -> when one such build was last started, seconds since the epoch."""

    def started(self, priority: int, now: float) -> "Share":
        """With one build more."""
        return Share(self.running + 1, {**self.served, priority: now})


_NOTHING = Share()


class Turns(Iterator[Build]):
    """Waiting builds, the next one first; made as they are asked for.

    Each counts as started when the next one is asked for, unless it was `passed_over`.
    """

    def __init__(self, builds: Iterable[Build], shares: Mapping[str, Share], now: float) -> None:
        self._now = now
        self._shares = dict(shares)
        self._waiting: defaultdict[_Line, list[tuple[float, str, Build]]] = defaultdict(list)
        for build in builds:
            line = (build.owner, build.request.guidance.priority)
            self._waiting[line].append((build.created, build.id, build))
        for waiting in self._waiting.values():
            heapify(waiting)
        self._lines = [(self._rank(line), line) for line in self._waiting]
        heapify(self._lines)
        self._latest: _Line | None = None

    def __next__(self) -> Build:
        self._count_latest()
        line = self._next_line()
        waiting = self._waiting[line]
        build = heappop(waiting)[2]
        if waiting:
            heapreplace(self._lines, (self._rank(line), line))
        else:
            heappop(self._lines)
        self._latest = line
        return build

    def passed_over(self) -> None:
        """The latest build was not started, no node would take it now: its owner is not charged.

        Without this, a build that no node ever takes would make those behind it wait for ever.
        """
        self._latest = None

    def _count_latest(self) -> None:
        if self._latest is not None:
            owner, priority = self._latest
            share = self._shares.get(owner, _NOTHING)
            self._shares[owner] = share.started(priority, self._now)
            self._latest = None

    def _next_line(self) -> _Line:
        """The line with the lowest rank, now on top. Ranks on the heap may be outdated, but only
        too low: a start makes the rank of its owner's lines no lower.
        """
        while self._lines:
            rank, line = self._lines[0]
            current = self._rank(line)
            if rank == current:
                return line
            heapreplace(self._lines, (current, line))
        raise StopIteration

    def _rank(self, line: _Line) -> _Rank:
        owner, priority = line
        share = self._shares.get(owner, _NOTHING)
        created, build_id, _ = self._waiting[line][0]
        # Not in the future, also where a clock was set back.
        since = min(self._now, max(created, share.served.get(priority, created)))
        lift = (self._now - since) // LIFT
        return (-priority - lift, share.running, since, created, build_id)


def in_order(builds: Iterable[Build], shares: Mapping[str, Share], now: float) -> Turns:
    """The waiting builds, the next one first.

    `shares`: what each owner has, none where it is not named. `now`: seconds since the epoch. Ids
    are unique; the order that builds come in does not matter.
    """
    return Turns(builds, shares, now)

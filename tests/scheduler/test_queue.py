"""The order of waiting builds: by example, what holds of any queue, and what becomes of builds in
a simulated pool that never gets to the end of its queue.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from math import ceil

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as some
from msgspec import Struct

from protocol.model.build import Build, new_build
from protocol.model.request import BuildRequest, Guidance
from scheduler.core.queue import LIFT, Share, in_order

NOW = 10 * LIFT


def a_build(name: str, owner: str = "ann", priority: int = 0, at: float = NOW - 1) -> Build:
    """A waiting build. `at`: when it was created."""
    request = BuildRequest(guidance=Guidance(priority=priority))
    return new_build(name, request, origin="o", owner=owner, now=at)


def many(number: int, owner: str = "ann", priority: int = 0, at: float = 0) -> list[Build]:
    """Builds of one owner, created a second apart."""
    return [a_build(f"{owner}-{n:04}", owner, priority, at + n) for n in range(number)]


def ids(builds: Iterator[Build], first: int | None = None) -> list[str]:
    """Of the first so many builds."""
    return [build.id for build in islice(builds, first)]


# By example


def test_priority_goes_before_age() -> None:
    """The highest first, and the oldest of these."""
    builds = [
        a_build("new", at=NOW - 2),
        a_build("old", at=NOW - 3),
        a_build("urgent", priority=1, at=NOW - 1),
    ]
    assert ids(in_order(builds, {}, NOW)) == ["urgent", "old", "new"]


@pytest.mark.parametrize(("waited", "first"), [(2 * LIFT - 1, "urgent"), (2 * LIFT, "old")])
def test_waiting_lifts_priority_slowly(waited, first) -> None:
    """One step for each LIFT; where that makes builds equal, the older one is first."""
    builds = [
        a_build("old", "ann", at=NOW - waited),
        a_build("urgent", "bob", priority=2, at=NOW - 1),
    ]
    assert ids(in_order(builds, {}, NOW))[0] == first


def test_owners_of_equal_priority_take_turns() -> None:
    """However many each has."""
    builds = [*many(3, "ann"), *many(2, "bob", at=100)]
    order = ids(in_order(builds, {}, NOW))
    assert order == ["ann-0000", "bob-0000", "ann-0001", "bob-0001", "ann-0002"]


def test_the_owner_with_fewer_running_builds_is_next() -> None:
    """Until both have as many."""
    builds = [*many(3, "ann", at=NOW - 90), *many(3, "bob", at=NOW - 80)]
    order = in_order(builds, {"ann": Share(running=2)}, NOW)
    assert ids(order, 3) == ["bob-0000", "bob-0001", "ann-0000"]


def test_an_old_backlog_does_not_block_the_same_owners_urgent_build() -> None:
    """Ann's old builds have been lifted far above it, and were served a moment ago: it still goes
    before Bob's, which are less urgent.
    """
    builds = [*many(9, "ann"), a_build("urgent", "ann", priority=5), *many(9, "bob", 3, NOW - 50)]
    shares = {"ann": Share(running=1, served={0: NOW - 2})}
    assert ids(in_order(builds, shares, NOW))[0] == "urgent"


def test_a_build_that_no_node_takes_does_not_hold_up_those_behind_it() -> None:
    """Its owner is not charged for it."""
    builds = [*many(2, "ann"), a_build("urgent", "bob", priority=1)]
    order = in_order(builds, {}, NOW)
    assert next(order).id == "ann-0000"
    order.passed_over()
    assert ids(order) == ["ann-0001", "urgent"]


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    """A time in the future counts as now: it takes nothing from the declared priority."""
    later = NOW + 9 * LIFT
    builds = [a_build("b", priority=2), a_build("a", "bob", 1, at=later), a_build("c", "cid")]
    shares = {"ann": Share(served={2: later})}
    assert ids(in_order(builds, shares, NOW)) == ["b", "a", "c"]


def test_an_empty_queue() -> None:
    """Has no first build."""
    assert next(in_order([], {}, NOW), None) is None


# What holds of any queue

OWNERS = some.sampled_from(["ann", "bob", "cid", ""])
PRIORITIES = some.integers(-2, 2)
MOMENTS = some.one_of(
    some.integers(0, int(NOW)), some.sampled_from([0, LIFT, NOW, NOW + LIFT])
).map(float)  # also in the future: a clock may have been set back
SHARES = some.dictionaries(
    OWNERS,
    some.builds(Share, some.integers(0, 5), some.dictionaries(PRIORITIES, MOMENTS)),
)


@some.composite
def queues(draw) -> list[Build]:
    """Waiting builds with ids that say nothing of their age."""
    rows = draw(some.lists(some.tuples(OWNERS, PRIORITIES, MOMENTS), max_size=25))
    names = draw(some.permutations([f"{n:02}" for n in range(len(rows))]))
    return [a_build(name, *row) for name, row in zip(names, rows, strict=True)]


@given(queues(), SHARES, some.randoms(use_true_random=False))
def test_it_is_a_permutation_whatever_the_order_of_input(builds, shares, random) -> None:
    """Every build once, and always in the same order."""
    order = ids(in_order(builds, shares, NOW))
    assert sorted(order) == sorted(build.id for build in builds)
    random.shuffle(builds)
    assert ids(in_order(builds, shares, NOW)) == order


@given(queues(), SHARES, some.data())
def test_going_on_is_the_same_as_asking_anew(builds, shares, data) -> None:
    """Whether each build is started or passed over: one pass over the queue gives what asking for
    the first one again and again would, with the shares brought up to date.
    """
    order, left, owned = in_order(builds, shares, NOW), list(builds), dict(shares)
    for build in order:
        assert build == next(in_order(left, owned, NOW))
        left.remove(build)
        if data.draw(some.booleans()):
            share = owned.get(build.owner, Share())
            owned[build.owner] = share.started(build.request.guidance.priority, NOW)
        else:
            order.passed_over()


@given(queues(), SHARES)
def test_builds_of_one_owner_and_priority_go_by_age(builds, shares) -> None:
    """The oldest first, then by id."""
    lines = defaultdict(list)
    for build in in_order(builds, shares, NOW):
        lines[build.owner, build.request.guidance.priority].append((build.created, build.id))
    assert all(line == sorted(line) for line in lines.values())


@given(
    some.integers(0, 20),
    some.integers(0, 20),
    some.none() | some.floats(0, NOW - 1),
    some.none() | some.floats(0, NOW - 1),
    some.floats(0, NOW - 1),
)
def test_no_owner_waits_behind_anothers_thousand(anns, bobs, ann_served, bob_served, at) -> None:
    """Of Ann's thousand older builds at most as many go before Bob's only one as he has more
    running than she; or one, the oldest, where he has no more than she.
    """
    builds = [*(a_build(f"a{n:04}", "ann", at=0) for n in range(1000)), a_build("b", "bob", at=at)]
    shares = {
        "ann": Share(anns, {} if ann_served is None else {0: ann_served}),
        "bob": Share(bobs, {} if bob_served is None else {0: bob_served}),
    }
    place = ids(in_order(builds, shares, NOW), 25).index("b")
    assert place <= max(1, bobs - anns)


def test_the_first_of_ten_thousand_are_found_at_once() -> None:
    """In far less time than a placement takes, of many owners and of one."""
    for owners in (1, 50, 10_000):
        builds = [
            a_build(f"{n}", f"owner-{n % owners}", n % 3, n * 7919 % NOW) for n in range(10_000)
        ]
        before = time.thread_time()
        assert len(ids(in_order(builds, {}, NOW), 5)) == 5
        assert time.thread_time() - before < 0.5  # 0.003 to 0.03


# A pool that never gets to the end of its queue


class Stream(Struct, frozen=True):
    """Builds that one owner sends without end."""

    owner: str
    priority: int
    every: float  # seconds
    takes: float  # seconds on a slot
    start: float = 0.0
    placeable: bool = True  # False: no node ever takes one
    burst: int = 1  # builds at once

    def builds(self, name: str, until: float) -> Iterator[Build]:
        """All that arrive until then."""
        moment, number = self.start, 0
        while moment < until:
            for _ in range(self.burst):
                yield a_build(f"{name}-{number:05}", self.owner, self.priority, moment)
                number += 1
            moment += self.every


class Pool:
    """Slots, and a queue that is looked at whenever a build arrives or a slot becomes free."""

    def __init__(self, streams: list[Stream], slots: int, until: float) -> None:
        self.streams = streams
        self.slots = slots
        self.until = until
        self.started: dict[str, float] = {}
        self.ahead: dict[str, int] = {}  # place in its line when it arrived, from 1
        self.arrivals = sorted(
            (build.created, build.id, build)
            for number, stream in enumerate(streams)
            for build in stream.builds(str(number), until)
        )
        self._waiting: dict[str, Build] = {}
        self._running: list[tuple[float, str, str]] = []  # end, id, owner
        self._served: defaultdict[str, dict[int, float]] = defaultdict(dict)

    def stream(self, build_id: str) -> Stream:
        """Where a build is from."""
        return self.streams[int(build_id.partition("-")[0])]

    def run(self) -> None:
        """Until the end of time."""
        coming = list(reversed(self.arrivals))
        while coming or self._running:
            ends = self._running[0][0] if self._running else self.until
            now = min(ends, coming[-1][0] if coming else self.until)
            if now >= self.until:
                return
            while self._running and self._running[0][0] <= now:
                heappop(self._running)
            while coming and coming[-1][0] <= now:
                self._arrive(coming.pop()[2])
            self._place(now)

    def _arrive(self, build: Build) -> None:
        line = [
            other
            for other in self._waiting.values()
            if other.owner == build.owner
            and other.request.guidance.priority == build.request.guidance.priority
            and self.stream(other.id).placeable
        ]
        self.ahead[build.id] = len(line) + 1
        self._waiting[build.id] = build

    def _place(self, now: float) -> None:
        running = Counter(owner for _, _, owner in self._running)
        owners = self._served.keys() | running.keys()
        shares = {owner: Share(running[owner], self._served[owner]) for owner in owners}
        order = in_order(self._waiting.values(), shares, now)
        while len(self._running) < self.slots and (build := next(order, None)) is not None:
            stream = self.stream(build.id)
            if not stream.placeable:
                order.passed_over()
                continue
            del self._waiting[build.id]
            self.started[build.id] = now
            self._served[build.owner][build.request.guidance.priority] = now
            heappush(self._running, (now + stream.takes, build.id, build.owner))


def too_late(pool: Pool) -> list[str]:
    """Builds that did not start within the bound that scheduler/core/queue.py states."""
    lines = {(stream.owner, stream.priority) for stream in pool.streams}
    highest = max(stream.priority for stream in pool.streams)
    longest = max(stream.takes for stream in pool.streams)
    late = []
    for created, key, build in pool.arrivals:
        steps = highest - build.request.guidance.priority
        once = (steps + 1) * LIFT + longest * ceil(len(lines) / pool.slots)
        limit = created + pool.ahead.get(key, 0) * once
        if pool.stream(key).placeable and limit < min(
            pool.started.get(key, pool.until), pool.until
        ):
            late.append(f"{build.owner} {key} of {created}, due {limit}: {pool.started.get(key)}")
    return late


STREAMS = some.builds(
    Stream,
    owner=OWNERS,
    priority=some.integers(0, 2),
    every=some.sampled_from([50.0, 211.0, 1000.0, 1e9]),
    takes=some.sampled_from([20.0, 97.0, 300.0]),
    start=some.sampled_from([0.0, 1.0, 333.0, 1500.0]),
    placeable=some.sampled_from([True, True, True, False]),
    burst=some.integers(1, 3),
)


# Not shrunk, which would take minutes: the streams are few and simple anyway.
@settings(deadline=None, max_examples=60, phases=set(Phase) - {Phase.shrink, Phase.explain})
@given(some.lists(STREAMS, min_size=1, max_size=6), some.integers(1, 3))
def test_every_build_starts_within_the_bound(streams, slots) -> None:
    """Whatever streams without end there are, and though some builds suit no node."""
    pool = Pool(streams, slots, 12 * LIFT)
    pool.run()
    assert not too_late(pool)


ONE = Stream("ann", 0, every=1e9, takes=60)


@pytest.mark.parametrize(
    "flood",
    [
        [Stream("bob", 2, every=30, takes=60)],
        [Stream("ann", 2, every=30, takes=60)],
        [Stream("ann", 2, every=30, takes=60), Stream("bob", 1, every=30, takes=60)],
        [Stream(f"owner-{n}", 2, every=900, takes=60, start=n * 30) for n in range(30)],
        [Stream("bob", 2, every=30, takes=60), Stream("ann", 0, every=1e9, takes=60, burst=3)],
        [
            Stream("ann", 0, every=700, takes=60, start=0, placeable=False),
            Stream("bob", 2, every=30, takes=60),
        ],
    ],
    ids=["another's", "its own", "both", "ever new owners", "behind its own", "behind unplaceable"],
)
def test_a_flood_of_higher_priority_does_not_starve_a_build(flood) -> None:
    """There are twice as many builds as the pool can do, and the one starts all the same."""
    pool = Pool([*flood, ONE], 1, 20 * LIFT)
    pool.run()
    assert not too_late(pool)
    assert f"{len(flood)}-00000" in pool.started


def test_a_newcomer_is_served_beside_a_thousand() -> None:
    """Ann keeps two slots busy with a thousand builds; each of Bob's starts as soon as one is
    free.
    """
    anns = Stream("ann", 0, every=1e9, takes=100, burst=1000)
    bobs = Stream("bob", 0, every=350, takes=100, start=3005)
    pool = Pool([anns, bobs], 2, 10_000)
    pool.run()
    waits = [pool.started[key] - created for created, key, _ in pool.arrivals if key[0] == "1"]
    assert len(waits) == 20
    assert max(waits) <= 100


def test_busy_owners_get_equally_much() -> None:
    """Though one sends ten times as many builds as the other."""
    pool = Pool([Stream("ann", 0, 10, 100, burst=2), Stream("bob", 0, 100, 100, burst=4)], 4, 5000)
    pool.run()
    counts = Counter(pool.stream(key).owner for key in pool.started)
    assert abs(counts["ann"] - counts["bob"]) <= 4

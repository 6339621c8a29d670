"""A random schedule of faults on a pool of five nodes: nothing acknowledged is lost, nothing ends
twice, and when all is healed every build has ended.

`make chaos SEED=n N=200` plays the schedule of one seed with N builds.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from protocol.model.build import Build, Result, State
from tests.chaos.journal import Play, plays
from tests.chaos.schedule import Schedule, Wish, drawn
from tests.chaos.turmoil import Outcome, Programs, Turmoil
from tests.figures import Figures

pytestmark = [pytest.mark.system, pytest.mark.chaos, pytest.mark.gen_test(timeout=200)]

SEEDS = [int(os.environ["SEED"])] if os.environ.get("SEED") else list(range(1, 21))
BUILDS = int(os.environ.get("N") or 200)
HOUR = 3600.0
NODES = 5
SHARED = 4  # seeds that are played with the same programs


class Shelf:
    """Programs that live on from one test to the next, until they know many builds, or something
    went wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: Programs | None = None
        self._made = 0
        self._used = 0

    def programs(self) -> Programs:
        """Those that are there, or new ones."""
        self._used += 1
        if self._used > SHARED:
            self.clear()
        if self._programs is None:
            self._made, self._used = self._made + 1, 1
            home = self._folder / str(self._made)
            home.mkdir()
            self._programs = Programs(home, *[0.0] * NODES)
            self._programs.begin()
        return self._programs

    def clear(self) -> None:
        """End them."""
        programs, self._programs = self._programs, None
        if programs is not None:
            programs.end()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The pool of all seeds."""
    shelf = Shelf(tmp_path_factory.mktemp("random"))
    yield shelf
    shelf.clear()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_random_schedule(seed: int, shelf: Shelf, figures: Figures) -> None:
    """Kill, stop, partition, slow, lost and repeated messages; the scheduler is killed too."""
    programs = shelf.programs()
    try:
        figures(await _played(drawn(seed, BUILDS, list(programs.nodes)), programs))
    except BaseException:
        shelf.clear()
        raise


async def test_clocks_an_hour_apart(tmp_path: Path, figures: Figures) -> None:
    """The same where nodes' clocks are an hour ahead or behind; the roster shows by how much."""
    clocks = (HOUR, -HOUR, HOUR, -HOUR, 0.0)
    programs = Programs(tmp_path, *clocks)
    try:
        programs.begin()
        figures(await _played(drawn(99, 60, list(programs.nodes)), programs, clocks))
    finally:
        programs.end()


async def _played(schedule: Schedule, programs: Programs, clocks: tuple[float, ...] = ()) -> str:
    """A line of figures; fails with all that may help where something is wrong."""
    async with Turmoil(programs, schedule) as turmoil:
        try:
            outcome = await turmoil.play()
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(
                f"seed {schedule.seed}: {error!r}\n{error}\n{await turmoil.told([])}"
            ) from error
        ids = set(outcome.heard.values())
        played = [
            play
            for play in plays(*(node.data for node in programs.nodes.values()))
            if play.build in ids
        ]
        wrong = [*_in_records(schedule, outcome), *_in_journals(outcome, played)]
        if wrong:
            words = "\n".join(f"{key}: {what}" for key, what in wrong[:50])
            told = await turmoil.told(list(dict.fromkeys(key for key, _ in wrong)))
            raise AssertionError(f"seed {schedule.seed}: {len(wrong)} wrong\n{words}\n{told}")
        for number, clock in enumerate(clocks):
            (entry,) = [node for node in outcome.roster.nodes if node.name == f"node{number}"]
            assert entry.clock == pytest.approx(clock, abs=2.0)
    return _in_words(schedule, outcome, played)


def _in_records(schedule: Schedule, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """What is wrong with what clients heard and saw: (build, what)."""
    if len(set(outcome.heard.values())) != len(schedule.wishes):
        yield "", f"{len(set(outcome.heard.values()))} builds for {len(schedule.wishes)} creates"
    for key in outcome.builds.keys() - set(outcome.heard.values()):
        yield key, "nobody was told of it"
    for wish in schedule.wishes:
        build_id = outcome.heard[wish.key]
        build = outcome.builds.get(build_id)
        if build is None:
            yield build_id, "acknowledged, and not there"
            continue
        for what in _in_record(wish, build, outcome):
            yield build_id, what
    for key, stated, downloaded in outcome.digests:
        if stated != downloaded:
            yield key, f"its image has the digest {downloaded}, not {stated}"


def _in_record(wish: Wish, build: Build, outcome: Outcome) -> Iterator[str]:
    allowed = {wish.result} | ({Result.CANCELLED} if wish.cancel is not None else set())
    if build.owner != wish.owner:
        yield f"it is {build.owner}'s, not {wish.owner}'s"
    if build.result not in allowed:
        yield f"it is {build.state.value}, {build.result}: {build.reason}"
    if len(outcome.results[build.id]) != 1:
        yield f"it ended in several ways: {outcome.results[build.id]}"
    if (
        sum(step.event != "accepted" and step.stage.value == "stopped" for step in build.history)
        != 1
    ):
        yield "its history does not have one end"
    answer = outcome.answers.get(build.id)
    if answer is not None and (answer.state, answer.result) != (State.STOPPED, build.result):
        yield f"who cancelled was answered {answer.state.value}, {answer.result}: {build.result}"
    if wish.image and build.result is Result.SUCCEEDED and len(build.artifacts) != 1:
        yield f"its images are {build.artifacts}"


def _in_journals(outcome: Outcome, played: list[Play]) -> Iterator[tuple[str, str]]:
    """What is wrong with what the engines played: (build, what)."""
    for play in played:
        if play.left:
            yield play.build, f"its container {play.container[:12]} is left on {play.node}"
    for (build_id, attempt), nodes in _where(played).items():
        if len(nodes) > 1:
            yield build_id, f"attempt {attempt} was on {sorted(nodes)}"
    ends = Counter((p.build, p.attempt, p.node, p.life) for p in played if p.ended)
    for (build_id, attempt, node, _), count in ends.items():
        if count > 1:
            yield build_id, f"attempt {attempt} ended {count} times on {node}"
    ended = {(p.build, p.attempt) for p in played if p.ended}
    for build in outcome.builds.values():
        played_out = build.result in (Result.SUCCEEDED, Result.FAILED)
        if played_out and (build.id, build.attempt) not in ended:
            yield build.id, f"attempt {build.attempt} is its result, and did not end"


def _where(played: list[Play]) -> dict[tuple[str, int], set[str]]:
    found: dict[tuple[str, int], set[str]] = {}
    for play in played:
        found.setdefault((play.build, play.attempt), set()).add(play.node)
    return found


def _in_words(schedule: Schedule, outcome: Outcome, played: list[Play]) -> str:
    builds = outcome.builds
    accepted = {(build.id, build.attempt) for build in builds.values()}
    ends = Counter(p.build for p in played if p.ended and (p.build, p.attempt) in accepted)
    counts = {
        "creates": len(schedule.wishes),
        "builds": len(builds),
        "lost": len(set(outcome.heard.values()) - builds.keys()),
        "with two results": sum(len(seen) > 1 for seen in outcome.results.values()),
        "accepted attempts that ended twice": sum(count > 1 for count in ends.values()),
        "superseded attempts that ended too": sum(p.ended for p in played) - ends.total(),
        "containers": len(played),
        "of them died with their node": sum(p.died for p in played),
        "left": sum(p.left for p in played),
        "builds tried again": sum(build.attempt > 1 for build in builds.values()),
        "images digested": len(outcome.digests),
    }
    results = Counter(build.result.value for build in builds.values() if build.result)
    faults = Counter(fault.what for fault in schedule.faults)
    parts = (counts, results, faults, outcome.done)
    return f"seed {schedule.seed}: " + "; ".join(map(_listed, parts))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())

"""Programs that do not hear each other for longer than the loss limit, or that stand still, and
then go on: each build has one result, and what was superseded is gone.

Every program runs on its own machine of a LAN; what ran is counted in the engines' journals.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from protocol.model.build import Build, Result, Stage
from protocol.model.request import Needs
from tests.chaos.wire import SCALED, events, journal, left_over, runs, shows, starts, stopped
from tests.figures import Figures
from tests.system.lan import Host, Lan, a_lan
from tests.system.pool import PoolOnLan, Program, Scheduler

pytestmark = [pytest.mark.system, pytest.mark.chaos]

MINUTE = 60.0
"""Seconds that a program stands still, or a link is down."""
HEALED = 15.0
"""Seconds after which everything has settled again."""
WAYS = {
    "deaf": {"incoming": True, "outgoing": False},
    "mute": {"incoming": False, "outgoing": True},
    "cut": {"incoming": True, "outgoing": True},
}
"""Machine -> what is lost on its wire."""


def ended_once(scheduler: Scheduler, build_id: str, seconds: float = 20.0) -> Build:
    """The build when it has ended: with success, and once in its history."""
    build = scheduler.build_until(build_id, stopped, seconds)
    assert build.result is Result.SUCCEEDED, build
    assert [step.stage for step in build.history].count(Stage.STOPPED) == 1, build
    return build


def began_again(build: Build) -> bool:
    """Whether the commands of a second attempt run, or ran."""
    return build.attempt == 2 and (runs(build) or stopped(build))


def settled(node: Program) -> None:
    """Wait until everything that ever ran on this node has ended there; no container is left."""
    for key in {line.build for line in journal(node)}:
        node.build_until(key, stopped, HEALED)
    assert not left_over(node), journal(node)


def never_superseded(scheduler: Scheduler, builds: list[str], *nodes: Program) -> None:
    """Each of these builds succeeded in its first attempt, and was started once."""
    for key in builds:
        build = ended_once(scheduler, key)
        assert build.attempt == 1, build
        assert len(starts(key, *nodes)) == 1, starts(key, *nodes)
        assert not [event for event in build.history if event.event == "lose"]


# A node that is not heard, or does not hear


def test_partition_longer_than_the_loss_limit_leaves_one_result(
    tmp_path: Path, figures: Figures
) -> None:
    """Three nodes are cut off, one in each direction and one in both, with a build that runs all
    the time, one that ends meanwhile, and one that is just sent there. Each is begun again on a
    fourth node. When the nodes are back, each build has the one result from there, and what still
    ran of it was killed and removed.
    """
    with a_lan("control", *WAYS, "spare") as lan:
        pool = PoolOnLan(tmp_path)
        scheduler = pool.scheduler(lan["control"], settings=SCALED)
        nodes = {
            name: pool.node(lan[name], slots=3, priority=10, settings={"labels": name})
            for name in WAYS
        }
        spare = pool.node(lan["spare"], slots=16, settings={"labels": ",".join(WAYS)})
        scheduler.has_ready(spare, *nodes.values())
        identities = [node.id for node in nodes.values()]
        submit = {name: partial(scheduler.submit, needs=Needs(labels=(name,))) for name in WAYS}
        runs_on = {name: submit[name]("print working", "sleep 8") for name in WAYS}
        ends = {name: submit[name]("print working", "sleep 2") for name in WAYS}
        for key in (*runs_on.values(), *ends.values()):
            scheduler.build_until(key, runs)
        cut = time.time()
        for name, way in WAYS.items():
            lan[name].cut(**way)
        sent = {name: submit[name]("print working") for name in WAYS}
        scheduler.roster_until(shows("lost", *identities))
        begun = [scheduler.build_until(key, began_again) for key in runs_on.values()]
        for name, way in WAYS.items():
            lan[name].mend(**way)
        mended = time.monotonic()
        _, back = scheduler.roster_until(shows("ready", *identities), HEALED)
        for name, node in nodes.items():
            check_superseded(node, spare, runs_on[name], ends[name])
            ended_once(scheduler, sent[name])
            settled(node)
            assert ended_once(scheduler, runs_on[name]).attempt == 2
            assert ended_once(scheduler, ends[name]).attempt == 2
        settled(spare)
        assert {build.node.name for build in begun if build.node} == {"spare"}
        again = [journal(spare, key)[0].at - cut for key in runs_on.values()]
        heard = {name: len(journal(nodes[name], sent[name])) > 0 for name in WAYS}
        figures(
            f"partition, limit {SCALED['lost_after']:g} s: builds begun elsewhere after "
            f"{min(again):.2f} to {max(again):.2f} s, nodes ready {back - mended:.2f} s after it "
            f"healed; builds sent into it had begun there: {heard}"
        )


def check_superseded(node: Program, spare: Program, runs_on: str, ends: str) -> None:
    """What the engines say of a build that ran when its node was back, and one that had ended."""
    node.build_until(runs_on, stopped)
    assert events(node, runs_on) == [("start", 1), ("kill", 1), ("remove", 1)]
    assert events(node, ends) == [("start", 1), ("end", 1), ("remove", 1)]
    for build in (runs_on, ends):
        assert starts(build, node, spare) == [(node.host.name, 1), ("spare", 2)]


# A scheduler that is not heard, or does not hear


class Case:
    """A pool of its own on the LAN: a scheduler with these settings and two nodes, of which the
    first one gets all builds.
    """

    def __init__(self, lan: Lan, pool: PoolOnLan, name: str, settings: dict[str, float]) -> None:
        self.name = name
        self.scheduler = pool.scheduler(lan.add(f"{name}0"), pool=name, settings=settings)
        self.nodes = [
            pool.node(lan.add(f"{name}{number}"), pool=name, slots=4, priority=-number)
            for number in (1, 2)
        ]
        self.scheduler.has_ready(*self.nodes)
        self.identities = [node.id for node in self.nodes]

    def running(self, *seconds: float) -> list[str]:
        """Builds that run now and take so long."""
        builds = [self.scheduler.submit("print working", f"sleep {length}") for length in seconds]
        for key in builds:
            self.scheduler.build_until(key, runs)
        return builds


def hears_again(case: Case, mend: Callable[[], object]) -> None:
    """The scheduler goes on, and the node that has the builds answers a moment later than the other
    one does: that is no loss either.
    """
    one, other = case.nodes
    one.process.stop()
    mend()
    case.scheduler.has_ready(other)
    one.process.cont()


OWN_WIRE: dict[str, tuple[Callable[[Host], None], Callable[[Host], None]]] = {
    "unplugged": (Host.unplug, Host.plug_in),
    "mute": (partial(Host.cut, incoming=False), partial(Host.mend, incoming=False)),
    "deaf": (partial(Host.cut, outgoing=False), partial(Host.mend, outgoing=False)),
}
"""What may happen to a scheduler's wire, and how that is undone."""


def test_schedulers_own_silence_supersedes_nothing(tmp_path: Path) -> None:
    """A scheduler whose own wire is broken, in any way, for longer than the loss limit, hears no
    node: that says nothing of them. Builds go on where they are.
    """
    with a_lan() as lan:
        pool = PoolOnLan(tmp_path)
        cases = {way: Case(lan, pool, way, SCALED) for way in OWN_WIRE}
        builds = {way: case.running(8, 1) for way, case in cases.items()}
        for way, case in cases.items():
            OWN_WIRE[way][0](case.scheduler.host)
        for way, case in cases.items():
            case.scheduler.roster_until(shows("lost", *case.identities))
            builds[way].append(case.scheduler.submit("print hello"))
            assert "it is lost" in case.scheduler.explain(builds[way][-1]).reason
        for way, case in cases.items():
            mend = OWN_WIRE[way][1]
            hears_again(case, partial(mend, case.scheduler.host))
        for way, case in cases.items():
            never_superseded(case.scheduler, builds[way], *case.nodes)
            for node in case.nodes:
                settled(node)


# A minute


@pytest.mark.slow
def test_a_minute_of_standing_still(tmp_path: Path, figures: Figures) -> None:
    """For a minute, in pools of their own: a node is stopped, with default times; a scheduler is
    stopped; a scheduler's own link is down. The stopped node's builds ran elsewhere and have one
    result each, what it had of them is gone once it goes on; the schedulers superseded nothing.
    """
    with a_lan() as lan:
        pool = PoolOnLan(tmp_path)
        node = Case(lan, pool, "node", {})
        still = Case(lan, pool, "still", SCALED)
        down = Case(lan, pool, "down", SCALED)
        long, short = node.running(MINUTE * 10, 20)
        going_on = {case: case.running(MINUTE + 6, 20) for case in (still, down)}
        began, began_at = time.monotonic(), time.time()
        node.nodes[0].process.stop()
        still.scheduler.process.stop()
        down.scheduler.host.link_down()
        sent = node.scheduler.submit("print hello")
        for key in (long, short):
            node.scheduler.build_until(key, began_again, MINUTE)
        after = [journal(node.nodes[1], key)[0].at - began_at for key in (long, short)]
        node.scheduler.roster_until(lambda _: time.monotonic() - began >= MINUTE, MINUTE + 10)
        node.nodes[0].process.cont()
        hears_again(still, still.scheduler.process.cont)
        hears_again(down, down.scheduler.host.link_up)
        for case, builds in going_on.items():
            never_superseded(case.scheduler, builds, *case.nodes)
            case.scheduler.has_ready(*case.nodes)
        check_stopped_node(node, long, short, sent)
        figures(
            f"node stopped for a minute, default times: builds begun elsewhere after "
            f"{min(after):.1f} to {max(after):.1f} s; schedulers stopped or unplugged for a minute "
            f"superseded nothing"
        )


def check_stopped_node(case: Case, long: str, short: str, sent: str) -> None:
    """What became of three builds when the node that was stopped goes on."""
    anvil, spare = case.nodes
    case.scheduler.has_ready(anvil)
    anvil.build_until(long, stopped, HEALED)
    assert events(anvil, long) == [("start", 1), ("kill", 1), ("remove", 1)]
    case.scheduler.cancel(long)
    assert ended_once(case.scheduler, short).attempt == 2
    assert ended_once(case.scheduler, sent).node is not None
    for key in (long, short):
        assert starts(key, anvil, spare) == [("node1", 1), ("node2", 2)]
    assert case.scheduler.build_until(long, stopped).result is Result.CANCELLED
    for program in case.nodes:
        settled(program)

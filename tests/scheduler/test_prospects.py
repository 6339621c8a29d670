"""What is said of builds that wait: honest estimates, every obstacle, words that stay the same
while nothing happens.
"""

import pytest

from protocol.model.build import Build, State
from protocol.model.request import Needs
from protocol.ports.service import LOCAL
from scheduler.dispatch import dispatcher as dispatch
from tests.programs import Program, a_node, a_scheduler, ended, ready, request, until

pytestmark = pytest.mark.gen_test(timeout=60)

NOWHERE = Needs(architecture="vax", labels=("gpu",))


async def with_experience(scheduler: Program) -> None:
    """A build has ended: there is something to judge by."""
    await ready(scheduler)
    build = await scheduler.service.submit(LOCAL, request("print x"))
    await ended(scheduler.service, build.id)


async def waiting(scheduler: Program, needs: Needs | None = None) -> Build:
    """A build that waits, and has been told why."""
    build = await scheduler.service.submit(LOCAL, request("print x", needs=needs or Needs()))
    return await until(scheduler.service, build.id, lambda build: bool(build.reason))


async def test_nothing_is_estimated_for_a_build_that_no_node_can_run(tmp_path) -> None:
    """Though slots are free, and in whatever place of the queue; each obstacle is named, with what
    was asked for and what there is.
    """
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await with_experience(scheduler)
        builds = [await waiting(scheduler, NOWHERE) for _ in range(2)]
        for place, build in enumerate(builds, 1):
            told = await scheduler.service.explain(LOCAL, build.id)
            assert (told.place, told.estimate) == (place, None)
            assert told.reason == build.reason
            assert told.reason.startswith("no node that is here can run it: ")
            (refusal,) = told.refusals
            assert "x86_64, not vax, and it lacks the label gpu (it has none)" in refusal.reason


async def test_builds_that_no_node_can_run_are_in_nobodys_way(tmp_path) -> None:
    """What waits behind them is estimated as if they were not there."""
    async with a_node(tmp_path, slots=1) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await with_experience(scheduler)
        running = await scheduler.service.submit(LOCAL, request("hang"))
        await until(scheduler.service, running.id, lambda build: build.state is State.RUNNING)
        await waiting(scheduler, NOWHERE)
        await waiting(scheduler, NOWHERE)
        first, second = await waiting(scheduler), await waiting(scheduler)
        prospects = scheduler.parts.dispatcher.prospects
        for build, place, in_the_way in ((first, 3, 0), (second, 4, 1)):
            told = await scheduler.service.explain(LOCAL, build.id)
            ahead = prospects.ahead_of(build)
            assert told.place == len(ahead) + 1 == place
            assert told.estimate is not None
            own = [one for one in ahead if one.id == first.id]
            assert len(own) == in_the_way
            alone = prospects.estimate(build, own)
            assert told.estimate == pytest.approx(alone, abs=0.5)
        assert prospects.estimate(second, []) < prospects.estimate(second, [first] * 1000)
        await scheduler.service.cancel(LOCAL, running.id)


async def test_nothing_is_estimated_while_others_have_the_slots(tmp_path) -> None:
    """Nobody here knows how long those take who came to the node by themselves."""
    async with a_node(tmp_path, slots=1) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await with_experience(scheduler)
        direct = await node.service.submit(LOCAL, request("hang"))
        await until(node.service, direct.id, lambda build: build.state is State.RUNNING)
        build = await waiting(scheduler)
        told = await scheduler.service.explain(LOCAL, build.id)
        assert (told.place, told.estimate) == (1, None)
        assert "used" in told.reason
        await node.service.cancel(LOCAL, direct.id)


async def test_a_preview_says_where_it_would_begin_or_that_it_would_wait(tmp_path) -> None:
    """It has a place in the queue only where it would wait."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await with_experience(scheduler)
        name = node.parts.settings.name
        told = await scheduler.service.preview(LOCAL, request("print x"))
        assert (told.reason, told.place, told.estimate) == (
            f"it would be placed on {name}",
            None,
            0,
        )
        told = await scheduler.service.preview(LOCAL, request("print x", needs=NOWHERE))
        assert told.reason.startswith(f"it would wait: no node that is here can run it: {name}: it")
        assert (told.place, told.estimate) == (1, None)


async def test_a_build_that_waits_for_a_quarantine_is_not_told_each_second(
    tmp_path, monkeypatch
) -> None:
    """Its reason says how long the quarantine is, and changes only when something happens."""
    monkeypatch.setattr(dispatch, "_REASON_AGE", 0.0)
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, attempts=1, quarantine_after=1, quarantine=60) as scheduler,
    ):
        await ready(scheduler)
        service = scheduler.service
        failing = await service.submit(LOCAL, request("engine-fault"))
        await ended(service, failing.id)
        build = await waiting(scheduler)
        words = "it is quarantined: it failed a build: the engine lost the container"
        assert f"{words}; it gets nothing for 60 s" in build.reason
        build = await until(service, build.id, lambda build: "busy" not in build.reason)
        later = await service.get(LOCAL, build.id, after=build.revision, wait=2.5)
        assert later.revision == build.revision
        (entry,) = scheduler.parts.listing.roster().nodes
        assert "it gets nothing for another" in entry.reason

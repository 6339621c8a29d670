"""Placing builds on real nodes: priority, waiting, refusals, nodes that leave."""

import pytest

from protocol.model.build import Result, State
from protocol.ports.service import LOCAL
from tests.programs import (
    Program,
    a_node,
    a_scheduler,
    ended,
    ready,
    request,
    roster_until,
    until,
)

pytestmark = pytest.mark.gen_test(timeout=60)


def blind(scheduler: Program, node: Program) -> None:
    """From now on the scheduler believes what this node said last."""
    pool = scheduler.parts.dispatcher.pool
    for target in pool._targets.values():
        if target.entry.report is not None and target.entry.report.id == node.id:
            target.task.cancel()


@pytest.mark.parametrize("better", [0, 1])
async def test_the_highest_priority_first_then_the_next_then_waiting(tmp_path, better) -> None:
    """To the other while the better one is busy; it waits while both are, and starts when one is
    ready.
    """
    priorities = [10, 10]
    priorities[better] = 20
    async with (
        a_node(tmp_path, priority=priorities[0]) as one,
        a_node(tmp_path, priority=priorities[1]) as two,
        a_scheduler(tmp_path, one.url, two.url) as scheduler,
    ):
        nodes, service = (one, two), scheduler.service
        await ready(scheduler, 2)
        builds = [await service.submit(LOCAL, request("hang")) for _ in range(3)]
        for build, node in zip(builds, (nodes[better], nodes[1 - better]), strict=False):
            running = await until(service, build.id, lambda b: b.state is State.RUNNING)
            assert running.node.id == node.id
        waiting = await until(service, builds[2].id, lambda b: bool(b.reason))
        assert waiting.state is State.WAITING
        assert waiting.reason.count("used") == 2
        await service.cancel(LOCAL, builds[1].id)
        started = await until(service, builds[2].id, lambda b: b.state is State.RUNNING)
        assert started.node.id == nodes[1 - better].id


async def test_a_node_that_turned_busy_refuses_and_the_build_goes_to_the_next(tmp_path) -> None:
    """Between poll and forward; the refusal is in the history and uses up no attempt."""
    async with (
        a_node(tmp_path, priority=20) as favourite,
        a_node(tmp_path) as other,
        a_scheduler(tmp_path, favourite.url, other.url) as scheduler,
    ):
        await ready(scheduler, 2)
        blind(scheduler, favourite)
        await favourite.service.submit(LOCAL, request("hang"))
        accepted = await scheduler.service.submit(LOCAL, request("print here"))
        build = await ended(scheduler.service, accepted.id)
        assert (build.result, build.node.id, build.attempt) == (Result.SUCCEEDED, other.id, 1)
        declined = [step for step in build.history if step.event == "decline"]
        assert "slot is used" in declined[0].cause


async def test_a_node_that_cannot_be_reached_is_passed_over(tmp_path) -> None:
    """A forward that was never heard goes to the next node at once."""
    async with a_node(tmp_path) as other:
        async with a_node(tmp_path, priority=20) as favourite:
            scheduler_context = a_scheduler(tmp_path, favourite.url, other.url)
            scheduler = await scheduler_context.__aenter__()
            await ready(scheduler, 2)
            blind(scheduler, favourite)
        try:
            accepted = await scheduler.service.submit(LOCAL, request("print here"))
            build = await ended(scheduler.service, accepted.id)
            assert (build.node.id, build.attempt) == (other.id, 1)
        finally:
            await scheduler_context.__aexit__(None, None, None)


async def test_a_node_that_is_shut_down_gives_its_builds_back(tmp_path) -> None:
    """They are built elsewhere, as another attempt."""
    async with a_node(tmp_path) as other:
        leaving = a_node(tmp_path, priority=20)
        favourite = await leaving.__aenter__()
        async with a_scheduler(tmp_path, favourite.url, other.url) as scheduler:
            await ready(scheduler, 2)
            accepted = await scheduler.service.submit(LOCAL, request("sleep 0.5\nprint done"))
            await until(scheduler.service, accepted.id, lambda b: b.state is State.RUNNING)
            await leaving.__aexit__(None, None, None)
            build = await ended(scheduler.service, accepted.id)
            assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
            assert build.node.id == other.id
            assert "lose" in [step.event for step in build.history]


async def test_an_image_that_a_node_does_not_allow_goes_elsewhere(tmp_path) -> None:
    """The node is asked once; with nobody else the build waits and says why."""
    from msgspec.structs import replace

    from protocol.model.recipe import ImageBase

    async with (
        a_node(tmp_path, priority=20, images=("debian:*",)) as strict,
        a_node(tmp_path) as other,
        a_scheduler(tmp_path, strict.url, other.url) as scheduler,
    ):
        await ready(scheduler, 2)
        wanted = request("print x")
        recipe = replace(wanted.recipe, base=ImageBase("alpine:3"))
        accepted = await scheduler.service.submit(LOCAL, replace(wanted, recipe=recipe))
        build = await ended(scheduler.service, accepted.id)
        assert (build.result, build.node.id) == (Result.SUCCEEDED, other.id)


async def test_an_image_that_does_not_exist_is_the_users_failure(tmp_path) -> None:
    """Unreachable registries are the pool's: tried three times in all."""
    from msgspec.structs import replace

    from protocol.model.recipe import ImageBase

    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as scheduler,
    ):
        await ready(scheduler)
        wanted = request("print x")
        for image, result, attempts in (
            ("missing/image", Result.FAILED, 1),
            ("unreachable/image", Result.LOST, 3),
        ):
            recipe = replace(wanted.recipe, base=ImageBase(image))
            accepted = await scheduler.service.submit(LOCAL, replace(wanted, recipe=recipe))
            build = await ended(scheduler.service, accepted.id)
            assert (build.result, build.attempt) == (result, attempts), build.reason
            assert image in build.reason


async def test_needs_are_met_or_the_build_waits(tmp_path) -> None:
    """Labels and architecture; the explanation names what each node lacks."""
    from protocol.model.request import Needs

    async with (
        a_node(tmp_path, priority=20) as plain,
        a_node(tmp_path, labels=("gpu",)) as special,
        a_scheduler(tmp_path, plain.url, special.url) as scheduler,
    ):
        await ready(scheduler, 2)
        service = scheduler.service
        labelled = await service.submit(LOCAL, request(needs=Needs(labels=("gpu",))))
        assert (await ended(service, labelled.id)).node.id == special.id
        foreign = await service.submit(LOCAL, request(needs=Needs(architecture="vax")))
        explanation = await service.explain(LOCAL, foreign.id)
        assert explanation.reason.count("not vax") == 2
        assert {refusal.node for refusal in explanation.refusals} == {plain.id, special.id}


async def test_the_admins_priority_counts(tmp_path) -> None:
    """The effective priority is the admin's word, or the node's own, capped; the roster shows
    both.
    """
    async with (
        a_node(tmp_path, priority=99) as boaster,
        a_node(tmp_path, priority=5) as modest,
        a_scheduler(
            tmp_path,
            boaster.url,
            modest.url,
            priority_cap=50,
            priorities={modest.id: 60},
        ) as scheduler,
    ):
        await ready(scheduler, 2)
        roster = await roster_until(scheduler, lambda roster: len(roster.nodes) == 2)
        shown = [(node.id, node.stated_priority, node.priority) for node in roster.nodes]
        assert shown == [(modest.id, 5, 60), (boaster.id, 99, 50)]
        accepted = await scheduler.service.submit(LOCAL, request())
        assert (await ended(scheduler.service, accepted.id)).node.id == modest.id

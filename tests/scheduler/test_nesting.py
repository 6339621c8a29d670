"""A scheduler as a node of another; circles are refused with a reason."""

import pytest

from protocol.errors import Busy
from protocol.model.build import Position, Result, State
from protocol.model.messages import Registration
from protocol.model.recipe import IsoOutput
from protocol.model.request import Forward
from protocol.ports.service import LOCAL, Caller, Role
from tests.programs import (
    a_client,
    a_node,
    a_scheduler,
    ended,
    log_of,
    ready,
    request,
    roster_until,
    until,
)
from tests.scheduler.test_faults import without_registry

pytestmark = pytest.mark.gen_test(timeout=60)


async def test_a_build_goes_through_two_schedulers(tmp_path) -> None:
    """Status, log and artifact come back through both, under one id."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
        a_client(outer.url) as client,
    ):
        await ready(inner)
        await ready(outer)
        wanted = request("print deep down\nartifact 3000", output=IsoOutput())
        accepted = await client.submit(LOCAL, wanted)
        build = await ended(client, accepted.id)
        assert build.result is Result.SUCCEEDED
        assert b"deep down" in await log_of(client, build.id)
        opened = await client.open_artifact(LOCAL, build.id, build.artifacts[0].name)
        assert len(b"".join([piece async for piece in opened.stream])) == 3000
        assert (await node.service.get(LOCAL, build.id)).origin == inner.id
        assert (await inner.service.get(LOCAL, build.id)).origin == outer.id
        assert build.origin == outer.id


async def test_a_failed_command_below_is_the_users_result(tmp_path) -> None:
    """Not tried again at any level."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
    ):
        await ready(inner)
        await ready(outer)
        accepted = await outer.service.submit(LOCAL, request("exit 3"))
        build = await ended(outer.service, accepted.id)
        assert (build.result, build.attempt) == (Result.FAILED, 1)


async def test_an_attempt_that_another_took_the_place_of(tmp_path) -> None:
    """It was not cancelled: the record says what a node's would, nobody tries it again, and no node
    is to blame. So it is where a later attempt comes and finds no room.
    """
    above = Caller("", Role.PROGRAM, "a" * 32, "b" * 32)
    one, other = ("1" * 26, "2" * 26)
    async with a_node(tmp_path, slots=2) as node, a_scheduler(tmp_path, node.url) as inner:
        await ready(inner)
        for key in (one, other):
            await inner.service.submit(above, request("hang"), Forward(key, above.program, 1))
            await until(inner.service, key, lambda build: build.state is State.RUNNING)
        await inner.service.cancel(above, one, 1, superseded=True)
        inner.service.leave()
        later = Forward(other, above.program, 2)
        with pytest.raises(Busy):
            await inner.service.submit(above, request("hang"), later)
        for program in (inner, node):
            for key in (one, other):
                build = await program.service.get(above, key)
                assert build.result is Result.LOST, (program, build)
                assert build.reason == "another attempt took its place"
        assert not inner.parts.dispatcher.pool.held_back._health


async def test_an_attempt_that_is_lost_below_ends_there_and_is_made_anew_above(tmp_path) -> None:
    """So that attempts are counted once, by the scheduler that a client sees: a position in the log
    of one attempt never means a byte of another.
    """
    async with (
        a_node(tmp_path) as other,
        a_scheduler(tmp_path, other.url) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
    ):
        leaving = a_node(tmp_path, priority=20)
        favourite = await leaving.__aenter__()
        inner.parts.listing.register(Registration(favourite.url))
        await ready(inner, 2)
        await ready(outer)
        accepted = await outer.service.submit(LOCAL, request("print first\nsleep 1\nprint last"))
        await until(outer.service, accepted.id, lambda build: build.log_size >= len("first\n"))
        was_on = (await inner.service.get(LOCAL, accepted.id)).node
        await leaving.__aexit__(None, None, None)
        build = await ended(outer.service, accepted.id)
        below = await inner.service.get(LOCAL, accepted.id)
        assert (build.result, build.attempt, below.attempt) == (Result.SUCCEEDED, 2, 2)
        assert was_on is not None
        assert (was_on.id, below.node and below.node.id) == (favourite.id, other.id)
        opened = await outer.service.open_log(LOCAL, build.id, Position(1, len("first\n")))
        assert (opened.attempt, opened.start) == (2, 0)
        assert b"".join([piece async for piece in opened.stream]) == b"first\nlast\n"


async def test_failures_below_are_held_against_the_node_that_failed(tmp_path) -> None:
    """By the scheduler beside it, and not against that scheduler; attempts are three in all."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, quarantine_after=3, quarantine=60) as inner,
        a_scheduler(tmp_path, inner.url, quarantine_after=1) as outer,
    ):
        await ready(inner)
        await ready(outer)
        accepted = await outer.service.submit(LOCAL, request("engine-fault"))
        build = await ended(outer.service, accepted.id)
        below = await inner.service.get(LOCAL, accepted.id)
        assert (build.result, build.attempt, below.attempt) == (Result.LOST, 3, 3)
        (entry,) = inner.parts.listing.roster().nodes
        assert entry.state == "quarantined"
        roster = await roster_until(outer, lambda roster: roster.nodes[0].state != "ready")
        assert roster.nodes[0].state == "busy"


async def test_an_attempt_made_anew_goes_to_another_node_below(tmp_path) -> None:
    """Where the first one could not get what the build needs."""
    async with (
        a_node(tmp_path, priority=20) as cut_off,
        a_node(tmp_path) as other,
        a_scheduler(tmp_path, cut_off.url, other.url) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
    ):
        without_registry(cut_off)
        await ready(inner, 2)
        await ready(outer)
        accepted = await outer.service.submit(LOCAL, request("print here"))
        build = await ended(outer.service, accepted.id)
        below = await inner.service.get(LOCAL, accepted.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        assert below.node is not None
        assert below.node.id == other.id


async def test_cancelling_above_cancels_below(tmp_path) -> None:
    """At every level."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
    ):
        await ready(inner)
        await ready(outer)
        accepted = await outer.service.submit(LOCAL, request("hang"))
        await until(outer.service, accepted.id, lambda build: build.state is State.RUNNING)
        await outer.service.cancel(LOCAL, accepted.id)
        for program in (outer, inner, node):
            build = await ended(program.service, accepted.id)
            assert build.result is Result.CANCELLED


async def test_a_scheduler_pointed_at_itself_refuses(tmp_path) -> None:
    """The roster says why, and the build waits with that reason."""
    async with a_scheduler(tmp_path) as scheduler:
        scheduler.parts.listing.register(Registration(scheduler.url))
        roster = await roster_until(
            scheduler, lambda roster: any(node.state == "refused" for node in roster.nodes)
        )
        assert "itself" in roster.nodes[0].reason
        accepted = await scheduler.service.submit(LOCAL, request())
        explanation = await scheduler.service.explain(LOCAL, accepted.id)
        assert "itself" in explanation.reason


async def test_two_schedulers_pointed_at_each_other_refuse(tmp_path) -> None:
    """Both, though each has a node of its own; their builds go to their own nodes."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as one,
        a_scheduler(tmp_path, one.url) as two,
    ):
        one.parts.listing.register(Registration(two.url))
        for program, other in ((one, two), (two, one)):
            roster = await roster_until(
                program,
                lambda roster, other=other: any(
                    entry.id == other.id and entry.state == "refused" for entry in roster.nodes
                ),
            )
            entry = next(entry for entry in roster.nodes if entry.id == other.id)
            assert "circle" in entry.reason
        accepted = await one.service.submit(LOCAL, request("print fine"))
        assert (await ended(one.service, accepted.id)).result is Result.SUCCEEDED

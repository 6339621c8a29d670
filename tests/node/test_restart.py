"""A node that starts again: what it kept, and how it goes on."""

import pytest

from node.core.resume import Way, way_on
from protocol.model.build import Result, Stage, State, new_build
from protocol.model.lifecycle import Event, advance
from protocol.model.messages import Acknowledgement
from protocol.model.recipe import IsoOutput
from protocol.model.request import BuildRequest, Forward
from protocol.ports.service import LOCAL, ByteRange, Caller, Role
from tests.programs import a_node, ended, log_of, request, until

SCHEDULER = Caller(owner="", role=Role.PROGRAM, program="a" * 40, store="1" * 32)

pytestmark = pytest.mark.gen_test(timeout=60)


async def test_what_ended_is_there_as_it_was(tmp_path) -> None:
    """Record, log and artifact; a client's key still gives the same build."""
    wanted = request("print hello\nartifact 4000", output=IsoOutput())
    async with a_node(tmp_path, home="n") as node:
        accepted = await node.service.submit(LOCAL, wanted, key="k")
        before = await ended(node.service, accepted.id)
    async with a_node(tmp_path, home="n") as node:
        assert await node.service.get(LOCAL, before.id) == before
        assert (await log_of(node.service, before.id)).startswith(b"hello\n")
        part = ByteRange(0, 4000)
        opened = await node.service.open_artifact(LOCAL, before.id, "image.iso", part)
        assert len(b"".join([piece async for piece in opened.stream])) == 4000
        assert (await node.service.submit(LOCAL, wanted, key="k")).id == before.id


async def test_a_forward_that_comes_late_or_again_is_answered_from_the_record(tmp_path) -> None:
    """It is not run again; what was acknowledged stays so, what was not is reported again."""
    one, two = Forward("1" * 32, "a" * 40, 1), Forward("2" * 32, "a" * 40, 1)
    async with a_node(tmp_path, home="n", slots=2) as node:
        for forward in (one, two):
            await node.service.submit(SCHEDULER, request("print x"), forward)
            await ended(node.service, forward.id)
        acknowledgement = Acknowledgement(((one.id, 1),), SCHEDULER.store)
        await node.service.acknowledge(SCHEDULER, acknowledgement)
    async with a_node(tmp_path, home="n") as node:
        reported = (await node.service.status(SCHEDULER)).builds
        assert [build.id for build in reported] == [two.id]
        again = await node.service.submit(SCHEDULER, request("print x"), one)
        assert again.result is Result.SUCCEEDED
        assert (await node.service.status(SCHEDULER)).used == 0


async def test_what_waited_here_waits_again_and_what_ran_without_a_container_is_given_back(
    tmp_path,
) -> None:
    """The dummy engine's containers end with the node."""
    async with a_node(tmp_path, home="n") as node:
        running = await node.service.submit(LOCAL, request("hang"))
        await until(node.service, running.id, lambda build: build.stage is Stage.RUNNING)
        waiting = await node.service.submit(LOCAL, request("print later"))
        assert waiting.state is State.WAITING
    async with a_node(tmp_path, home="n") as node:
        lost = await ended(node.service, running.id)
        assert lost.result is Result.LOST
        assert "the node was away, and its container is gone" in lost.reason
        assert (await ended(node.service, waiting.id)).result is Result.SUCCEEDED


@pytest.mark.parametrize(
    ("stage", "direct", "container", "folder", "way"),
    [
        (Stage.QUEUED, True, False, False, Way.WAIT),
        (Stage.QUEUED, False, False, False, Way.BEGIN),
        (Stage.PREPARING, True, False, True, Way.BEGIN),
        (Stage.PREPARING, False, True, True, Way.GO_ON),
        (Stage.RUNNING, False, True, True, Way.GO_ON),
        (Stage.RUNNING, False, True, False, Way.GIVE_UP),
        (Stage.RUNNING, True, False, True, Way.GIVE_UP),
        (Stage.COLLECTING, False, True, True, Way.GO_ON),
        (Stage.COLLECTING, False, False, True, Way.GIVE_UP),
    ],
)
def test_how_it_goes_on(stage, direct, container, folder, way) -> None:
    """From what is there: nothing is begun twice of which something may have run."""
    build = new_build("b", BuildRequest(), origin="o", owner="", now=0)
    for event in (Event.PREPARE, Event.RUN, Event.COLLECT):
        if build.stage is not stage:
            build = advance(build, event, 1)
    assert build.stage is stage
    assert way_on(build, direct=direct, has_container=container, has_folder=folder) is way

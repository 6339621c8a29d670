"""What came to nothing by nobody's fault in the pool is not held against a node, and is tried
elsewhere first.
"""

import pytest
from msgspec.structs import replace

from node.engines.errors import RegistryUnreachable
from protocol.model.build import Result, State
from protocol.model.recipe import ImageBase
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, a_scheduler, ended, ready, request, until

pytestmark = pytest.mark.gen_test(timeout=60)


def without_registry(node: Program) -> None:
    """From now on this node reaches no registry."""

    def obtain(image: str, *_: object) -> None:
        raise RegistryUnreachable(f"the registry of {image} does not answer")

    node.parts.engine.obtain = obtain


def of_image(image: str, *texts: str) -> BuildRequest:
    """A build of an image of this name."""
    wanted = request(*texts)
    return replace(wanted, recipe=replace(wanted.recipe, base=ImageBase(image)))


async def test_a_registry_that_a_build_names_is_not_held_against_nodes(tmp_path) -> None:
    """However many such builds there are: all attempts are made, the build ends with the words, and
    others' builds are placed as ever.
    """
    async with (
        a_node(tmp_path) as one,
        a_node(tmp_path) as two,
        a_scheduler(tmp_path, one.url, two.url, quarantine_after=1) as scheduler,
    ):
        await ready(scheduler, 2)
        for _ in range(2):
            accepted = await scheduler.service.submit(LOCAL, of_image("unreachable/x", "print x"))
            build = await ended(scheduler.service, accepted.id)
            assert (build.result, build.attempt) == (Result.LOST, 3)
            assert "the registry of unreachable/x:latest does not answer" in build.reason
            tried = [step.cause for step in build.history if step.event == "place"]
            assert all(any(node.id in cause for cause in tried[:2]) for node in (one, two))
        states = {entry.state for entry in scheduler.parts.listing.roster().nodes}
        assert states == {"ready"}
        good = await scheduler.service.submit(LOCAL, request("print x"))
        assert (await ended(scheduler.service, good.id)).attempt == 1


async def test_what_is_the_nodes_own_fault_is_held_against_it(tmp_path) -> None:
    """As before: the engine starts no container of this image."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, attempts=1, quarantine_after=1) as scheduler,
    ):
        await ready(scheduler)
        accepted = await scheduler.service.submit(LOCAL, of_image("broken/x", "print x"))
        assert (await ended(scheduler.service, accepted.id)).result is Result.LOST
        (entry,) = scheduler.parts.listing.roster().nodes
        assert entry.state == "quarantined"


async def test_a_node_that_reaches_no_registry_does_not_use_up_a_builds_attempts(tmp_path) -> None:
    """Whatever its priority, and though the other node is busy: the build waits for that, and says
    so.
    """
    async with (
        a_node(tmp_path, priority=20) as cut_off,
        a_node(tmp_path) as other,
        a_scheduler(tmp_path, cut_off.url, other.url) as scheduler,
    ):
        await ready(scheduler, 2)
        without_registry(cut_off)
        service = scheduler.service
        busy = await other.service.submit(LOCAL, request("hang"))
        accepted = await service.submit(LOCAL, of_image("debian:12", "print x"))
        waiting = await until(service, accepted.id, lambda build: "in vain" in build.reason)
        assert (waiting.state, waiting.attempt) == (State.WAITING, 1)
        await other.service.cancel(LOCAL, busy.id)
        build = await ended(service, accepted.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        assert build.node is not None
        assert build.node.id == other.id

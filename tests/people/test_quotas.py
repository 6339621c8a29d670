"""How much one owner may have: builds that wait, builds that run, bytes of artifacts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.builds.quotas import Tally
from protocol.errors import Conflict, TooOften
from protocol.model.build import Artifact, Build, Stage, State, new_build
from protocol.model.recipe import IsoOutput
from protocol.ports.service import Caller, Role
from tests.programs import Program, a_client, a_node, a_scheduler, ended, ready, request, until

ANN, BOB = (Caller(owner=name, role=Role.USER) for name in ("ann", "bob"))
PROGRAMS = pytest.mark.parametrize("kind", ["node", "scheduler"])
quotas = pytest.mark.gen_test(timeout=60)


@asynccontextmanager
async def a_program(kind: str, folder: Path, slots: int, **settings: Any) -> AsyncIterator[Program]:
    """A node with these limits; or a scheduler with them, over a node without."""
    if kind == "node":
        async with a_node(folder, slots=slots, **settings) as node:
            yield node
        return
    async with a_node(folder, slots=slots) as node, a_scheduler(folder, node.url, **settings) as it:
        yield await ready(it)


@PROGRAMS
@quotas
async def test_builds_that_wait(tmp_path: Path, kind: str) -> None:
    """As many as one may, also where they are asked for at once; of others there may be as many
    again. A repeated create is answered all the same; a preview is refused as a create is.
    """
    async with a_program(kind, tmp_path, 1, owner_waiting=2) as program:
        service = program.service
        first = await service.submit(ANN, request("sleep 100"))
        await until(service, first.id, lambda build: build.state is State.RUNNING)
        tries = [service.submit(ANN, request("print a"), key=f"k{i}") for i in range(6)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(one, Build) for one in found) == 2
        refused = [one for one in found if isinstance(one, TooOften)]
        assert len(refused) == 4
        assert refused[0].field == "owner"
        assert "2 builds of ann wait already" in refused[0].detail
        with pytest.raises(TooOften):
            await service.preview(ANN, request("print a"))
        number = next(i for i, one in enumerate(found) if isinstance(one, Build))
        again = await service.submit(ANN, request("print a"), key=f"k{number}")
        assert again.id == found[number].id
        await service.submit(BOB, request("print b"))
        async with a_client(program.url, Caller(owner="ann")) as client:
            with pytest.raises(TooOften) as told:
                await client.submit(ANN, request("print a"))
        assert told.value.retry_after > 0
        await service.cancel(ANN, again.id)
        await service.submit(ANN, request("print a"))
        await service.cancel(ANN, first.id)


@PROGRAMS
@quotas
async def test_builds_that_run(tmp_path: Path, kind: str) -> None:
    """The next waits, and says why, though there is a slot; others pass it."""
    async with a_program(kind, tmp_path, 2, owner_running=1) as program:
        service = program.service
        first = await service.submit(ANN, request("sleep 100"))
        await until(service, first.id, lambda build: build.state is State.RUNNING)
        second = await service.submit(ANN, request("print a"))
        other = await service.submit(BOB, request("print b"))
        await ended(service, other.id)
        assert (await service.get(ANN, second.id)).stage is Stage.QUEUED
        told = await service.explain(ANN, second.id)
        assert told.reason == "1 builds of its owner run already, and 1 may"
        await service.cancel(ANN, first.id)
        await ended(service, second.id)


@PROGRAMS
@quotas
async def test_bytes_of_artifacts(tmp_path: Path, kind: str) -> None:
    """No further build until some are deleted; of others there may be as many again."""
    async with a_program(kind, tmp_path, 1, owner_size=1) as program:
        service = program.service
        build = await service.submit(ANN, request("print a", output=IsoOutput()))
        build = await ended(service, build.id)
        size = build.artifacts[0].size
        with pytest.raises(Conflict) as refused:
            await service.submit(ANN, request("print a"))
        assert f"{size} bytes" in refused.value.detail
        assert "delete" in refused.value.expected
        other = await service.submit(BOB, request("print b"))
        await service.delete(ANN, build.id)
        again = await service.submit(ANN, request("print a"))
        for one in (other, again):
            await ended(service, one.id)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.one_of(
                st.none(),
                st.tuples(
                    st.sampled_from(["ann", "bob"]),
                    st.sampled_from(list(Stage)),
                    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=2),
                ),
            ),
        )
    )
)
def test_the_tally_is_what_a_count_would_be(changes) -> None:
    """However builds come, change and go; of an owner without any, nothing is left."""
    tally, known = Tally(), {}
    for key, what in changes:
        before, after = known.pop(key, None), None
        if what is not None:
            owner, stage, sizes = what
            artifacts = tuple(Artifact("a", size, "", kept=kept) for size, kept in sizes)
            fresh = new_build(f"{key:032}", request("a"), origin="", owner=owner, now=0)
            after = known[key] = replace(fresh, stage=stage, artifacts=artifacts)
        tally.change(before, after)
    for owner in ("ann", "bob"):
        own = [build for build in known.values() if build.owner == owner]
        waiting = sum(build.stage is Stage.QUEUED for build in own)
        assert tally.waiting(owner) == waiting
        stopped = sum(build.stage is Stage.STOPPED for build in own)
        assert tally.running(owner) == len(own) - waiting - stopped
        kept = [one for build in own for one in build.artifacts if one.kept]
        assert tally.size(owner) == sum(one.size for one in kept)
    assert set(tally._waiting) | set(tally._running) <= {build.owner for build in known.values()}

"""Pins, deletes and time limits reach the node that has the build, through any number of
schedulers; what the scheduler forgot does not come back.
"""

import asyncio

import pytest
from msgspec.structs import replace

from protocol.errors import Conflict, NotFound, Unavailable
from protocol.model.build import Build, Result, State
from protocol.model.recipe import IsoOutput
from protocol.model.request import Guidance
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


async def built(program: Program, *texts: str, **guidance) -> Build:
    """A build with an artifact that has stopped, and whose end its scheduler has heard."""
    wanted = request(*(texts or ("artifact 2000",)), output=IsoOutput(), **guidance)
    return await ended(program.service, (await program.service.submit(LOCAL, wanted)).id)


async def has_files(program: Program, build: Build) -> bool:
    """Whether the artifact can still be had."""
    try:
        opened = await program.service.open_artifact(LOCAL, build.id, build.artifacts[0].name)
    except NotFound:
        return False
    await opened.stream.close()
    return True


async def test_a_pin_keeps_log_and_artifacts_on_the_node(tmp_path) -> None:
    """Also over a restart of the node; when it is undone they go."""
    async with a_scheduler(tmp_path) as program:
        async with a_node(tmp_path, home="node") as node:
            program.parts.discovery.named((node.url,))
            await ready(program)
            one, two = await built(program), await built(program)
            assert (await program.service.pin(LOCAL, one.id, True)).pinned
            assert (await node.service.get(LOCAL, one.id)).pinned
        async with a_node(tmp_path, home="node", keep=1e-9) as node:
            program.parts.discovery.named((node.url,))
            await ready(program)
            await node.parts.cleaner.clean()
            assert [await has_files(program, build) for build in (one, two)] == [True, False]
            await program.service.pin(LOCAL, one.id, False)
            await node.parts.cleaner.clean()
            assert not await has_files(program, one)


async def test_a_build_that_is_pinned_while_it_waits_is_pinned_on_its_node(tmp_path) -> None:
    """The node hears of it with the first report that says otherwise, and its end is on record."""
    async with a_scheduler(tmp_path) as program:
        accepted = await program.service.submit(LOCAL, request("print x"))
        assert (await program.service.pin(LOCAL, accepted.id, True)).pinned
        async with a_node(tmp_path) as node:
            program.parts.discovery.named((node.url,))
            build = await ended(program.service, accepted.id)
            assert (build.result, build.pinned) == (Result.SUCCEEDED, True)
            there = await until(node.service, build.id, lambda build: build.pinned)
            assert there.state is State.STOPPED
            board = node.parts.ledger.board
            while node.parts.ledger.kept(build.id).record.acknowledged is False:
                await node.parts.state.changed.wait(node.parts.state.changed.count, 1)
            assert board.get(build.id).pinned


async def test_where_the_node_does_not_answer_nothing_changes(tmp_path) -> None:
    """Neither a pin nor a delete is done by half."""
    async with a_scheduler(tmp_path) as program:
        async with a_node(tmp_path) as node:
            program.parts.discovery.named((node.url,))
            await ready(program)
            build = await built(program)
        await roster_until(program, lambda roster: not roster.nodes or roster.nodes[0].reason != "")
        with pytest.raises(Unavailable):
            await program.service.pin(LOCAL, build.id, True)
        with pytest.raises(Unavailable):
            await program.service.delete(LOCAL, build.id)
        assert not (await program.service.get(LOCAL, build.id)).pinned


async def test_a_deleted_build_is_deleted_on_its_node_and_no_report_brings_it_back(
    tmp_path,
) -> None:
    """A report that was under way is no news."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        build = await built(program)
        late = node.parts.state.report(0, 0, _told(node, program, build))
        await program.service.delete(LOCAL, build.id)
        with pytest.raises(NotFound):
            await node.service.get(LOCAL, build.id)
        assert not list((tmp_path / node.parts.node.name / "artifacts").glob("*"))
        assert not list((tmp_path / node.parts.node.name / "logs").glob("*"))
        program.parts.dispatcher.follower.on_report(late)
        with pytest.raises(NotFound):
            await program.service.get(LOCAL, build.id)
        assert not program.parts.dispatcher.follower.adopting


def _told(node: Program, program: Program, build: Build):
    from protocol.model.record import reported

    record = node.parts.ledger.kept(build.id).record
    there = replace(record, build=node.parts.ledger.get(build.id), acknowledged=False)
    return reported((there,), program.parts.store.id)


async def test_pins_and_deletes_go_through_two_schedulers(tmp_path) -> None:
    """To the node, and everybody on the way knows."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
    ):
        await ready(inner)
        await ready(outer)
        build = await built(outer)
        await outer.service.pin(LOCAL, build.id, True)
        for program in (node, inner, outer):
            assert (await program.service.get(LOCAL, build.id)).pinned
        await outer.service.pin(LOCAL, build.id, False)
        await outer.service.delete(LOCAL, build.id)
        for program in (node, inner, outer):
            with pytest.raises(NotFound):
                await program.service.get(LOCAL, build.id)


async def test_a_node_does_not_delete_what_its_scheduler_has_not_heard_of(tmp_path) -> None:
    """It would be forwarded again."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        running = await program.service.submit(LOCAL, request("hang"))
        await until(program.service, running.id, lambda build: build.state is State.RUNNING)
        program.parts.dispatcher.pool.on_report = lambda report: None
        await node.service.cancel(LOCAL, running.id)
        with pytest.raises(Conflict):
            await node.service.delete(LOCAL, running.id)


async def test_a_build_says_for_how_long_it_is_kept(tmp_path) -> None:
    """Shorter than the settings say or longer, on the node and on the scheduler; a pinned one
    stays in any case, and what was ended is known as long as the settings say.
    """
    long, short = Guidance(keep=1e6).keep, Guidance(keep=0).keep
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as program,
    ):
        await ready(program)
        brief, plain = await built(program, keep=short), await built(program)
        await node.parts.cleaner.clean()
        assert [await has_files(program, build) for build in (brief, plain)] == [False, True]
        await program.service.keeping.forget_old()
        assert (await program.service.get(LOCAL, brief.id)).result is Result.SUCCEEDED
    async with (
        a_node(tmp_path, keep=1e-9, record_keep=1e-9) as node,
        a_scheduler(tmp_path, node.url, keep=1e-9) as program,
    ):
        await ready(program)
        lasting, pinned = await built(program, keep=long), await built(program)
        await program.service.pin(LOCAL, pinned.id, True)
        other = await built(program)
        await program.service.keeping.forget_old()
        await node.parts.cleaner.clean()
        for service in (node.service, program.service):
            for build in (lasting, pinned):
                assert (await service.get(LOCAL, build.id)).id == build.id
            with pytest.raises(NotFound):
                await service.get(LOCAL, other.id)
        assert await has_files(program, lasting)


async def test_a_pin_survives_the_loss_of_the_schedulers_store(tmp_path) -> None:
    """Its node knows."""
    async with a_node(tmp_path, slots=2) as node:
        async with a_scheduler(tmp_path, node.url, home="scheduler") as program:
            await ready(program)
            running = await program.service.submit(LOCAL, request("hang"))
            await until(program.service, running.id, lambda build: build.state is State.RUNNING)
            await program.service.pin(LOCAL, running.id, True)
        for file in (tmp_path / "scheduler").glob("scheduler.db*"):
            file.unlink()
        async with a_scheduler(tmp_path, node.url, home="scheduler", recover_least=0.1) as program:
            await ready(program)
            await program.parts.dispatcher.recovered.wait()
            build = await program.service.get(LOCAL, running.id)
            assert (build.state, build.pinned) == (State.RUNNING, True)
            assert (await node.service.get(LOCAL, running.id)).pinned
            await program.service.cancel(LOCAL, running.id)


async def test_a_pin_that_could_not_be_written_down_is_undone_on_the_node(
    tmp_path, monkeypatch
) -> None:
    """Though the node reports the build no more."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        build = await built(program)
        while not node.parts.ledger.kept(build.id).record.acknowledged:
            await node.parts.state.changed.wait(node.parts.state.changed.count, 1)
        pinned = []

        async def unsaved(build_id: str) -> None:
            pinned.append((await node.service.get(LOCAL, build_id)).pinned)
            raise Unavailable("no room")

        with monkeypatch.context() as full:
            full.setattr(program.parts.dispatcher.ledger, "saved", unsaved)
            with pytest.raises(Unavailable, match="no room"):
                await program.service.pin(LOCAL, build.id, True)
        assert pinned == [True]
        assert not (await program.service.get(LOCAL, build.id)).pinned
        await until(node.service, build.id, lambda build: not build.pinned)


async def test_what_is_pinned_or_deleted_while_old_builds_are_forgotten(
    tmp_path, monkeypatch
) -> None:
    """It stays, or is no error; what comes after it is forgotten all the same."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, keep=1e-9) as program,
    ):
        await ready(program)
        first, pinned, deleted, last = [await built(program) for _ in range(4)]
        store, forgetting, goes = program.parts.store, asyncio.Event(), asyncio.Event()
        forget = store.forget

        async def slowly(ids) -> None:
            forgetting.set()
            await goes.wait()
            await forget(ids)

        with monkeypatch.context() as slow:
            slow.setattr(store, "forget", slowly)
            cleaning = asyncio.create_task(program.service.keeping.forget_old())
            await forgetting.wait()
            pinning = asyncio.create_task(program.service.pin(LOCAL, pinned.id, True))
            deleting = asyncio.create_task(program.service.delete(LOCAL, deleted.id))
            await until(node.service, pinned.id, lambda build: build.pinned)
            goes.set()
            await asyncio.gather(cleaning, pinning, deleting)
        assert (await program.service.get(LOCAL, pinned.id)).pinned
        for build in (first, deleted, last):
            with pytest.raises(NotFound):
                await program.service.get(LOCAL, build.id)

"""The scheduler's record: on disk before it is seen, or before anything follows from it."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from protocol.builds.board import Board
from protocol.errors import Busy, Unavailable
from protocol.model.build import Build, NodeReference, Result, new_build
from protocol.model.record import Record
from scheduler.core import steps
from scheduler.ledger import Ledger
from scheduler.stores import open_store
from scheduler.stores.memory import MemoryStore
from tests.programs import request

pytestmark = pytest.mark.gen_test(timeout=30)

NODE = NodeReference("n" * 40, "n")


class Slow(MemoryStore):
    """A store whose disk answers when it is let go, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.broken = False
        self.batches: list[int] = []

    async def put(self, records: Sequence[Record]) -> None:
        self.begun.set()
        await self.go.wait()
        if self.broken:
            raise Unavailable("the disk is gone")
        self.batches.append(len(records))
        await super().put(records)


def a_build(identity: str = "1", **changes: object) -> Build:
    """One that waits."""
    made = new_build(identity * 32, request("x"), origin="o", owner="ann", now=0, key="k")
    return replace(made, **changes)


async def test_a_new_build_is_not_seen_before_it_is_on_disk() -> None:
    """Nor found by its key."""
    store = Slow()
    ledger = Ledger(Board(), store)
    store.go.clear()
    adding = asyncio.create_task(ledger.add(a_build()))
    await asyncio.sleep(0)
    assert "1" * 32 not in ledger
    assert ledger.made_with(("ann", "k")) is None
    store.go.set()
    build = await adding
    assert ledger.made_with(("ann", "k")) == build
    assert [record.build for record in store.records()] == [build]


async def test_a_build_that_cannot_be_written_is_refused_and_nothing_of_it_stays() -> None:
    """The client may try again."""
    store = Slow()
    store.broken = True
    ledger = Ledger(Board(), store)
    with pytest.raises(Busy, match="the disk is gone"):
        await ledger.add(a_build())
    assert ledger.waiting == 0
    store.broken = False
    await ledger.add(a_build())
    assert ledger.waiting == 1


async def test_changes_are_seen_at_once_and_written_together() -> None:
    """`saved` returns when they are on disk; progress is not written at all."""
    store = Slow()
    ledger = Ledger(Board(), store)
    writing = asyncio.create_task(ledger.keep_writing())
    builds = [await ledger.add(a_build(name, key="")) for name in "123"]
    store.batches.clear()
    store.go.clear()
    placed = [ledger.put(steps.placed(build, NODE, 1, "n")) for build in builds]
    assert ledger.on_node(NODE.id) == {build.id for build in builds}
    waiting = asyncio.gather(*(ledger.saved(build.id) for build in builds))
    await asyncio.sleep(0)
    assert not waiting.done()
    store.go.set()
    await waiting
    assert store.batches == [3]
    ledger.put(replace(placed[0], log_size=9, revision=placed[0].revision + 1))
    await ledger.saved(placed[0].id)
    assert store.batches == [3]
    writing.cancel()


async def test_what_could_not_be_written_is_written_when_the_disk_is_back() -> None:
    """Meanwhile whoever waits is told."""
    store = Slow()
    ledger = Ledger(Board(), store)
    writing = asyncio.create_task(ledger.keep_writing())
    build = await ledger.add(a_build())
    store.broken = True
    ended = ledger.put(steps.cancelled(build, 1, "by hand"))
    with pytest.raises(Unavailable):
        await ledger.saved(build.id)
    assert "the disk is gone" in ledger.problem
    store.broken = False
    while ledger.problem:
        await ledger.written(1)
    await ledger.saved(build.id)
    assert [record.build.result for record in store.records()] == [Result.CANCELLED]
    assert ledger.get(build.id) == ended
    writing.cancel()


async def test_a_write_that_was_begun_is_ended_though_its_task_is_not(tmp_path) -> None:
    """A scheduler that shuts down in the middle of one writes the rest, and nothing twice."""
    store = Slow()
    ledger = Ledger(Board(), store)
    writing = asyncio.create_task(ledger.keep_writing())
    build = await ledger.add(a_build())
    store.go.clear()
    store.begun.clear()
    build = ledger.put(steps.placed(build, NODE, 1, "n"))
    await store.begun.wait()
    ledger.put(steps.cancelled(build, 2, "by hand"))
    writing.cancel()
    await asyncio.wait({writing})
    closing = asyncio.create_task(ledger.close())
    store.go.set()
    await closing
    (record,) = store.records()
    assert (record.build.result, record.revision, ledger.problem) == (Result.CANCELLED, 3, "")


async def test_all_is_there_when_the_store_is_opened_again(tmp_path) -> None:
    """Builds, who waits, what is where, and keys, which are forgotten after their time."""
    store = open_store("", tmp_path)
    ledger = Ledger(Board(), store)
    waiting = await ledger.add(a_build("1"))
    placed = ledger.put(steps.placed(await ledger.add(a_build("2", key="")), NODE, 1, "n"))
    await ledger.close()
    await store.close()
    store = open_store("", tmp_path)
    ledger = Ledger(Board(), store)
    assert (ledger.get(waiting.id), ledger.get(placed.id)) == (waiting, placed)
    assert ledger.waiting_builds() == (waiting,)
    assert ledger.on_node(NODE.id) == {placed.id}
    assert ledger.made_with(("ann", "k")) == waiting
    ledger.forget_keys(before=1.0)
    assert ledger.made_with(("ann", "k")) is None
    await store.close()

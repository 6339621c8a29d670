"""What a node forgets, it forgets while other things happen: nothing waits for its disk, and what
callers say meanwhile counts.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.errors import NotFound
from protocol.model.build import Build, Result, new_build
from protocol.model.recipe import IsoOutput
from protocol.model.request import Forward
from protocol.ports.service import LOCAL, Caller, Role
from tests.programs import Program, a_node, ended, request

pytestmark = pytest.mark.gen_test(timeout=60)

ABOVE = Caller("", Role.PROGRAM, "a" * 32, "b" * 32)


class SlowDisk:
    """Removes nothing before it is let."""

    def __init__(self, node: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        self.removing = asyncio.Event()
        self._goes = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._remove = node.parts.runner._place.artifacts.remove
        monkeypatch.setattr(node.parts.runner._place.artifacts, "remove", self._slowly)

    def _slowly(self, build_id: str) -> None:
        self._loop.call_soon_threadsafe(self.removing.set)
        assert self._goes.wait(20)
        self._remove(build_id)

    @asynccontextmanager
    async def while_it_removes(self, work: asyncio.Task[None]) -> AsyncIterator[None]:
        """What happens while the work's first removal is under way; then it comes to its end."""
        try:
            await self.removing.wait()
            yield
        finally:
            self._goes.set()
            await work


async def built(node: Program) -> Build:
    """A build with an artifact that has ended."""
    accepted = await node.service.submit(LOCAL, request("artifact 1000", output=IsoOutput()))
    return await ended(node.service, accepted.id)


async def kept(node: Program, build: Build) -> bool:
    """Whether what it made can be had."""
    try:
        opened = await node.service.open_artifact(LOCAL, build.id, "image.iso")
    except NotFound:
        return False
    await opened.stream.close()
    return True


async def test_what_is_pinned_or_deleted_meanwhile(tmp_path: Path, monkeypatch) -> None:
    """A build that is pinned while others are forgotten stays, with all that it made; one that is
    deleted is no error, and what comes after it is forgotten all the same.
    """
    async with a_node(tmp_path, keep=1e-9, record_keep=1e-9, clean_every=1e6) as node:
        first, pinned, deleted, last = [await built(node) for _ in range(4)]
        disk = SlowDisk(node, monkeypatch)
        cleaning = asyncio.create_task(node.service.keeping.forget_old())
        async with disk.while_it_removes(cleaning):
            assert (await node.service.pin(LOCAL, pinned.id, True)).pinned
            deleting = asyncio.create_task(node.service.delete(LOCAL, deleted.id))
        await deleting
        assert await kept(node, pinned)
        for build in (first, deleted, last):
            with pytest.raises(NotFound):
                await node.service.get(LOCAL, build.id)


async def test_nobody_waits_for_a_delete_but_who_asked(tmp_path: Path, monkeypatch) -> None:
    """The node takes, runs and ends builds meanwhile; a second delete finds nothing."""
    async with a_node(tmp_path) as node:
        build = await built(node)
        disk = SlowDisk(node, monkeypatch)
        deleting = asyncio.create_task(node.service.delete(LOCAL, build.id))
        async with disk.while_it_removes(deleting):
            other = await node.service.submit(LOCAL, request("print x"))
            again = asyncio.create_task(node.service.delete(LOCAL, build.id))
            assert (await node.service.get(LOCAL, other.id)).id == other.id
        assert (await ended(node.service, other.id)).result is Result.SUCCEEDED
        with pytest.raises(NotFound):
            await again


async def test_a_failure_that_is_pinned_meanwhile(tmp_path: Path, monkeypatch) -> None:
    """On a full disk it stays too."""
    async with a_node(tmp_path, disk_reserve=0, clean_every=1e6) as node:
        for _ in range(2):
            accepted = await node.service.submit(LOCAL, request("exit 3"))
            await ended(node.service, accepted.id)
        keeping, logs = node.service.keeping, tmp_path / node.parts.node.name / "logs"
        one, other = keeping.failures(before=time.time() + 1)
        disk = SlowDisk(node, monkeypatch)
        dropping = asyncio.create_task(keeping.drop_failed(one.id, time.time() + 1))
        async with disk.while_it_removes(dropping):
            await node.service.pin(LOCAL, other.id, True)
        await keeping.drop_failed(other.id, time.time() + 1)
        assert [path.name for path in logs.iterdir()] == [f"{other.id}.1.log"]


async def test_a_later_attempt_begins_when_the_earlier_ones_files_are_gone(
    tmp_path: Path, monkeypatch
) -> None:
    """It never takes them for its own; nobody else waits for that."""
    wanted = request("artifact 1000", output=IsoOutput())
    key = new_build("1" * 26, wanted, origin="", owner="", now=0.0).id
    async with a_node(tmp_path) as node:
        await node.service.submit(ABOVE, wanted, Forward(key, ABOVE.program, 1))
        first = await ended(node.service, key)
        disk = SlowDisk(node, monkeypatch)
        forward = Forward(key, ABOVE.program, 2)
        forwarding = asyncio.create_task(node.service.submit(ABOVE, wanted, forward))
        async with disk.while_it_removes(forwarding):
            assert (await node.service.status(ABOVE)).used == 1
        second = await ended(node.service, key)
        assert (second.attempt, second.result) == (2, Result.SUCCEEDED)
        assert second.artifacts[0].sha256 != first.artifacts[0].sha256
        assert await kept(node, second)

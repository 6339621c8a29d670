"""Followed logs through a scheduler: real programs on loopback, the dummy engine; and the shared
end of a log by itself.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from protocol.errors import NotFound, Unavailable
from protocol.model.build import Build, Position, Stage, State
from protocol.ports.service import LOCAL, OpenLog
from protocol.remote.client import HttpService
from protocol.transfer import splice
from scheduler import viewing
from scheduler.viewing import WINDOW, LogEnd
from tests.programs import a_client, a_node, a_scheduler, ended, log_of, ready, request, until

pytestmark = pytest.mark.gen_test(timeout=60)


class Script:
    """A log as a node would give it: pieces, for as long as the test puts some in."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.pieces: asyncio.Queue[bytes | Unavailable | None] = asyncio.Queue()
        self.read = 0  # bytes that somebody took
        self.opened = 0
        self.closed = asyncio.Event()
        self.ended = asyncio.Event()  # the record says so

    async def over(self) -> None:
        """See `LogEnd`."""
        await self.ended.wait()

    async def opening(self, offset: int, follow: bool) -> OpenLog:
        """See `viewing.Open`."""
        assert follow
        self.opened += 1
        return OpenLog(1, max(self.start, offset), self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self.pieces.get()) is not None:
            if isinstance(piece, Unavailable):
                raise piece
            self.read += len(piece)
            yield piece

    async def close(self) -> None:
        """See ByteStream."""
        self.closed.set()


async def eventually(sight: Callable[[], bool]) -> None:
    """Return when it is so; fail where that takes more than five seconds."""
    for _ in range(500):
        if sight():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came to that")


async def test_viewers_share_the_end_of_a_log() -> None:
    """Each gets all that comes from where he is, whoever else reads; in the end, nothing."""
    script = Script()
    end = LogEnd(7, script.opening, script.over)
    first = asyncio.create_task(end.after(7))
    await script.pieces.put(b"begun")
    assert await first == b"begun"
    assert await end.after(9) == b"gun"
    waiting = [asyncio.create_task(end.after(12)) for _ in range(3)]
    await script.pieces.put(b"!")
    await script.pieces.put(None)
    assert await asyncio.gather(*waiting) == [b"!"] * 3
    assert await end.after(13) == b""
    assert script.opened == 1
    await script.closed.wait()


async def test_a_viewer_who_is_too_slow_is_told() -> None:
    """What left the window is not here any more; the others read on."""
    script = Script()
    end = LogEnd(0, script.opening, script.over)
    await script.pieces.put(b"x" * WINDOW)
    assert await end.after(0) == b"x" * (256 << 10)
    fast = asyncio.create_task(end.after(WINDOW))
    await script.pieces.put(b"y" * 10)
    assert await fast == b"y" * 10
    assert await end.after(0) is None
    assert await end.after(9) is None
    assert (await end.after(10) or b"").startswith(b"x")
    end.close()


async def test_nothing_is_read_for_nobody() -> None:
    """The source is at most a window and a piece ahead of the fastest viewer, and goes on when one
    comes for more.
    """
    script = Script()
    end = LogEnd(0, script.opening, script.over)
    for _ in range(40):
        script.pieces.put_nowait(b"z" * (WINDOW // 4))
    await eventually(lambda: script.read >= WINDOW)
    for _ in range(100):
        await asyncio.sleep(0)
    assert script.read == WINDOW
    assert end.reaches(2 * WINDOW)
    assert not end.reaches(3 * WINDOW)
    assert await end.after(WINDOW) == b"z" * (WINDOW // 4)
    end.close()


async def test_a_node_that_goes_away_breaks_off_for_all() -> None:
    """What came before is read; behind it, nobody is told that the log has ended."""
    script = Script()
    end = LogEnd(0, script.opening, script.over)
    waiting = asyncio.create_task(end.after(5))
    await script.pieces.put(b"begun")
    await script.pieces.put(Unavailable("it is gone"))
    with pytest.raises(Unavailable, match="it is gone"):
        await waiting
    assert await end.after(0) == b"begun"
    assert not end.reaches(5)


async def test_a_node_that_says_no_more_is_not_waited_for(monkeypatch) -> None:
    """When the attempt is over: who waits is told, who still reads what is here is not hurried."""
    monkeypatch.setattr(viewing, "_LAST", 0.3)
    script = Script()
    end = LogEnd(0, script.opening, script.over)
    script.ended.set()
    for _ in range(5):
        script.pieces.put_nowait(b"w" * (WINDOW // 4))
    await asyncio.sleep(0.8)
    at = 0
    while piece := await _or_nothing(end.after(at)):
        at += len(piece)
    assert at == 5 * (WINDOW // 4)
    with pytest.raises(Unavailable, match="is over"):
        await end.after(at)
    await script.closed.wait()


async def _or_nothing(waiting: Awaitable[bytes | None]) -> bytes | None:
    with contextlib.suppress(Unavailable):
        return await waiting
    return b""


async def test_a_log_that_is_shorter_than_it_was_breaks_off() -> None:
    """A viewer's position is never answered with bytes of another one."""
    script = Script(start=3)
    end = LogEnd(0, script.opening, script.over)
    with pytest.raises(Unavailable, match="shorter"):
        await end.after(0)


async def _copy(client, build_id: str, position: Position) -> tuple[int, bytes]:
    """(attempt, bytes) of a log that is followed to its end."""
    opened = await client.open_log(LOCAL, build_id, position, follow=True)
    try:
        return opened.attempt, b"".join([piece async for piece in opened.stream])
    finally:
        await opened.stream.close()


@pytest.mark.parametrize("direct", [True, False], ids=["moved", "copied"])
async def test_followers_of_a_large_log_have_every_byte(tmp_path, monkeypatch, direct) -> None:
    """20 MB, five followers from different places, with and without the help of the system; then
    the whole as it is kept.
    """
    moved: list[int] = []
    send = splice.send

    def noted(source: splice.Source, sink: int) -> splice.Moved:
        moved.append(source.length)
        return send(source, sink)

    monkeypatch.setattr(splice, "send", noted)
    monkeypatch.setattr(splice, "AVAILABLE", direct)
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await ready(scheduler)
        async with a_client(scheduler.url) as client:
            wanted = request("print begun", "bytes 10000000", "sleep 0.3", "bytes 10000000")
            accepted = await client.submit(LOCAL, wanted)
            await until(client, accepted.id, lambda build: build.log_size > 5_000_000)
            starts = [0, 1, 300_000, 4_999_999, 5_000_000]
            copies = await asyncio.gather(
                *(_copy(client, accepted.id, Position(1, start)) for start in starts)
            )
            build = await ended(client, accepted.id)
            whole = await log_of(client, build.id)
            assert len(whole) == build.log_size >= 20_000_006
            for start, (attempt, copy) in zip(starts, copies, strict=True):
                assert attempt == 1
                assert len(copy) == len(whole) - start
                assert hashlib.sha256(copy).digest() == hashlib.sha256(whole[start:]).digest()
            assert bool(moved) == direct


async def test_one_connection_serves_all_who_wait_for_the_same_end(tmp_path, monkeypatch) -> None:
    """The node is asked to be followed once, however many viewers there are."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await ready(scheduler)
        followed: list[str] = []
        open_log = node.service.open_log

        async def counted(caller, build_id, position, *, limit=None, follow=False):
            followed.extend([build_id] * follow)
            return await open_log(caller, build_id, position, limit=limit, follow=follow)

        monkeypatch.setattr(node.service, "open_log", counted)
        async with a_client(scheduler.url) as client:
            accepted = await client.submit(LOCAL, request("print begun", "hang"))
            opened = [
                await client.open_log(LOCAL, accepted.id, Position(), follow=True)
                for _ in range(10)
            ]
            pieces = [aiter(log.stream) for log in opened]
            for reader in pieces:
                assert await anext(reader) == b"begun\n"
            await client.cancel(LOCAL, accepted.id)
            for reader in pieces:
                assert b"cancelled" in b"".join([piece async for piece in reader])
        assert followed == [accepted.id]


async def test_a_reader_of_a_superseded_attempt_is_told(tmp_path) -> None:
    """The node leaves: the attempt ends, and says so. When another one has the build, the position
    in the first attempt answers the second, from 0.
    """
    async with contextlib.AsyncExitStack() as ending:
        lost = contextlib.AsyncExitStack()
        node = await lost.enter_async_context(a_node(tmp_path))
        scheduler = await ending.enter_async_context(a_scheduler(tmp_path, node.url))
        client = await ending.enter_async_context(a_client(scheduler.url))
        await ready(scheduler)
        accepted = await client.submit(LOCAL, request("print begun", "hang"))
        opened = await client.open_log(LOCAL, accepted.id, Position(), follow=True)
        assert (opened.attempt, opened.start) == (1, 0)
        reader = aiter(opened.stream)
        assert await anext(reader) == b"begun\n"
        other = await ending.enter_async_context(a_node(tmp_path))
        scheduler.parts.discovery.named((other.url,))
        await ready(scheduler, 1)
        await lost.aclose()
        assert b"".join([piece async for piece in reader]).startswith(b"[imagepool: ")
        await opened.stream.close()

        def again(build: Build) -> bool:
            return build.attempt == 2 and build.stage is Stage.RUNNING

        await until(client, accepted.id, again)
        resumed = await client.open_log(LOCAL, accepted.id, Position(1, 3), follow=True)
        assert (resumed.attempt, resumed.start) == (2, 0)
        assert await anext(aiter(resumed.stream)) == b"begun\n"
        await resumed.stream.close()
        await client.cancel(LOCAL, accepted.id)


async def test_a_node_with_another_attempt_is_not_believed(tmp_path, monkeypatch) -> None:
    """What it has is not the log that was asked for, and is not given out as that."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await ready(scheduler)
        async with a_client(scheduler.url) as client:
            accepted = await client.submit(LOCAL, request("print begun"))
            await ended(client, accepted.id)
            served = node.parts.service._runner.log_of(node.service._ledger.get(accepted.id))
            monkeypatch.setattr(served, "attempt", 2)
            with pytest.raises(Unavailable, match="attempt 2, not 1"):
                await client.open_log(LOCAL, accepted.id, Position())


async def test_a_viewer_who_hangs_up_before_the_build_begins_is_forgotten(tmp_path) -> None:
    """Nobody waits on his behalf."""
    async with a_scheduler(tmp_path) as scheduler, a_client(scheduler.url) as client:
        accepted = await client.submit(LOCAL, request("print begun"))
        assert accepted.state is State.WAITING
        watches = scheduler.service._board._watches
        asking = asyncio.create_task(client.open_log(LOCAL, accepted.id, Position(), follow=True))
        await eventually(lambda: accepted.id in watches)
        asking.cancel()
        await eventually(lambda: accepted.id not in watches)


async def test_a_viewer_waits_for_a_build_that_waits(tmp_path) -> None:
    """However long that is: longer than an answer may take otherwise."""
    async with contextlib.AsyncExitStack() as ending:
        scheduler = await ending.enter_async_context(a_scheduler(tmp_path))
        client = HttpService(scheduler.url, patience=0.2)
        ending.push_async_callback(client.close)
        accepted = await scheduler.service.submit(LOCAL, request("print begun"))
        watching = asyncio.create_task(_copy(client, accepted.id, Position()))
        assert not (await asyncio.wait({watching}, timeout=0.6))[0]
        node = await ending.enter_async_context(a_node(tmp_path))
        scheduler.parts.discovery.named((node.url,))
        assert await watching == (1, b"begun\n")


async def test_a_log_that_is_not_kept_any_more_is_not_found(tmp_path) -> None:
    """Rather than cut."""
    async with a_node(tmp_path) as node, a_client(node.url) as client:
        accepted = await client.submit(LOCAL, request("print begun"))
        await ended(client, accepted.id)
        (file,) = tmp_path.rglob("*.log")
        file.unlink()
        with pytest.raises(NotFound):
            await client.open_log(LOCAL, accepted.id, Position())

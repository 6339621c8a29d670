"""The client where the network fails on purpose: what it gets is what it would have got, byte for
byte.
"""

import asyncio
import hashlib

import pytest

from imagepool import AsyncClient
from imagepool.client import Changed, LogPiece, Result, State, Unavailable
from tests.chaos.proxy import Proxy
from tests.client.pool import a_pool, a_proxy
from tests.client.test_client import recipe

SIZE = 12_000_003
"""Bytes of what is downloaded or logged: more than buffers on the way take."""


@pytest.mark.gen_test(timeout=60)
async def test_a_create_whose_answer_was_lost_is_one_build(tmp_path) -> None:
    """It is repeated under the same key."""
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy, AsyncClient(proxy.url) as client:
        proxy.lose_replies = 2
        build = await client.submit(recipe("print x"))
        assert proxy.done["replies lost"] == 2
        assert [each.id async for each in client.builds()] == [build.id]


@pytest.mark.gen_test(timeout=60)
async def test_a_create_is_given_up_when_persistence_is_over(tmp_path) -> None:
    """And not before."""
    async with (
        a_pool(tmp_path) as pool,
        a_proxy(pool) as proxy,
        AsyncClient(proxy.url, persistence=0.5) as client,
    ):
        proxy.lose_replies = 1000
        with pytest.raises(Unavailable):
            await client.submit(recipe("print x"))
        assert proxy.done["replies lost"] >= 2


@pytest.mark.gen_test(timeout=60)
async def test_a_full_queue_is_asked_again_when_it_said(tmp_path) -> None:
    """A create that found no room is accepted when there is."""
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy, AsyncClient(proxy.url) as client:
        proxy.answers["POST", "/api/v1/builds"] = _busy(1)
        asyncio.get_running_loop().call_later(0.5, proxy.answers.clear)
        build = await client.submit(recipe("print x"))
        assert proxy.done["answers made up"] == 1
        assert [each.id async for each in client.builds()] == [build.id]


@pytest.mark.gen_test(timeout=60)
async def test_a_followed_log_that_is_cut_goes_on_where_it_was(tmp_path) -> None:
    """Several times, in the middle of the bytes; nothing is missing or there twice."""
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy, AsyncClient(proxy.url) as client:
        build = await client.submit(recipe(f"bytes {SIZE}\nsleep 0.3\nbytes {SIZE}"))
        followed = await _followed(client, build.id, proxy, cuts=4)
        whole = b"".join([piece.data async for piece in client.log(build.id)])
        assert len(followed) >= 2 * SIZE
        assert followed == whole


@pytest.mark.gen_test(timeout=60)
async def test_a_pool_that_is_away_for_a_while_is_waited_for(tmp_path) -> None:
    """Who watches sees the end all the same."""
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy, AsyncClient(proxy.url) as client:
        build = await client.submit(recipe("print one\nsleep 1\nprint two"))
        log, last = b"", None
        async for event in client.watch(build.id):
            if isinstance(event, LogPiece):
                if not log:
                    await proxy.refuse()
                    asyncio.get_running_loop().call_later(
                        0.5, lambda: asyncio.ensure_future(proxy.accept())
                    )
                log += event.data
            last = event
        assert log.startswith(b"one\ntwo\n")
        assert isinstance(last, Changed)
        assert (last.build.state, last.build.result) == (State.STOPPED, Result.SUCCEEDED)


@pytest.mark.gen_test(timeout=60)
async def test_a_new_attempts_log_begins_anew(tmp_path) -> None:
    """Each piece says which attempt's it is; every attempt that is seen is seen from offset 0, the
    last one whole.
    """
    quick = {"quarantine_after": 100}
    async with a_pool(tmp_path, scheduling=quick) as pool, AsyncClient(pool.url) as client:
        build = await client.submit(recipe("print one\nsleep 0.3\nprint two\nengine-fault"))
        logs: dict[int, bytes] = {}
        async for event in client.watch(build.id):
            if isinstance(event, LogPiece):
                assert event.offset == len(logs.setdefault(event.attempt, b""))
                assert event.attempt == max(logs)
                logs[event.attempt] += event.data
            else:
                last = event.build
        assert (last.result, last.attempt) == (Result.LOST, 3)
        assert logs[3].startswith(b"one\ntwo\n")
        assert len(logs) > 1


@pytest.mark.gen_test(timeout=60)
async def test_a_download_that_is_cut_goes_on_where_it_was(tmp_path) -> None:
    """Several times; the file is right, and no byte was asked for twice."""
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy, AsyncClient(proxy.url) as client:
        build = await client.submit(recipe(f"artifact {SIZE}", output=True))
        await client.wait(build.id)
        marks = [SIZE // 5, SIZE // 3, SIZE // 2]
        told: list[int] = []
        cutting: list[asyncio.Future[None]] = []

        def progress(there: int, whole: int) -> None:
            told.append(there)
            if marks and there > marks[0]:
                marks.pop(0)
                cutting.append(asyncio.ensure_future(proxy.cut()))

        target = tmp_path / "x.iso"
        artifact = await client.download(build.id, target, progress=progress)
        assert not marks
        assert hashlib.sha256(target.read_bytes()).hexdigest() == artifact.sha256
        assert told == sorted(told)


@pytest.mark.gen_test(timeout=60)
async def test_a_later_download_goes_on_with_what_there_is(tmp_path) -> None:
    """Also another client's, when the first one gave up."""
    async with a_pool(tmp_path) as pool, a_proxy(pool) as proxy:
        target = tmp_path / "x.iso"
        told: list[int] = []
        cutting: list[asyncio.Future[None]] = []
        async with AsyncClient(proxy.url, persistence=0.1) as client:
            build = await client.submit(recipe(f"artifact {SIZE}", output=True))
            await client.wait(build.id)

            def cut(there: int, whole: int) -> None:
                if there > 2_000_000:
                    cutting.append(asyncio.ensure_future(proxy.refuse()))

            with pytest.raises(Unavailable):
                await client.download(build.id, target, progress=cut)
        assert not target.exists()
        async with AsyncClient(pool.url) as other:
            artifact = await other.download(
                build.id, target, progress=lambda there, whole: told.append(there)
            )
        assert told[0] > 2_000_000
        assert hashlib.sha256(target.read_bytes()).hexdigest() == artifact.sha256


async def _followed(client: AsyncClient, build_id: str, proxy: Proxy, cuts: int) -> bytes:
    log = bytearray()
    marks = [2 * SIZE * number // (cuts + 1) for number in range(1, cuts + 1)]
    async for piece in client.log(build_id, follow=True):
        assert piece.offset == len(log)
        log += piece.data
        if marks and len(log) > marks[0]:
            marks.pop(0)
            await proxy.cut()
    assert not marks
    return bytes(log)


def _busy(seconds: int) -> bytes:
    body = b'{"type":"urn:imagepool:error:Busy","title":"no room","status":503,"detail":"full"}'
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Retry-After: {seconds}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body

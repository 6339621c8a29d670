"""Notices: receivers are told of each change of a build's state by whoever the build was given to,
in order, once at least, whatever fails meanwhile; and a build that its requester gave up is ended.
"""

import asyncio
import hashlib
import hmac
import json
import socket
import time
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from protocol.builds.board import Board
from protocol.builds.callout import Callout
from protocol.builds.notices import Notices
from protocol.errors import Invalid, Unavailable
from protocol.model.build import Build, NoticeRecord, Result, Stage, State, new_build
from protocol.model.networks import reach
from protocol.model.recipe import IsoOutput
from protocol.model.request import BuildRequest, Notice
from protocol.ports.service import LOCAL, BuildService
from protocol.remote.guard import Guard
from scheduler.config import SchedulerSettings
from scheduler.core import steps
from scheduler.ledger import Ledger
from tests.programs import (
    HERE,
    Program,
    a_client,
    a_node,
    a_scheduler,
    ended,
    ready,
    request,
    until,
)
from tests.receiver import Got, a_receiver
from tests.scheduler.test_ledger import Slow

pytestmark = pytest.mark.gen_test(timeout=60)

SOON = {"notice_pause": 0.01, "notice_timeout": 5.0, "cancel_every": 0.02}
"""Settings for tests, in seconds."""


def wanted(*texts: str, notices: tuple[Notice, ...], **more: Any) -> BuildRequest:
    """A build with notices, and the names of the secrets that sign them."""
    names = tuple(sorted({notice.secret for notice in notices if notice.secret}))
    return replace(request(*texts, notices=notices, **more), secrets=names)


async def told(service: BuildService, build_id: str, *records: NoticeRecord) -> Build:
    """The build, as soon as its notices are that far."""
    return await until(service, build_id, lambda build: build.notices == records)


def verified(got: Got, key: str) -> bool:
    """Whether the notice is signed with this key, now, as docs/api.md says how to find out."""
    fields = dict(part.split("=", 1) for part in got.headers["Imagepool-Signature"].split(","))
    signed = fields["t"].encode() + b"." + got.body
    expected = hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
    fresh = abs(time.time() - int(fields["t"])) < 60
    return fresh and hmac.compare_digest(expected, fields["v1"])


async def test_each_change_is_told_in_order_and_signed(tmp_path) -> None:
    """By the scheduler alone; the last one says how it ended, and what it made."""
    behind_a_proxy = {"public_url": "https://pool.example", "anonymous": "user"}
    async with (
        a_receiver() as receiver,
        a_node(tmp_path, **SOON) as node,
        a_scheduler(tmp_path, node.url, **behind_a_proxy, **SOON) as scheduler,
        a_client(scheduler.url) as client,
    ):
        await ready(scheduler)
        notice = Notice(f"{receiver.url}/hook?a=b", secret="key")
        order = wanted(
            "print x\nartifact 10", output=IsoOutput(), notices=(notice,), labels={"team": "a"}
        )
        accepted = await client.submit(LOCAL, order, secrets={"key": "geheim"})
        build = await told(client, accepted.id, NoticeRecord(told=3))
        assert build.result is Result.SUCCEEDED
        got = receiver.got
        assert [one.event for one in got] == [
            ("/hook", "waiting", 1),
            ("/hook", "running", 2),
            ("/hook", "stopped", 3),
        ]
        assert all(verified(one, "geheim") and not verified(one, "other") for one in got)
        assert [one.headers["Imagepool-Event"] for one in got] == [
            f"{build.id}/{number}" for number in (1, 2, 3)
        ]
        assert {one.headers["Content-Type"] for one in got} == {"application/json"}
        last = got[-1].said
        assert (last["result"], last["labels"]) == ("succeeded", {"team": "a"})
        assert [artifact["size"] for artifact in last["artifacts"]] == [10]
        assert last["build_url"] == f"https://pool.example/api/v1/builds/{build.id}"
        assert got[0].said["result"] is None


async def test_the_secret_that_signs_is_dropped_when_all_is_told(tmp_path) -> None:
    """The others when the build stops; the log of a build never has it."""
    async with a_receiver() as receiver, a_scheduler(tmp_path, **SOON) as scheduler:
        receiver.open.clear()
        order = wanted("print x", notices=(Notice(receiver.url, secret="key"),))
        order = replace(order, secrets=("key", "other"))
        secrets = {"key": "k", "other": "o"}
        build = await scheduler.service.submit(LOCAL, order, secrets=secrets)
        ledger = scheduler.parts.dispatcher.ledger
        assert ledger.secrets_of(build.id) == secrets
        await scheduler.service.cancel(LOCAL, build.id)
        assert ledger.secrets_of(build.id) == {"key": "k"}
        assert _in_store(scheduler, build.id).secrets == {"key": "k"}
        receiver.open.set()
        await told(scheduler.service, build.id, NoticeRecord(told=2))
        await ledger.saved(build.id)
        assert ledger.secrets_of(build.id) == ledger._records[build.id].secrets == {}
        assert _in_store(scheduler, build.id).secrets == {}
        assert verified(receiver.got[-1], "k")


def _in_store(scheduler: Program, build_id: str) -> Any:
    records = scheduler.parts.store.records()
    return next(record for record in records if record.build.id == build_id)


async def test_what_is_refused_is_told_again(tmp_path) -> None:
    """Until it is taken, and the next change not before; the build goes on meanwhile."""
    async with (
        a_receiver() as receiver,
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, **SOON) as scheduler,
    ):
        receiver.answer = lambda got: web.Response(status=500 if len(receiver.got) < 4 else 204)
        await ready(scheduler)
        order = wanted("print x", notices=(Notice(receiver.url),))
        accepted = await scheduler.service.submit(LOCAL, order)
        build = await told(scheduler.service, accepted.id, NoticeRecord(told=3))
        states = [one.said["status"] for one in receiver.got]
        assert states == ["waiting"] * 4 + ["running", "stopped"]
        assert len({one.headers["Imagepool-Event"] for one in receiver.got[:4]}) == 1
        assert build.result is Result.SUCCEEDED
        assert "Imagepool-Signature" not in receiver.got[0].headers


async def test_a_receiver_that_never_takes_it_is_given_up_with_the_reason(tmp_path, caplog) -> None:
    """On record, and nothing more is told, in the next life neither; others are told."""
    closed = socket.create_server(("127.0.0.1", 0))
    nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    closed.close()
    async with a_receiver() as receiver:
        receiver.answer = lambda got: web.Response(status=404 if got.path == "/no" else 200)
        async with a_scheduler(tmp_path, home="s", notice_tries=3, **SOON) as scheduler:
            urls = (f"{receiver.url}/no", nobody, f"{receiver.url}/yes")
            order = wanted("print x", notices=tuple(Notice(url) for url in urls))
            accepted = await scheduler.service.submit(LOCAL, order)
            build = await until(
                scheduler.service,
                accepted.id,
                lambda build: [r.told or bool(r.gave_up) for r in build.notices] == [True, True, 1],
            )
            assert build.notices[0].gave_up == "3 tries failed; the last one: it answered 404"
            assert "Cannot connect" in build.notices[1].gave_up
            await scheduler.service.cancel(LOCAL, build.id)
            await receiver.count(2, "/yes")
        async with a_scheduler(tmp_path, home="s", notice_tries=3, **SOON) as scheduler:
            again = await scheduler.service.get(LOCAL, build.id)
            assert again.notices[:2] == build.notices[:2]
            await told(scheduler.service, build.id, *build.notices[:2], NoticeRecord(told=2))
        assert len([one for one in receiver.got if one.path == "/no"]) == 3
    assert f"notice 0 of build {build.id} is given up" in caplog.text
    assert "/no" not in caplog.text  # a URL may have a word in it that nobody else is to know


async def test_a_scheduler_that_starts_again_goes_on_where_it_was(tmp_path) -> None:
    """What was taken is not told again, what was not is; signed still, though the build has stopped
    meanwhile.
    """
    async with a_receiver() as receiver:
        receiver.answer = lambda got: web.Response(status=200 if got.said["event"] == 1 else 503)
        async with a_scheduler(tmp_path, home="s", **SOON) as scheduler:
            order = wanted("print x", notices=(Notice(receiver.url, secret="key"),))
            build = await scheduler.service.submit(LOCAL, order, secrets={"key": "k"})
            await scheduler.service.cancel(LOCAL, build.id)
            await receiver.count(3)
        before = len(receiver.got)
        receiver.answer = lambda got: web.Response()
        async with a_scheduler(tmp_path, home="s", **SOON) as scheduler:
            build = await told(scheduler.service, build.id, NoticeRecord(told=2))
        assert [one.said["event"] for one in receiver.got[:before]] == [1] + [2] * (before - 1)
        assert [one.said["event"] for one in receiver.got[before:]] == [2]
        assert verified(receiver.got[-1], "k")
        assert receiver.got[-1].said["result"] == "cancelled"


async def test_a_slow_receiver_holds_up_nobody(tmp_path) -> None:
    """Neither builds nor other receivers, however many notices wait for it."""
    async with (
        a_receiver() as slow,
        a_receiver() as quick,
        a_node(tmp_path, slots=4) as node,
        a_scheduler(tmp_path, node.url, notice_limit=6, **SOON) as scheduler,
    ):
        slow.open.clear()
        await ready(scheduler)
        order = wanted("print x", notices=(Notice(slow.url), Notice(quick.url)))
        builds = [await scheduler.service.submit(LOCAL, order) for _ in range(12)]
        for build in builds:
            assert (await ended(scheduler.service, build.id)).result is Result.SUCCEEDED
        await quick.count(3 * len(builds))
        assert len(slow.got) == 4
        slow.open.set()
        for build in builds:
            await told(scheduler.service, build.id, *[NoticeRecord(told=3)] * 2)
        assert len(slow.got) == 3 * len(builds)


async def test_a_receiver_that_does_not_answer_is_a_failed_try(tmp_path) -> None:
    """After `notice_timeout` seconds."""
    async with a_receiver() as receiver:
        receiver.open.clear()
        hasty = {**SOON, "notice_timeout": 0.05, "notice_tries": 2}
        async with a_scheduler(tmp_path, **hasty) as scheduler:
            order = wanted("print x", notices=(Notice(receiver.url),))
            build = await scheduler.service.submit(LOCAL, order)
            build = await until(
                scheduler.service, build.id, lambda b: any(r.gave_up for r in b.notices)
            )
        assert build.notices[0].gave_up.endswith("no answer within 0.05 s")


async def test_a_redirect_is_not_followed(tmp_path) -> None:
    """It is a failed try: nobody but the receiver that was named hears of the build."""
    async with a_receiver() as receiver, a_receiver() as other:
        receiver.answer = lambda got: web.Response(status=307, headers={"Location": other.url})
        async with a_scheduler(tmp_path, notice_tries=2, **SOON) as scheduler:
            order = wanted("print x", notices=(Notice(receiver.url),))
            build = await scheduler.service.submit(LOCAL, order)
            build = await until(
                scheduler.service, build.id, lambda b: any(r.gave_up for r in b.notices)
            )
        assert build.notices[0].gave_up.endswith("it answered 307")
        assert not other.got


async def test_a_large_answer_is_not_read(tmp_path) -> None:
    """The status is all that counts: an answer without end is a delivery."""
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with a_scheduler(tmp_path, **SOON) as scheduler:
            order = wanted("print x", notices=(Notice(f"http://127.0.0.1:{port}/"),))
            build = await scheduler.service.submit(LOCAL, order)
            await told(scheduler.service, build.id, NoticeRecord(told=1))
    assert sent < 64 << 20


async def test_a_signing_secret_that_is_lost_ends_the_notice(tmp_path) -> None:
    """A build that was adopted, because the store is new, has no secrets: nothing is sent unsigned
    to a receiver that asked for signatures.
    """
    async with a_receiver() as receiver, a_node(tmp_path) as node:
        receiver.answer = lambda got: web.Response(status=503)
        async with a_scheduler(tmp_path, node.url, home="s", **SOON) as scheduler:
            await ready(scheduler)
            order = wanted("hang", notices=(Notice(receiver.url, secret="key"),))
            build = await scheduler.service.submit(LOCAL, order, secrets={"key": "k"})
            await until(scheduler.service, build.id, lambda b: b.state is State.RUNNING)
            await receiver.count(1)
        for file in (tmp_path / "s").glob("scheduler.db*"):
            file.unlink()
        before = len(receiver.got)
        times = {"recover_least": 0.1, "recover_most": 1.0}
        async with a_scheduler(tmp_path, node.url, home="s", **times, **SOON) as scheduler:
            changes = await scheduler.service.changes(LOCAL, wait=10)
            while not changes.builds:
                changes = await scheduler.service.changes(LOCAL, cursor=changes.cursor, wait=10)
            lost = await until(
                scheduler.service, build.id, lambda b: any(r.gave_up for r in b.notices)
            )
            assert lost.notices[0].gave_up == "the secret that signs it is lost"
        assert len(receiver.got) == before


async def test_a_node_tells_of_the_builds_that_clients_gave_to_it(tmp_path) -> None:
    """And goes on when it starts again; of a scheduler's builds it tells nobody."""
    async with a_receiver() as receiver:
        async with a_node(tmp_path, home="n", slots=1, **SOON) as node:
            hanging = await node.service.submit(LOCAL, request("hang"))
            notice = Notice(receiver.url, secret="key")
            order = wanted("print x", notices=(notice,))
            waiting = await node.service.submit(LOCAL, order, secrets={"key": "k"})
            await receiver.count(1)
            receiver.answer = lambda got: web.Response(status=503)
            await node.service.cancel(LOCAL, hanging.id)
            await ended(node.service, waiting.id)
            await receiver.count(3)
            record = node.parts.ledger.kept(waiting.id).record
            assert record.secrets == {"key": "k"}
        assert {one.said["event"] for one in receiver.got[1:]} == {2}
        receiver.answer = lambda got: web.Response()
        del receiver.got[:]
        async with a_node(tmp_path, home="n", slots=1, **SOON) as node:
            build = await told(node.service, waiting.id, NoticeRecord(told=3))
            assert node.parts.ledger.kept(waiting.id).record.secrets == {}
        assert [one.event[1:] for one in receiver.got] == [("running", 2), ("stopped", 3)]
        assert all(verified(one, "k") for one in receiver.got)
        async with a_node(tmp_path, home="n", slots=1, **SOON) as node:
            assert await node.service.get(LOCAL, waiting.id) == build
            assert build.result is Result.SUCCEEDED


async def test_a_node_keeps_how_far_notices_are_while_the_build_runs(tmp_path) -> None:
    """Whoever runs the build knows nothing of notices, and writes the build again and again."""
    async with a_receiver() as receiver, a_node(tmp_path, **SOON) as node:
        order = wanted("print x", "hang", notices=(Notice(receiver.url),))
        accepted = await node.service.submit(LOCAL, order)
        await until(node.service, accepted.id, lambda b: b.stage is Stage.RUNNING)
        await receiver.count(2)
        await node.service.cancel(LOCAL, accepted.id)
        await told(node.service, accepted.id, NoticeRecord(told=3))
        assert [one.said["event"] for one in receiver.got] == [1, 2, 3]


@pytest.mark.parametrize("where", ["scheduler", "node"])
async def test_an_exchange_alone_is_refused_and_says_why(tmp_path, where) -> None:
    """AMQP is not set up here; with a URL beside it, it is kept and shown."""
    async with a_receiver() as receiver:
        make = a_node if where == "node" else a_scheduler
        async with make(tmp_path, **SOON) as program, a_client(program.url) as client:
            with pytest.raises(Invalid) as refused:
                await client.submit(LOCAL, wanted("print x", notices=(Notice(exchange="e"),)))
            assert refused.value.field == "guidance.notices[0].exchange"
            assert "AMQP is not set up here" in refused.value.detail
            order = wanted("print x", notices=(Notice(receiver.url, exchange="e"),))
            build = await client.submit(LOCAL, order)
            shown = await client.get(LOCAL, build.id)
            assert shown.request.guidance.notices[0].exchange == "e"
            await receiver.count(1)


async def test_a_build_below_two_schedulers_is_told_once(tmp_path) -> None:
    """By the one that the client spoke to."""
    async with (
        a_receiver() as receiver,
        a_node(tmp_path, **SOON) as node,
        a_scheduler(tmp_path, node.url, **SOON) as inner,
        a_scheduler(tmp_path, inner.url, **SOON) as outer,
    ):
        await ready(inner)
        await ready(outer)
        order = wanted("print x", notices=(Notice(receiver.url, secret="key"),))
        build = await outer.service.submit(LOCAL, order, secrets={"key": "k"})
        await told(outer.service, build.id, NoticeRecord(told=3))
        assert (await inner.service.get(LOCAL, build.id)).notices == ()
        assert (await node.service.get(LOCAL, build.id)).notices == ()
        assert len(receiver.got) == 3


class Taker:
    """Takes every notice at once, and notes its number and whether the disk was broken then."""

    def __init__(self, store: Slow) -> None:
        self.store = store
        self.got: list[tuple[int, bool]] = []

    async def post(self, url: str, content: bytes, headers: dict[str, str]) -> int:
        """See Callout."""
        self.got.append((json.loads(content)["event"], self.store.broken))
        return 200

    async def close(self) -> None:
        """See Callout."""


async def test_a_change_is_told_when_it_is_on_disk_and_not_before() -> None:
    """Or a number would be told for what a crash takes back; the disk's failing is not the
    receiver's.
    """
    store = Slow()
    ledger = Ledger(Board(), store)
    notices = Notices("o", ledger, SchedulerSettings(notice_networks=HERE, **SOON), _no_cancel)
    taker = notices._telling = Taker(store)
    writing = asyncio.create_task(ledger.keep_writing())
    order = request("x", notices=(Notice("http://receiver.example/"),))
    build = await ledger.add(new_build("1" * 32, order, origin="o", owner="ann", now=0))
    notices.begin()
    await until_board(ledger, build.id, NoticeRecord(told=1))
    await ledger.saved(build.id)
    store.broken = True
    ledger.put(steps.cancelled(ledger.get(build.id), 1.0, "x"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await ledger.saved(build.id)
    store.broken = False
    await until_board(ledger, build.id, NoticeRecord(told=2))
    assert taker.got == [(1, False), (2, False)]
    await notices.close()
    writing.cancel()
    await asyncio.wait({writing})
    await ledger.close()


async def until_board(ledger: Ledger, build_id: str, record: NoticeRecord) -> None:
    """Return when the build's notice is that far, in memory."""
    while (build := ledger.get(build_id)).notices != (record,):
        await ledger.board.held(build_id, build.revision, 5)


async def _no_cancel(build_id: str, cause: str) -> None:
    raise AssertionError(f"{build_id} was cancelled: {cause}")


# Whether a build is still wanted


def says(text: str, status: int = 200) -> Any:
    """An answer of a requester."""
    return lambda got: web.Response(text=text, status=status, content_type="application/json")


@pytest.mark.parametrize("where", ["scheduler", "node", "queue"])
async def test_a_build_that_nobody_wants_any_more_is_cancelled(tmp_path, where) -> None:
    """Whether it runs or waits: as soon as its requester says so, and not before."""
    async with a_receiver() as requester, a_node(tmp_path, **SOON) as node:
        requester.answer = says('{"building": true}')
        nodes = () if where == "queue" else (node.url,)
        async with a_scheduler(tmp_path, *nodes, **SOON) as scheduler:
            service = (node if where == "node" else scheduler).service
            if where == "scheduler":
                await ready(scheduler)
            order = request("hang", cancel_url=f"{requester.url}/job/7/json?x=y")
            build = await service.submit(LOCAL, order)
            if where != "queue":
                await until(service, build.id, lambda b: b.stage is Stage.RUNNING)
            await requester.count(len(requester.got) + 2)
            assert (await service.get(LOCAL, build.id)).state is not State.STOPPED
            requester.answer = says('{"building": false, "result": "ABORTED"}')
            build = await ended(service, build.id)
            assert build.result is Result.CANCELLED
            assert build.reason == "its requester no longer wants it"
            assert {(one.method, one.path) for one in requester.got} == {("GET", "/job/7/json")}
            if where == "scheduler":
                assert (await ended(node.service, build.id)).result is Result.CANCELLED


@pytest.mark.parametrize(
    "answer",
    [
        says('{"building": false}', 404),
        says('{"building": false}', 302),
        says("no JSON"),
        says('{"building": false'),
        says(" " * (1 << 20) + '{"building": false}'),
    ],
)
async def test_no_other_answer_ends_a_build(tmp_path, answer) -> None:
    """It is asked again."""
    async with a_receiver() as requester, a_scheduler(tmp_path, **SOON) as scheduler:
        requester.answer = answer
        build = await scheduler.service.submit(LOCAL, request("x", cancel_url=requester.url))
        await requester.count(3)
        assert (await scheduler.service.get(LOCAL, build.id)).state is State.WAITING


async def test_a_requester_that_does_not_answer_ends_no_build(tmp_path) -> None:
    """Nor one that is not there; and of a build that has stopped nobody is asked."""
    async with a_receiver() as requester:
        requester.open.clear()
        hasty = {**SOON, "notice_timeout": 0.05}
        async with a_scheduler(tmp_path, **hasty) as scheduler:
            order = request("x", cancel_url=requester.url)
            build = await scheduler.service.submit(LOCAL, order)
            await requester.count(2)
            assert (await scheduler.service.get(LOCAL, build.id)).state is State.WAITING
            await scheduler.service.cancel(LOCAL, build.id)
            notices = scheduler.parts.notices
            await asyncio.wait(tuple(notices._tasks.values()))
            assert not notices._tasks


async def test_a_restarted_scheduler_asks_on(tmp_path) -> None:
    """Whether a build is wanted follows from the build alone."""
    async with a_receiver() as requester:
        async with a_scheduler(tmp_path, home="s", **{**SOON, "cancel_every": 3600}) as scheduler:
            order = request("x", cancel_url=requester.url)
            build = await scheduler.service.submit(LOCAL, order)
        requester.answer = says('{"building": false}')
        async with a_scheduler(tmp_path, home="s", **SOON) as scheduler:
            assert (await ended(scheduler.service, build.id)).result is Result.CANCELLED


async def test_a_name_that_is_not_known_is_an_answer_in_words(monkeypatch) -> None:
    """Names are looked up in threads of our own, whose errors are the try's."""

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("protocol.remote.guard.socket.getaddrinfo", unknown)
    callout = Callout(seconds=5, limit=1, guard=Guard(reach(HERE, "notice_networks")))
    with pytest.raises(Unavailable, match="not known"):
        await callout.post("http://receiver.example/", b"", {})
    await callout.close()


async def test_a_name_is_called_by_its_address(monkeypatch) -> None:
    """The receiver sees the name in the Host header."""
    async with a_receiver() as receiver:
        callout = Callout(seconds=5, limit=1, guard=Guard(reach(HERE, "notice_networks")))
        port = receiver.url.rpartition(":")[2]
        assert await callout.post(f"http://localhost:{port}/x", b"{}", {}) == 200
        await callout.close()
    assert receiver.got[0].headers["Host"] == f"localhost:{port}"


async def test_a_url_of_another_kind_is_never_called() -> None:
    """The same check that a request goes through, at every call."""
    callout = Callout(seconds=5, limit=1, guard=Guard(reach(HERE, "notice_networks")))
    with pytest.raises(Invalid):
        await callout.post("file:///etc/passwd", b"", {})
    await callout.close()

"""The log over HTTP: its bytes, parts of it, and events while it is written."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec import Struct
from msgspec.structs import replace

from protocol.api import sse
from protocol.api.native import log
from protocol.errors import Unavailable
from protocol.model.build import Position, Stage, State
from protocol.ports.service import LOCAL, OpenLog
from tests.api.test_image_creator import Api, refusal
from tests.programs import Program, a_node, a_scheduler, ended, ready, request, until

following = pytest.mark.gen_test(timeout=60)

SCRIPTS = ("print one", "print two\nprint zwei", "print three")
WHOLE = b"one\ntwo\nzwei\nthree\n"


class Event(Struct):
    """An event as an EventSource has it."""

    name: str
    data: Any
    id: str


@asynccontextmanager
async def events(url: str, last: str = "") -> AsyncIterator[AsyncIterator[Event]]:
    """The events at this URL."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session,
        session.get(url, headers=headers) as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    last, received = "", b""
    async for piece in response.content.iter_any():
        *blocks, received = (received + piece).split(b"\n\n")
        for block in (block.decode() for block in blocks):
            if block.startswith(":"):
                yield Event("ping", None, last)
                continue
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            last = fields.get("id", last)
            yield Event(fields.get("event", ""), json.loads(fields["data"]), last)


async def all_of(url: str, last: str = "") -> list[Event]:
    """Every event until the stream ends."""
    async with asyncio.timeout(20), events(url, last) as stream:
        return [event async for event in stream]


def text_of(told: list[Event]) -> str:
    """The text of a log's events."""
    return "".join(event.data for event in told if event.name == "")


@asynccontextmanager
async def pool(folder) -> AsyncIterator[tuple[Program, Program]]:
    """A scheduler over a node, and the node."""
    async with a_node(folder, slots=2) as node, a_scheduler(folder, node.url) as scheduler:
        await ready(scheduler)
        yield scheduler, node


async def built(program: Program, *scripts: str) -> str:
    """The path of the log of a build of these that has stopped."""
    build = await program.service.submit(LOCAL, request(*scripts))
    await ended(program.service, build.id)
    return f"/api/v1/builds/{build.id}/log"


@following
async def test_the_log_of_one_command(http_client, tmp_path):
    """Its bytes alone, whether it has ended or is followed."""
    async with pool(tmp_path) as programs:
        path = await built(programs[0], *SCRIPTS)
        for program in programs:
            api = Api(http_client, program.url)
            assert (await api.call("GET", path)).body == WHOLE
            for index, text in enumerate((b"one\n", b"two\nzwei\n", b"three\n")):
                for more in ("", "&follow=1"):
                    answer = await api.call("GET", f"{path}?command={index}{more}")
                    assert answer.body == text
            assert answer.headers["Log-Offset"] == "13"
            part = await api.call("GET", f"{path}?command=1&position=1:6&limit=3")
            assert part.body == b"o\nz"
            refusal(await api.call("GET", f"{path}?command=3"), 404, "command")
            refusal(await api.call("GET", f"{path}?command=-1"), 400, "command")
            refusal(await api.call("GET", f"{path}?follow=perhaps"), 400, "follow")


@following
async def test_a_command_is_followed_to_its_end_and_no_further(tmp_path):
    """What it wrote comes while it runs; what the next one writes does not come."""
    async with pool(tmp_path) as programs:
        wanted = request("print one\nsleep 1.5\nprint more", "print two\nhang")
        build = await programs[0].service.submit(LOCAL, wanted)
        for program in programs:
            url = f"{program.url}/api/v1/builds/{build.id}/log?command=0&follow=1"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert await response.content.readexactly(4) == b"one\n"
                if program is programs[0]:
                    now = await program.service.get(LOCAL, build.id)
                    assert now.commands[0].state is State.RUNNING
                assert await response.content.read() == b"more\n"
        now = await programs[0].service.get(LOCAL, build.id)
        assert now.commands[1].state is State.RUNNING
        told = await all_of(f"{programs[0].url}/api/v1/builds/{build.id}/log?command=0")
        assert text_of(told) == "one\nmore\n"
        assert told[-1].data == {"status": "running", "result": None, "reason": "", "exit_code": 0}
        await programs[0].service.cancel(LOCAL, build.id)


@following
async def test_ranges_of_a_log_that_has_ended(http_client, tmp_path):
    """As of a file; also of one command's part."""
    async with pool(tmp_path) as programs:
        path = await built(programs[0], *SCRIPTS)
        for program in programs:
            api = Api(http_client, program.url)
            for part, start, end in (("0-2", 0, 3), ("4-", 4, 19), ("-6", 13, 19), ("3-99", 3, 19)):
                answer = await api.call("GET", path, headers={"Range": f"bytes={part}"})
                assert (answer.code, answer.body) == (206, WHOLE[start:end])
                assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/19"
                assert answer.headers["Content-Length"] == str(end - start)
            answer = await api.call("GET", f"{path}?command=1", headers={"Range": "bytes=4-5"})
            assert (answer.body, answer.headers["Content-Range"]) == (b"zw", "bytes 4-5/9")
            answer = await api.call("GET", path, headers={"Range": "bytes=19-"})
            assert (answer.code, answer.headers["Content-Range"]) == (416, "bytes */19")


@following
async def test_ranges_of_a_log_that_grows(http_client, tmp_path):
    """What is there, where the range has an end; else the whole, as it is now."""
    async with a_node(tmp_path) as node:
        build = await node.service.submit(LOCAL, request("print one\nhang"))
        await until(node.service, build.id, lambda seen: seen.log_size == 4)
        api, path = Api(http_client, node.url), f"/api/v1/builds/{build.id}/log"
        answer = await api.call("GET", path, headers={"Range": "bytes=1-2"})
        assert (answer.code, answer.body) == (206, b"ne")
        assert answer.headers["Content-Range"] == "bytes 1-2/*"
        for part in ("1-", "-2"):
            answer = await api.call("GET", path, headers={"Range": f"bytes={part}"})
            assert (answer.code, answer.body) == (200, b"one\n")
        answer = await api.call("GET", path, headers={"Range": "bytes=4-5"})
        assert (answer.code, answer.headers["Content-Range"]) == (416, "bytes */4")
        await node.service.cancel(LOCAL, build.id)


@following
async def test_events_follow_the_log_to_its_end(tmp_path):
    """The text comes as it is written, ids are positions, the end tells the result; by any id the
    stream goes on behind it.
    """
    async with pool(tmp_path) as programs:
        wanted = request("print one", "sleep 1\nprint twö")
        build = await programs[0].service.submit(LOCAL, wanted)
        for program in programs:
            url = f"{program.url}/api/v1/builds/{build.id}/log"
            told = await all_of(url)
            assert text_of(told) == "one\ntwö\n"
            assert told[-1].name == "end"
            assert told[-1].data == {"status": "stopped", "result": "succeeded", "reason": ""}
            assert told[-1].id == "1:9"
            for event in told:
                position = Position.parse(event.id)
                rest = await all_of(url, event.id)
                assert text_of(rest) == "one\ntwö\n".encode()[position.offset :].decode()
                assert rest[-1].name == "end"


@following
async def test_events_are_text_whatever_the_bytes_are(tmp_path, monkeypatch):
    """No character is split between events, what is no UTF-8 is replaced, an event has no more
    than a batch, and ids are positions in the bytes.
    """
    data = "aä€😀".encode() * 7 + b"\xff\xfe" + "é".encode() + b"\xe2\x82"
    async with a_node(tmp_path) as node:
        build = await node.service.submit(LOCAL, request("hang"))
        await until(node.service, build.id, lambda seen: seen.stage is Stage.RUNNING)
        served = node.parts.runner.log_of(await node.service.get(LOCAL, build.id))
        monkeypatch.setattr(log, "BATCH", 3)
        url = f"{node.url}/api/v1/builds/{build.id}/log"
        reading = asyncio.ensure_future(all_of(url))
        for byte in data:
            served.append(bytes([byte]))
            await asyncio.sleep(0.002)
        await node.service.cancel(LOCAL, build.id)
        whole = data + served.read(len(data), 1000)
        told = await reading
    assert text_of(told) == whole.decode("utf-8", "replace")
    texts = [event for event in told if event.name == ""]
    assert len(texts) > 20
    start = 0
    for event in texts[:-1]:
        end = Position.parse(event.id).offset
        assert whole[start:end].decode("utf-8", "replace") == event.data
        start = end


@following
async def test_a_superseded_attempt_is_told_and_the_log_starts_anew(tmp_path, monkeypatch):
    """Also for who comes with a position of the old one; a node that does not answer is waited
    for.
    """
    async with a_node(tmp_path) as node:
        service = node.service
        build = await service.submit(LOCAL, request("print new"))
        await ended(service, build.id)
        url = f"{node.url}/api/v1/builds/{build.id}/log"
        monkeypatch.setattr(log, "_AGAIN", 0.01)
        get, open_log, failures = service.get, service.open_log, [0]

        async def running_then_stopped(*arguments, **options):
            seen = await get(*arguments, **options)
            running = {"stage": Stage.RUNNING, "result": None}
            return replace(seen, **running) if failures[0] < 3 else seen

        async def away_at_first(*arguments, **options) -> OpenLog:
            failures[0] += 1
            if failures[0] < 3:
                raise Unavailable("the node that has it is not in the pool now")
            opened = await open_log(*arguments, **options)
            return replace(opened, attempt=2)

        monkeypatch.setattr(service, "get", running_then_stopped)
        monkeypatch.setattr(service, "open_log", away_at_first)
        told = await all_of(url, "1:999")
    assert [event.name for event in told] == ["attempt", "", "end"]
    assert told[0].data == {"attempt": 2}
    assert text_of(told) == "new\n"
    assert failures == [4]


@following
async def test_a_log_that_is_lost_ends_with_the_reason(tmp_path, monkeypatch):
    """Where the build has stopped and its node does not answer, there is nothing to wait for."""
    async with a_node(tmp_path) as node:
        build = await node.service.submit(LOCAL, request("print a"))
        await ended(node.service, build.id)

        async def away(*arguments, **options):
            raise Unavailable("the node is away")

        monkeypatch.setattr(node.service, "open_log", away)
        (end,) = await all_of(f"{node.url}/api/v1/builds/{build.id}/log")
    assert (end.name, end.data["result"]) == ("end", "succeeded")
    assert end.data["problem"] == "the node is away"


@following
async def test_pings_while_nothing_is_written(tmp_path, monkeypatch):
    """And who hangs up is forgotten at once."""
    monkeypatch.setattr(sse, "PING", 0.02)
    async with a_node(tmp_path) as node:
        build = await node.service.submit(LOCAL, request("print a\nhang"))
        url = f"{node.url}/api/v1/builds/{build.id}/log"
        async with asyncio.timeout(20), events(url) as stream:
            seen = [await anext(stream) for _ in range(4)]
            while [event.name for event in seen[-3:]] != ["ping"] * 3:
                seen.append(await anext(stream))
        assert text_of(seen) == "a\n"
        await node.service.cancel(LOCAL, build.id)


@following
async def test_bad_events(http_client, tmp_path):
    """What is wrong is said before the stream begins."""
    async with a_node(tmp_path) as node:
        api, path = Api(http_client, node.url), await built(node, "print a")
        headers = {"Accept": "text/event-stream"}
        refused = await api.call("GET", path, headers={**headers, "Last-Event-ID": "x"})
        refusal(refused, 400, "Last-Event-ID")
        refusal(await api.call("GET", f"{path}?command=9", headers=headers), 404, "command")
        missing = await api.call("GET", "/api/v1/builds/0a/log", headers=headers)
        assert missing.code == 404


@following
async def test_a_large_log_comes_in_batches(tmp_path):
    """Not line by line: events are as few as they may be."""
    async with a_node(tmp_path) as node:
        path = await built(node, "bytes 2000000")
        told = await all_of(node.url + path)
        size = Position.parse(told[-1].id).offset
    assert size == 2_000_000
    assert len(told) <= size / log.BATCH + 2 + 8  # reads end where the file's pieces do

"""The stream of everything that changes."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from protocol.api.native import events as events_api
from protocol.ports.service import LOCAL
from scheduler.roster.node_feed import RosterFeed
from tests.api.test_image_creator import Api, refusal
from tests.api.test_native_log import Event, events
from tests.programs import a_node, a_scheduler, ended, ready, request

following = pytest.mark.gen_test(timeout=60)


async def seen_until(
    stream: AsyncIterator[Event], sight: Callable[[Event], bool], seconds: float = 20
) -> list[Event]:
    """The events up to the one that looks like that."""
    seen: list[Event] = []
    async with asyncio.timeout(seconds):
        while not seen or not sight(seen[-1]):
            seen.append(await anext(stream))
    return seen


def stopped(event: Event) -> bool:
    """Whether it says that a build has stopped."""
    return event.name == "build" and event.data["status"] == "stopped"


@following
async def test_builds_and_nodes_are_told_as_they_change(tmp_path):
    """All that there is first; then each change; by an event's id the stream goes on behind it."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await ready(scheduler)
        wanted = request("print a\nsleep 0.3", labels={"k": "v"})
        one = await scheduler.service.submit(LOCAL, wanted)
        async with events(f"{scheduler.url}/api/v1/events") as stream:
            seen = await seen_until(stream, stopped)
            await scheduler.parts.listing.cordon(node.id, "rest")
            seen += await seen_until(
                stream, lambda e: e.name == "node" and e.data["state"] == "cordoned"
            )
        last = seen[-1]
        builds = [event.data for event in seen if event.name == "build"]
        assert {build["id"] for build in builds} == {one.id}
        assert builds[-1]["result"] == "succeeded"
        assert builds[-1]["labels"] == {"k": "v"}
        assert builds[-1]["progress"] == {"commands": 1, "ended": 1, "command": "", "log_size": 2}
        assert [b["revision"] for b in builds] == sorted(b["revision"] for b in builds)
        assert last.data["reason"] == "rest"
        two = await scheduler.service.submit(LOCAL, request("print b"))
        async with events(f"{scheduler.url}/api/v1/events", last.id) as stream:
            seen = await seen_until(stream, lambda e: e.name == "build")
        assert [event.data["id"] for event in seen if event.name == "build"] == [two.id]
        assert "reset" not in [event.name for event in seen]


@following
@pytest.mark.parametrize("last", ["0123abcd.5~0123abcd.5", "rubbish", "~0123abcd.5"])
async def test_an_unknown_cursor_begins_anew(tmp_path, last):
    """Reset, and then everything."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await ready(scheduler)
        build = await scheduler.service.submit(LOCAL, request("print a"))
        await ended(scheduler.service, build.id)
        async with events(f"{scheduler.url}/api/v1/events", last) as stream:
            seen = await seen_until(stream, lambda event: event.name == "reset")
            seen = await seen_until(stream, lambda event: event.name == "node")
            while "build" not in [event.name for event in seen]:
                seen.append(await anext(stream))


@following
async def test_only_some_builds(http_client, tmp_path):
    """With `build` nothing else is told, no node either; on a node there is none to tell of."""
    async with a_node(tmp_path, slots=2) as node:
        one = await node.service.submit(LOCAL, request("print a"))
        two = await node.service.submit(LOCAL, request("print b"))
        await ended(node.service, one.id)
        await ended(node.service, two.id)
        async with events(f"{node.url}/api/v1/events?build={two.id}") as stream:
            seen = await seen_until(stream, stopped)
            assert {event.data["id"] for event in seen} == {two.id}
            await node.parts.ledger.forget(one.id)
            await node.parts.ledger.forget(two.id)
            gone = await seen_until(stream, lambda event: event.name == "build-gone")
            assert [event.data for event in gone] == [{"id": two.id}]
        api = Api(http_client, node.url)
        refusal(await api.call("GET", "/api/v1/events?build=A%20B"), 400, "build[0]")


@following
async def test_a_slow_reader_misses_states_and_never_the_last(tmp_path):
    """While it does not read nothing is kept for it; then it is told how things are."""
    async with a_node(tmp_path) as node:
        build = await node.service.submit(LOCAL, request("print a"))
        await ended(node.service, build.id)  # nobody but us changes it any more
        board = node.parts.ledger.board
        async with events(f"{node.url}/api/v1/events?build={build.id}") as stream:
            await anext(stream)
            last = await node.service.get(LOCAL, build.id)
            filler = "x" * 200_000
            for number in range(1, 400):  # far more than the buffers on the way hold
                last = replace(last, revision=last.revision + 1, reason=f"{number} {filler}")
                board.put(last)
                await asyncio.sleep(0)
            board.put(replace(last, revision=last.revision + 1, reason="the last"))
            seen = await seen_until(stream, lambda event: event.data["reason"] == "the last")
            assert len(seen) < 300


@following
async def test_what_changes_of_a_roster(tmp_path):
    """A node that is otherwise, or gone; not that it was seen again."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        roster = await ready(scheduler) and scheduler.parts.listing.roster()
        now = [0.0]
        feed = RosterFeed(lambda: roster, lambda: now[0])
        first = feed.since("")
        assert [entry.id for entry in first.nodes] == [node.id]
        entry = roster.nodes[0]
        for changed, told in (
            ({"last_seen": 7.0, "latency": 1.0, "clock": 3.0}, 0),
            ({"reason": "no answer for 3 s"}, 1),
            ({"reason": "no answer for 4 s"}, 0),
            ({"state": "silent"}, 1),
        ):
            entry = replace(entry, **changed)
            roster = replace(roster, nodes=(entry,))
            now[0] += 1
            news = feed.since(first.cursor)
            assert len(news.nodes) == told, changed
            first = news
        roster = replace(roster, nodes=())
        now[0] += 1
        assert feed.since(first.cursor).gone == (node.id,)
        assert feed.since("0123.1").reset


@following
async def test_pings_go_on_while_nothing_changes(tmp_path, monkeypatch):
    """Nothing on the way takes the connection for dead."""
    monkeypatch.setattr("protocol.api.sse.PING", 0.02)
    monkeypatch.setattr(events_api, "HELD", 0.5)
    async with a_node(tmp_path) as node, events(f"{node.url}/api/v1/events") as stream:
        assert {(await anext(stream)).name for _ in range(3)} == {"ping"}

"""Plain nodes: servers that know the documented API and nothing of ours, beside nodes of ours."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.httpclient import AsyncHTTPClient

from imagepool.cli.words import node_table
from protocol.errors import Invalid, Unavailable
from protocol.model.build import Build, Position, Result, Stage
from protocol.model.messages import RosterEntry
from protocol.model.recipe import Command, IsoOutput, NoOutput, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL, ByteRange
from scheduler.core.plain import LACKS
from scheduler.plain import exchange, watcher
from scheduler.plain.node import plain_id
from tests.programs import (
    Program,
    a_node,
    a_scheduler,
    ended,
    log_of,
    ready,
    request,
    roster_until,
    until,
)
from tests.scheduler import plain_server
from tests.scheduler.plain_server import PlainServer

pytestmark = pytest.mark.gen_test(timeout=60)

PATIENT = {"plain_poll": 0.05}


@pytest.fixture
def server() -> Iterator[PlainServer]:
    """A plain server of higher priority than the nodes."""
    with PlainServer() as made:
        yield made


class Pool:
    """A scheduler over a plain server and nodes of ours."""

    def __init__(self, server: PlainServer, scheduler: Program, nodes: list[Program]) -> None:
        self.server = server
        self.scheduler = scheduler
        self.service = scheduler.service
        self.nodes = nodes

    async def submit(self, *texts: str, **more: Any) -> Build:
        """A build that the documented API can express, unless `more` says otherwise."""
        given = {"output": IsoOutput(), "keep_going": True, **more}
        return await self.service.submit(LOCAL, request(*texts, **given))

    def on_plain(self, build: Build) -> bool:
        """Whether it is there."""
        return build.node is not None and build.node.id == plain_id(self.server.url)

    async def line(self, words: str = "", **fields: Any) -> RosterEntry:
        """The plain node's line on the roster, when its reason has these words."""

        def fits(line: RosterEntry) -> bool:
            same = all(getattr(line, name) == value for name, value in fields.items())
            return line.url == self.server.url and words in line.reason and same

        roster = await roster_until(self.scheduler, lambda r: any(map(fits, r.nodes)), 20)
        return next(line for line in roster.nodes if fits(line))


@asynccontextmanager
async def a_pool(
    folder: Path, server: PlainServer, nodes: int = 2, count: int | None = None, **settings: Any
) -> AsyncIterator[Pool]:
    """With so many nodes of ours; when so many of all, else all, are ready."""
    async with AsyncExitStack() as stack:
        ours = [await stack.enter_async_context(a_node(folder)) for _ in range(nodes)]
        urls = [node.url for node in ours]
        given = {"plain_nodes": (server.url,), **PATIENT, **settings}
        scheduler = await stack.enter_async_context(a_scheduler(folder, *urls, **given))
        wanted = nodes + 1 if count is None else count
        yield Pool(server, await ready(scheduler, wanted), ours)


async def image_of(pool: Pool, build: Build) -> bytes:
    """The image, as a client of the scheduler has it."""
    url = f"{pool.scheduler.url}/download/{build.id}/any.iso"
    return (await AsyncHTTPClient().fetch(url)).body


# What goes well


async def test_builds_go_to_it_by_priority_and_come_back_whole(tmp_path, server) -> None:
    """Log, exit codes and image, byte for byte; what it was sent is the documented document."""
    async with a_pool(tmp_path, server) as pool:
        build = await pool.submit("print één", "print two\nprint more", "exit 0")
        build = await ended(pool.service, build.id)
        assert pool.on_plain(build)
        assert (build.result, build.reason) == (Result.SUCCEEDED, "")
        log = "één\ntwo\nmore\n".encode()
        assert await log_of(pool.service, build.id) == log
        assert [(c.start, c.end, c.exit_code) for c in build.commands] == [
            (0, 6, 0),
            (6, 15, 0),
            (15, 15, 0),
        ]
        opened = await pool.service.open_log(LOCAL, build.id, Position(1, 6), limit=4)
        assert (opened.attempt, opened.start) == (1, 6)
        assert b"".join([piece async for piece in opened.stream]) == log[6:10]

        image = server.builds[1].image
        (artifact,) = build.artifacts
        assert (artifact.name, artifact.size) == ("CodersOS.iso", len(image))
        assert await image_of(pool, build) == image
        part = await pool.service.open_artifact(LOCAL, build.id, "CodersOS.iso", ByteRange(9, 99))
        assert (part.start, part.end) == (9, 99)
        assert b"".join([piece async for piece in part.stream]) == image[9:99]
        await part.stream.close()

        (sent,) = server.specifications
        assert sent.pop("redirect").startswith("http://")
        assert sent == {
            "commands": [
                {"name": "command 0", "command": "print één", "arguments": []},
                {"name": "command 1", "command": "print two\nprint more", "arguments": []},
                {"name": "command 2", "command": "exit 0", "arguments": []},
            ]
        }


async def test_a_failed_command_stops_nothing_and_is_the_users_result(tmp_path, server) -> None:
    """The image that there is nevertheless can be had."""
    async with a_pool(tmp_path, server) as pool:
        build = await pool.submit("print sorry\nexit 3", "print still here")
        build = await ended(pool.service, build.id)
        assert pool.on_plain(build)
        assert (build.result, build.attempt) == (Result.FAILED, 1)
        assert build.reason == "the command 'command 0' ended with 3"
        assert [command.exit_code for command in build.commands] == [3, 0]
        assert await log_of(pool.service, build.id) == b"sorry\nstill here\n"
        assert await image_of(pool, build) == server.builds[1].image


async def test_a_build_without_an_image_failed(tmp_path, server) -> None:
    """The server names none."""
    server.downloads = False
    async with a_pool(tmp_path, server) as pool:
        build = await ended(pool.service, (await pool.submit("print x")).id)
        assert (build.result, build.artifacts) == (Result.FAILED, ())
        assert "names none" in build.reason


async def test_an_image_and_urls_are_passed_on(tmp_path, server) -> None:
    """As the document has them."""
    command = Command("fetch", url="http://scripts.test/a.sh", arguments=("-q",))
    async with a_pool(tmp_path, server) as pool:
        recipe = request(output=IsoOutput()).recipe
        recipe = replace(recipe, commands=(command,), base=replace(recipe.base, name="debian:12"))
        build = await pool.service.submit(LOCAL, BuildRequest(recipe))
        build = await ended(pool.service, build.id)
        assert pool.on_plain(build)
        (sent,) = server.specifications
        assert sent["image"] == "debian:12"
        assert sent["commands"] == [
            {"name": "fetch", "url": "http://scripts.test/a.sh", "arguments": ["-q"]}
        ]


async def test_its_log_grows_when_a_command_has_ended(tmp_path, server) -> None:
    """Whoever follows it is given the output then; the build shows which command runs."""
    async with a_pool(tmp_path, server) as pool:
        build = await pool.submit("print one", "print two\nwait", "print three")
        build = await until(pool.service, build.id, lambda b: b.log_size == 4)
        assert build.stage is Stage.RUNNING
        assert [command.state.value for command in build.commands] == [
            "stopped",
            "running",
            "waiting",
        ]
        opened = await pool.service.open_log(LOCAL, build.id, Position(), follow=True)
        pieces = aiter(opened.stream)
        assert await anext(pieces) == b"one\n"
        server.go.set()
        assert b"".join([piece async for piece in pieces]) == b"two\nthree\n"
        assert (await ended(pool.service, build.id)).result is Result.SUCCEEDED


async def test_it_gets_one_build_for_each_ready(tmp_path, server) -> None:
    """It may say so again while it builds, up to a limit; what is more goes elsewhere, or waits."""
    async with a_pool(tmp_path, server, nodes=0, plain_slots=2) as pool:
        builds = [await pool.submit("wait") for _ in range(4)]
        await pool.line(used=2, slots=2)
        assert len(server.specifications) == 2
        server.status = "busy"
        server.go.set()
        for build in builds[:2]:
            await ended(pool.service, build.id)
        await pool.line("it says that it is busy", state="busy", used=0)
        assert len(server.specifications) == 2
        server.status = "ready"
        for build in builds[2:]:
            assert (await ended(pool.service, build.id)).result is Result.SUCCEEDED
        assert len(server.specifications) == 4


async def test_a_ready_from_before_a_create_is_not_good_for_another(tmp_path, server) -> None:
    """An answer that was under way when the build left: the server may be busy with that."""
    asked, answer = threading.Event(), threading.Event()

    def late(handler: Any) -> None:
        server.answers["GET /status"] = plain_server.saying({"status": "busy", "priority": 1})
        asked.set()
        answer.wait(20)
        handler.say({"status": "ready", "priority": 1})

    async with a_pool(tmp_path, server, nodes=0) as pool:
        server.answers["GET /status"] = late
        await asyncio.to_thread(asked.wait, 10)
        builds = [await pool.submit("wait") for _ in range(2)]
        await until(pool.service, builds[0].id, lambda b: b.history[-1].event == "place")
        plain = pool.scheduler.parts.dispatcher.pool.plain
        await roster_until(
            pool.scheduler, lambda _: any(one.status for one in plain.on(plain_id(server.url)))
        )
        answer.set()
        await pool.line(state="busy", used=1)
        assert len(server.specifications) == 1


@pytest.mark.parametrize("how", ["low", "busy"])
async def test_others_are_favoured_by_priority_and_readiness(tmp_path, server, how) -> None:
    """A negative priority is a priority."""
    if how == "low":
        server.priority = -5
    else:
        server.status = "busy"
    async with a_pool(tmp_path, server, count=2) as pool:
        line = await pool.line(state="ready" if how == "low" else "busy")
        assert line.stated_priority == server.priority
        build = await ended(pool.service, (await pool.submit("print x")).id)
        assert not pool.on_plain(build)
        assert server.specifications == []


async def test_what_it_lacks_is_on_the_roster(tmp_path, server) -> None:
    """For programs, on the page and on the command line."""
    async with a_pool(tmp_path, server) as pool:
        line = await pool.line(state="ready")
        assert (line.kind, line.lacks) == ("plain", LACKS)
        assert line.id == plain_id(server.url)
        table = node_table(pool.scheduler.parts.listing.roster())
        assert f"a plain node, without {', '.join(LACKS)}" in table
        assert table.count("plain node") == 1
        wanted = {"Accept": "text/html"}
        answer = await AsyncHTTPClient().fetch(pool.scheduler.url + "/", headers=wanted)
        page = answer.body.decode()
        assert page.count(f"without {', '.join(LACKS)}") == 1
        roster = (await AsyncHTTPClient().fetch(pool.scheduler.url + "/api/v1/nodes")).body
        assert b'"kind":"plain","lacks":["fencing"' in roster


async def test_what_its_api_cannot_express_goes_to_a_node_of_ours(tmp_path, server) -> None:
    """Until there is one it waits, and is told why."""
    async with a_pool(tmp_path, server, nodes=0) as pool, a_node(tmp_path) as node:
        build = await pool.submit("print x", output=NoOutput())
        explained = await pool.service.explain(LOCAL, build.id)
        words = "it is a plain node, whose API cannot express any output but an ISO image"
        assert [refusal.reason for refusal in explained.refusals] == [words]
        assert words in explained.reason
        pool.scheduler.parts.discovery.named((node.url,))
        build = await ended(pool.service, build.id)
        assert build.node is not None
        assert (build.node.id, build.result) == (node.id, Result.SUCCEEDED)
        assert server.specifications == []


async def test_the_same_url_is_a_plain_node_or_one_of_ours(tmp_path, server) -> None:
    """Settings that say both are refused."""
    async with a_scheduler(tmp_path) as scheduler:
        with pytest.raises(Invalid, match="is in nodes too") as refused:
            scheduler.parts.discovery.named_plain((server.url + "/",), (server.url,))
    assert refused.value.field == "plain_nodes"


# What does not


async def test_its_death_gives_the_build_to_another_node(tmp_path, server) -> None:
    """After the usual silence; when it is back, it is used again."""
    async with a_pool(tmp_path, server) as pool:
        build = await pool.submit("wait")
        build = await until(pool.service, build.id, lambda b: b.stage is Stage.RUNNING)
        assert pool.on_plain(build)
        server.stop()
        await pool.line("cannot be reached", state="lost")
        build = await ended(pool.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        assert not pool.on_plain(build)
        assert any(step.cause == "its node was lost" for step in build.history)
        server.start()
        await pool.line(state="ready", used=0)
        assert pool.on_plain(await ended(pool.service, (await pool.submit("print x")).id))


async def test_a_server_that_is_slow_to_answer_is_not_lost(tmp_path, server) -> None:
    """The documented one answers nobody while it copies an image: its builds stay where they are,
    beyond the time after which one that cannot be reached is lost.
    """
    copied = threading.Event()

    def copy(handler: Any) -> None:
        copied.wait(20)
        handler.say({"status": "ready", "priority": 10})

    async with a_pool(tmp_path, server) as pool:
        build = await pool.submit("wait")
        await until(pool.service, build.id, lambda b: b.stage is Stage.RUNNING)
        server.answers["GET /status"] = copy
        await pool.line("no answer for 4 s", state="silent")
        del server.answers["GET /status"]
        copied.set()
        server.go.set()
        build = await ended(pool.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)


@pytest.mark.parametrize("then", ["nothing", "another build", "another log"])
async def test_a_server_that_was_restarted_has_forgotten_the_build(tmp_path, server, then) -> None:
    """Also where its number is given to something else meanwhile."""
    async with a_pool(tmp_path, server) as pool:
        build = await pool.submit("print one", "wait")
        await until(pool.service, build.id, lambda b: b.log_size == 4)
        server.stop()
        server.status = "busy"  # or it would get the next attempt too
        if then == "another build":
            server.create({"commands": [{"name": "another", "command": "wait"}]})
        elif then == "another log":
            names = ("command 0", "command 1")
            server.create({"commands": [{"name": name, "command": "print no"} for name in names]})
        server.start()
        build = await ended(pool.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        causes = {
            "nothing": "does not know the build any more",
            "another build": "the command 'command 0' is not there",
            "another log": "it tells other things of the build than before",
        }
        assert any(causes[then] in step.cause for step in build.history)


async def test_a_number_that_is_given_again_is_the_newer_builds(tmp_path, server) -> None:
    """The older one is lost there, and begun anew."""
    async with a_pool(tmp_path, server) as pool:
        first = await pool.submit("wait")
        await until(pool.service, first.id, lambda b: b.stage is Stage.RUNNING)
        server.builds.clear()
        second = await pool.submit("wait")
        server.go.set()
        build = await ended(pool.service, first.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        build = await ended(pool.service, second.id)
        assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, True)


async def test_a_scheduler_that_starts_again_follows_the_build(tmp_path, server) -> None:
    """Same attempt, whole log, and the image is there also after one more start."""
    server_wide = {"plain_nodes": (server.url,), **PATIENT, "home": "again"}
    async with a_scheduler(tmp_path, **server_wide) as scheduler:
        pool = Pool(server, await ready(scheduler), [])
        build = await pool.submit("print one", "wait\nprint two")
        await until(pool.service, build.id, lambda b: b.log_size == 4)
    server.go.set()
    async with a_scheduler(tmp_path, **server_wide) as scheduler:
        build = await ended(scheduler.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
        await until_kept(scheduler, build)
    async with a_scheduler(tmp_path, **server_wide) as scheduler:
        pool = Pool(server, await ready(scheduler), [])
        assert await log_of(pool.service, build.id) == b"one\ntwo\n"
        assert await image_of(pool, build) == server.builds[1].image
        assert len(server.specifications) == 1
        await pool.line(used=0, builds=())
        await scheduler.parts.dispatcher.forget(build.id)
        assert scheduler.parts.dispatcher.pool.plain.on(plain_id(server.url)) == ()


async def test_a_server_that_settings_name_no_more_is_lost(tmp_path, server) -> None:
    """Its builds go elsewhere after the usual silence, and it is not asked any more."""
    async with a_node(tmp_path) as node:
        wanted = {**PATIENT, "home": "again"}
        plain = {"plain_nodes": (server.url,)}
        async with a_scheduler(tmp_path, **wanted, **plain) as scheduler:
            pool = Pool(server, await ready(scheduler), [])
            build = await pool.submit("wait")
            await until(pool.service, build.id, lambda b: b.stage is Stage.RUNNING)
        asked = len(server.requests)
        async with a_scheduler(tmp_path, node.url, **wanted) as scheduler:
            build = await ended(scheduler.service, build.id)
            assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        assert len(server.requests) == asked


async def test_it_serves_below_two_schedulers(tmp_path, server) -> None:
    """One that has nothing but plain nodes says so, and gets only what they can be asked for."""
    async with (
        a_scheduler(tmp_path, plain_nodes=(server.url,), **PATIENT) as inner,
        a_scheduler(tmp_path, inner.url) as outer,
    ):
        pool = Pool(server, outer, [])
        await ready(inner)
        await ready(outer)
        build = await ended(outer.service, (await pool.submit("print deep down")).id)
        assert build.result is Result.SUCCEEDED
        assert await log_of(outer.service, build.id) == b"deep down\n"
        assert await image_of(pool, build) == server.builds[1].image
        build = await pool.submit("print x", output=NoOutput())
        explained = await outer.service.explain(LOCAL, build.id)
        assert "cannot express" in explained.refusals[0].reason


async def test_a_label_of_all_nodes_of_ours_is_not_lost_by_a_plain_one(tmp_path, server) -> None:
    """To a scheduler above."""
    async with (
        a_node(tmp_path, labels=("kvm",)) as node,
        a_scheduler(tmp_path, node.url, plain_nodes=(server.url,), **PATIENT) as scheduler,
    ):
        await ready(scheduler, 2)
        report = await scheduler.service.status(LOCAL)
        assert (report.labels, report.kind) == (("kvm",), "")
        assert report.priority == server.priority


async def until_kept(scheduler: Program, build: Build) -> None:
    """Return when the end of its attempt is on record for good."""
    pool = scheduler.parts.dispatcher.pool
    async with asyncio.timeout(10):
        while pool.plain.get((build.id, build.attempt)).phase.value != "done":
            await pool.changed.wait(pool.changed.count, 0.2)


async def test_a_lost_answer_is_an_attempt_given_up(tmp_path, server) -> None:
    """It may run there unseen; it is not sent there again, and its word would count for nothing."""
    server.answers["POST /create"] = plain_server.heard
    async with a_pool(tmp_path, server, quarantine_after=1) as pool:
        build = await ended(pool.service, (await pool.submit("print x")).id)
        assert (build.result, build.attempt, pool.on_plain(build)) == (Result.SUCCEEDED, 2, False)
        assert any("the answer to its create was lost" in step.cause for step in build.history)
        assert len(server.specifications) == 1
        await pool.line("the answer to its create was lost")


async def test_an_intent_without_an_answer_is_lost_after_a_restart(tmp_path, server) -> None:
    """The scheduler ended between the create and its answer: the attempt is not sent again."""
    holding = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(handler: Any) -> None:
        loop.call_soon_threadsafe(holding.set)
        server.go.wait(20)

    server.answers["POST /create"] = hold
    given = {"plain_nodes": (server.url,), **PATIENT, "home": "again"}
    async with a_scheduler(tmp_path, **given) as scheduler:
        pool = Pool(server, await ready(scheduler), [])
        build = await pool.submit("print x")
        await asyncio.wait_for(holding.wait(), 10)
    server.go.set()
    del server.answers["POST /create"]
    async with a_scheduler(tmp_path, **given) as scheduler:
        build = await ended(scheduler.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        assert len(server.specifications) == 2


async def test_a_cancelled_build_runs_on_and_has_its_slot(tmp_path, server) -> None:
    """Its API has no cancel; our record is cancelled at once, the slot free when it has stopped."""
    async with a_pool(tmp_path, server, nodes=0, plain_slots=1) as pool:
        build = await pool.submit("print one", "wait")
        await until(pool.service, build.id, lambda b: b.log_size == 4)
        build = await pool.service.cancel(LOCAL, build.id)
        assert build.result is Result.CANCELLED
        assert await log_of(pool.service, build.id) == b"one\n"
        waits = await pool.submit("print x")
        line = await pool.line(used=1, slots=1)
        assert line.builds == ()
        assert (await pool.service.get(LOCAL, waits.id)).stage is Stage.QUEUED
        server.go.set()
        assert (await ended(pool.service, waits.id)).result is Result.SUCCEEDED
        assert (await pool.service.get(LOCAL, build.id)).result is Result.CANCELLED


async def test_a_build_that_is_not_wanted_has_its_slot_for_a_time(
    tmp_path, server, monkeypatch
) -> None:
    """One that never stops does not keep it for ever."""
    monkeypatch.setattr(watcher, "LINGER", 0.5)
    async with a_pool(tmp_path, server, nodes=0, plain_slots=1) as pool:
        build = await pool.submit("wait")
        await until(pool.service, build.id, lambda b: b.stage is Stage.RUNNING)
        await pool.service.cancel(LOCAL, build.id)
        await pool.line(used=1)
        await pool.line(used=0)


async def test_what_a_restarted_server_has_forgotten_is_out_of_reach(tmp_path, server) -> None:
    """Also where it has another build under that number: no other's log is shown."""
    async with a_pool(tmp_path, server) as pool:
        build = await ended(pool.service, (await pool.submit("print one")).id)
        server.stop()
        server.start()
        with pytest.raises(Unavailable, match="does not tell the log"):
            await log_of(pool.service, build.id)
        await pool.line(state="ready", reason="")
        other = await ended(pool.service, (await pool.submit("print two")).id)
        assert pool.on_plain(other)
        with pytest.raises(Unavailable, match="has forgotten the build"):
            await log_of(pool.service, build.id)
        with pytest.raises(Unavailable, match="has forgotten the build"):
            await pool.service.open_artifact(LOCAL, build.id, "CodersOS.iso")


# Nonsense


NONSENSE = {
    "a page": (plain_server.html, "makes no sense"),
    "an error": (plain_server.broken, "answers 500: Traceback"),
    "a body without end": (plain_server.endless, "is over 1048576 bytes"),
    "a redirect to itself": (plain_server.circle, "answers 302"),
    "nothing": (plain_server.silence, "does not answer"),
    "another word": (plain_server.saying({"status": "idle", "priority": 1}), "status"),
    "no priority": (plain_server.saying({"status": "ready"}), "priority is missing"),
    "a huge priority": (plain_server.saying({"status": "ready", "priority": 1 << 40}), "priority"),
    "a list": (plain_server.saying([]), "makes no sense"),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_a_status_that_makes_no_sense_is_stated(tmp_path, server, what, monkeypatch) -> None:
    """And hurts nobody: builds go elsewhere. When it makes sense again, it is used."""
    monkeypatch.setattr(exchange, "ANSWER_LIMIT", 1 << 20)
    answer, words = NONSENSE[what]
    async with a_pool(tmp_path, server, nodes=1) as pool:
        server.answers["GET /status"] = answer
        line = await pool.line(words)
        assert "the last poll failed" in line.reason or line.state in ("silent", "lost")
        build = await ended(pool.service, (await pool.submit("print x")).id)
        assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, False)
        del server.answers["GET /status"]
        await pool.line(state="ready", reason="")
        assert pool.on_plain(await ended(pool.service, (await pool.submit("print x")).id))


LOCATIONS = {
    "elsewhere": "http://127.0.0.1:9/x?status=/status/1",
    "without a status": "http://imagepool.invalid/built",
    "to a status elsewhere": "http://imagepool.invalid/built?status=http://127.0.0.1:{trap}/x",
    "to the status of another protocol": "http://imagepool.invalid/built?status=file:///etc/passwd",
    "to no URL at all": "http://[",
}


@pytest.mark.parametrize("where", LOCATIONS)
async def test_a_redirect_that_makes_no_sense_is_stated(tmp_path, server, where) -> None:
    """Nothing is fetched there; the attempt is given up, as its answer might have been lost."""
    with PlainServer() as trap:
        location = LOCATIONS[where].format(trap=trap.port)
        server.answers["POST /create"] = plain_server.leading(location)
        async with a_pool(tmp_path, server) as pool:
            build = await pool.submit("print x")
            await pool.line("a create was not answered as documented")
            build = await ended(pool.service, build.id)
            assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, False)
        assert trap.requests == []


@pytest.mark.parametrize("code", [400, 403, 404, 500, 503])
async def test_a_create_that_is_refused_goes_elsewhere(tmp_path, server, code) -> None:
    """With the server's words. Only an error of its own uses up an attempt."""
    server.answers["POST /create"] = lambda handler: handler.say({"error": "no such image"}, code)
    async with a_pool(tmp_path, server) as pool:
        build = await ended(pool.service, (await pool.submit("print x")).id)
        assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, False)
        words = f'answers the create with {code}: {{"error": "no such image"}}'
        assert any(words in step.cause for step in build.history)
        assert build.attempt == (1 if code != 500 else build.attempt)
        await pool.line(words)
        assert not pool.scheduler.parts.dispatcher.pool.plain.on(plain_id(server.url))


async def test_a_server_that_knows_no_urls_is_not_asked_twice(tmp_path, server) -> None:
    """The original answers a command by URL with an error of its own; that uses up no attempt."""
    server.answers["POST /create"] = plain_server.broken
    recipe = Recipe((Command("fetch", url="http://127.0.0.1:9/x"),), output=IsoOutput())
    async with a_pool(tmp_path, server) as pool:
        build = await pool.service.submit(LOCAL, BuildRequest(recipe))
        build = await ended(pool.service, build.id)
        assert (build.attempt, pool.on_plain(build)) == (1, False)
        assert len(server.specifications) == 1


@pytest.mark.parametrize("what", ["a page", "an error", "a redirect to itself", "a list"])
async def test_a_build_of_which_nothing_sensible_is_told_is_lost(tmp_path, server, what) -> None:
    """After a time; its server is not blamed for more than that."""
    server.answers["GET /status/1"], words = NONSENSE[what]
    async with a_pool(tmp_path, server, nodes=1, lost_after=0.5) as pool:
        build = await pool.submit("print x")
        await pool.line(words)
        build = await ended(pool.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
        assert any(words in step.cause for step in build.history)


STRANGE = {
    "fewer commands": {"status": "running", "commands": []},
    "no output": {
        "status": "running",
        "commands": [{"name": "command 0", "status": "stopped", "exitcode": 0}],
    },
    "an exit code in words": {
        "status": "stopped",
        "commands": [{"name": "command 0", "status": "stopped", "exitcode": "0", "output": ""}],
    },
}


@pytest.mark.parametrize("what", STRANGE)
async def test_a_build_that_is_not_told_as_documented_is_lost(tmp_path, server, what) -> None:
    """As one of which nothing is told."""
    server.answers["GET /status/1"] = plain_server.saying(STRANGE[what])
    async with a_pool(tmp_path, server, nodes=1, lost_after=0.5) as pool:
        build = await pool.submit("print x")
        await pool.line("command")
        build = await ended(pool.service, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{trap}/x.iso", "//127.0.0.1:{trap}/x.iso", "https://{own}/x.iso"]
)
async def test_an_image_elsewhere_is_never_fetched(tmp_path, server, url) -> None:
    """The attempt is lost, and the roster says why."""
    with PlainServer() as trap:
        server.download_url = url.format(trap=trap.port, own=f"127.0.0.1:{server.port}")
        async with a_pool(tmp_path, server) as pool:
            build = await pool.submit("print x")
            await pool.line("nothing is fetched elsewhere")
            build = await ended(pool.service, build.id)
            assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, False)
        assert trap.requests == []


async def test_absolute_urls_of_its_own_are_followed(tmp_path, server) -> None:
    """As a server may state them that knows where it is."""
    server.status_url = server.url + "/status/{id}"
    server.download_url = server.url + "/download/{id}/My%20image.iso"
    async with a_pool(tmp_path, server) as pool:
        build = await ended(pool.service, (await pool.submit("print x")).id)
        assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, True)
        assert [artifact.name for artifact in build.artifacts] == ["image.iso"]
        assert await image_of(pool, build) == server.builds[1].image


@pytest.mark.parametrize("how", ["cut", "gone", "changed"])
async def test_an_image_that_does_not_come_is_never_a_short_file(tmp_path, server, how) -> None:
    """While it is counted: the attempt is lost. Later: the download breaks off, or is refused."""
    path = "GET /download/1/CodersOS.iso"

    def cut(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "3000000")
        handler.end_headers()
        handler.wfile.write(b"x" * 1000)

    if how == "cut":
        server.answers[path] = cut
    elif how == "gone":
        server.answers[path] = plain_server.broken
    async with a_pool(tmp_path, server, nodes=1, lost_after=0.5, quarantine_after=1) as pool:
        build = await ended(pool.service, (await pool.submit("print x")).id)
        if how != "changed":
            assert (build.result, pool.on_plain(build)) == (Result.SUCCEEDED, False)
            assert any("its image does not come" in step.cause for step in build.history)
            return
        assert pool.on_plain(build)
        server.builds[1].image += b"more"
        with pytest.raises(Exception, match=r"HTTP 50[23]"):
            await image_of(pool, build)

"""Connections go to addresses that were looked at, and to no others: real servers on loopback, of
which some may not be called.
"""

import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from msgspec import Struct

from node.inputs.fetch import FetchFailed, fetch, fetch_file
from protocol.builds.callout import Callout
from protocol.errors import Denied, Unavailable, Unreachable
from protocol.model.messages import Registration
from protocol.model.networks import reach
from protocol.model.recipe import Command, FetchedContent, InputFile, NoOutput, Recipe
from protocol.model.request import BuildRequest, Guidance, Notice
from protocol.model.urls import WebUrl, follow
from protocol.ports.service import LOCAL
from protocol.program.beacon import Beacon
from protocol.remote.client import HttpService
from protocol.remote.guard import Guard, own_addresses
from tests.programs import a_client, a_node, a_scheduler, ended, log_of, ready, roster_until, until

pytestmark = pytest.mark.gen_test(timeout=60)

ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
OPEN = reach((f"{ALLOWED}/32",), "fetch_networks")


class Server(Struct):
    """One on an address of loopback, and what it was asked."""

    port: int
    asked: list[web.Request]


Answer = Callable[[web.Request], web.StreamResponse]


@asynccontextmanager
async def a_server(address: str, answer: Answer, port: int = 0) -> AsyncIterator[Server]:
    """One that answers everything so."""
    server = Server(0, [])

    async def serve(request: web.Request) -> web.StreamResponse:
        server.asked.append(request)
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


def to(location: str, status: int = 302) -> Answer:
    """Redirects there."""
    headers = {"Location": location, "Set-Cookie": "session=geheim"}
    return lambda request: web.Response(status=status, headers=headers)


def text(words: str) -> Answer:
    """Says so."""
    return lambda request: web.Response(text=words)


async def fetched(url: str) -> bytes:
    """What a build gets of it."""
    return await fetch(url, allowed=OPEN, limit=1000, seconds=10)


class Names:
    """A name service that answers each look-up with the next of these."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)

    def look_up(self, host: str, port: int, family: int) -> list[tuple[int, int, str]]:
        """Called by a guard."""
        found = self.answers.pop(0)
        return [(socket.AF_INET, socket.IPPROTO_TCP, address) for address in found]


async def test_who_answers_the_next_look_up_otherwise_gets_nothing() -> None:
    """A name is looked up once for a connection, and the connection made to what was found."""
    names = Names((ALLOWED,), (FORBIDDEN,))
    async with (
        a_server(ALLOWED, text("right")) as right,
        a_server(FORBIDDEN, text("wrong"), right.port) as wrong,
    ):
        guard = Guard(OPEN, look_up=names.look_up)
        callout = Callout(seconds=5, limit=1, guard=guard)
        url = f"http://rebound.example:{right.port}/"
        assert await callout.get(url, 100) == (200, b"right")
        assert names.answers == [(FORBIDDEN,)]
        assert right.asked[0].headers["Host"] == f"rebound.example:{right.port}"
        await callout.close()
        rebound = Callout(seconds=5, limit=1, guard=Guard(OPEN, look_up=names.look_up))
        with pytest.raises(Unavailable, match="loopback, which the setting fetch_networks"):
            await rebound.get(url, 100)
        assert wrong.asked == []
        await rebound.close()


async def test_of_a_name_s_addresses_the_allowed_ones_are_called() -> None:
    """The others are passed over."""
    names = Names((FORBIDDEN, ALLOWED))
    async with (
        a_server(ALLOWED, text("right")) as right,
        a_server(FORBIDDEN, text("wrong"), right.port) as wrong,
    ):
        callout = Callout(seconds=5, limit=1, guard=Guard(OPEN, look_up=names.look_up))
        assert await callout.get(f"http://two.example:{right.port}/", 100) == (200, b"right")
        assert wrong.asked == []
        await callout.close()


async def test_an_address_is_looked_at_again_when_its_socket_is_made() -> None:
    """Whatever led there: here nothing had looked at the URL before."""
    async with a_server(FORBIDDEN, text("wrong")) as wrong:
        async with Guard(OPEN) as guard:
            client = HttpService(f"http://{FORBIDDEN}:{wrong.port}", guard=guard)
            with pytest.raises(Unreachable, match="its address is loopback"):
                await client.status(LOCAL)
            await client.close()
        assert wrong.asked == []


async def test_a_notice_is_not_sent_to_a_forbidden_address() -> None:
    """Denied, before anything is opened."""
    async with a_server(FORBIDDEN, text("wrong")) as wrong:
        callout = Callout(seconds=5, limit=1, guard=Guard(OPEN))
        with pytest.raises(Denied):
            await callout.post(f"http://{FORBIDDEN}:{wrong.port}/", b"{}", {})
        assert wrong.asked == []
        await callout.close()


def test_the_addresses_of_this_machine() -> None:
    """As the system lists them now, without zones."""
    assert ip_address("127.0.0.1") in own_addresses()
    assert not any(address.version == 6 and address.scope_id for address in own_addresses())


# Fetching


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_without_what_the_first_server_said(status: int) -> None:
    """No cookie of the first, no header that says who asks or where from."""
    async with (
        a_server(ALLOWED, text("there")) as there,
        a_server(ALLOWED, to(f"http://{ALLOWED}:{there.port}/x", status)) as first,
    ):
        assert await fetched(f"http://{ALLOWED}:{first.port}/") == b"there"
        sent = there.asked[0].headers
        assert not {"Cookie", "Authorization", "Referer", "Origin"} & set(sent)
        assert there.asked[0].method == "GET"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://{}:{}/", "not called: its address is loopback"),
        ("//{}:{}/", "not called: its address is loopback"),
        ("http://[::ffff:{}]:{}/", "not called: its address is loopback"),
        ("http://name.example@{}:{}/", "Location is"),
    ],
)
async def test_a_redirect_to_a_forbidden_address_is_not_followed(location: str, words: str) -> None:
    """However it is written; nobody there hears of it."""
    async with a_server(FORBIDDEN, text("wrong")) as wrong:
        there = location.format(FORBIDDEN, wrong.port)
        async with a_server(ALLOWED, to(there)) as first:
            with pytest.raises(FetchFailed, match=words):
                await fetched(f"http://{ALLOWED}:{first.port}/")
            assert len(first.asked) == 1
        assert wrong.asked == []


def named(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """All that the system's name service knows from now on."""

    def looked_up(host: str, port: int, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        address = (names.get(host, host), port)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

    monkeypatch.setattr("socket.getaddrinfo", looked_up)


async def test_a_name_that_leads_to_a_forbidden_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given or redirected to, nothing is fetched there."""
    named(monkeypatch, good=ALLOWED, bad=FORBIDDEN)
    async with (
        a_server(FORBIDDEN, text("wrong")) as wrong,
        a_server(ALLOWED, to(f"http://bad:{wrong.port}/")) as first,
    ):
        for url in (f"http://good:{first.port}/", f"http://bad:{wrong.port}/"):
            with pytest.raises(FetchFailed, match="its address is loopback"):
                await fetched(url)
        assert (len(first.asked), wrong.asked) == (1, [])


async def test_no_cookie_is_kept_between_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the server that set it."""
    named(monkeypatch, good=ALLOWED)
    async with a_server(ALLOWED, to("/again")) as server:
        with pytest.raises(FetchFailed):
            await fetched(f"http://good:{server.port}/")
        assert len(server.asked) == 6
        assert not any("Cookie" in request.headers for request in server.asked)


async def test_a_forbidden_address_is_refused_in_plain_words() -> None:
    """Which one, and by which setting."""
    words = "http://127.0.0.2 is not called: its address is loopback, which the setting fetch_net"
    with pytest.raises(FetchFailed, match=words):
        await fetched(f"http://{FORBIDDEN}/")


async def test_redirects_come_to_an_end() -> None:
    """After five, also where each is allowed."""
    async with a_server(ALLOWED, to("/again")) as server:
        with pytest.raises(FetchFailed, match="more than 5 redirects"):
            await fetched(f"http://{ALLOWED}:{server.port}/")
        assert len(server.asked) == 6


async def test_redirects_together_take_no_longer_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each takes of what the ones before have left."""
    clock = SimpleNamespace(monotonic=iter((10.0, 10.0, 11.0, 12.0)).__next__)
    monkeypatch.setattr("node.inputs.fetch.time", clock)
    async with a_server(ALLOWED, to("/again")) as server:
        with pytest.raises(FetchFailed, match="did not come within 2 s"):
            await fetch(f"http://{ALLOWED}:{server.port}/", allowed=OPEN, limit=1000, seconds=2)
        assert len(server.asked) == 2


async def test_a_redirect_that_leads_nowhere() -> None:
    """Without a Location there is nothing to follow."""
    async with a_server(ALLOWED, lambda request: web.Response(status=302)) as server:
        with pytest.raises(FetchFailed, match="Location"):
            await fetched(f"http://{ALLOWED}:{server.port}/")


async def test_a_file_comes_by_a_redirect(tmp_path: Path) -> None:
    """As a command's text does."""
    said: list[str] = []
    async with (
        a_server(ALLOWED, text("bytes")) as there,
        a_server(ALLOWED, to(f"http://{ALLOWED}:{there.port}/x")) as first,
    ):
        await fetch_file(
            f"http://{ALLOWED}:{first.port}/",
            tmp_path / "file",
            allowed=OPEN,
            limit=1000,
            seconds=10,
            sha256=None,
            say=said.append,
        )
    assert (tmp_path / "file").read_bytes() == b"bytes"
    assert said[-1] == "fetched 5 bytes"


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(b"bytes").hexdigest()])
async def test_https_stays_https_unless_the_digest_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str | None
) -> None:
    """A command's text has none. Rules are asked with that; what they say is tested with them."""
    allowed: list[bool] = []

    def asked(url: WebUrl, location: str, *, plain: bool) -> WebUrl:
        allowed.append(plain)
        return follow(url, location, plain=plain)

    monkeypatch.setattr("node.inputs.fetch.follow", asked)
    async with (
        a_server(ALLOWED, text("bytes")) as there,
        a_server(ALLOWED, to(f"http://{ALLOWED}:{there.port}/x")) as first,
    ):
        url, limits = f"http://{ALLOWED}:{first.port}/", {"limit": 1000, "seconds": 10}
        target = tmp_path / "file"
        await fetch_file(url, target, allowed=OPEN, sha256=sha256, say=lambda _: None, **limits)
        await fetched(url)
    assert allowed == [sha256 is not None, False]


async def test_a_build_fetches_from_where_the_operator_allows_it(tmp_path: Path) -> None:
    """Elsewhere nothing is asked, and the log says which setting it is."""
    async with (
        a_server(ALLOWED, text("print fetched")) as server,
        a_node(tmp_path, fetch_networks=("public", "private")) as node,
    ):
        command = Command("by url", url=f"http://localhost:{server.port}/x")
        recipe = Recipe((command,), output=NoOutput())
        build = await node.service.submit(LOCAL, BuildRequest(recipe, Guidance()))
        await ended(node.service, build.id)
        assert b"fetch_networks" in await log_of(node.service, build.id)
        assert server.asked == []


async def test_an_input_is_fetched_from_where_the_operator_allows_it(tmp_path: Path) -> None:
    """By a name too, which nobody looked up before; the build fails, saying why."""
    async with (
        a_server(ALLOWED, text("bytes")) as server,
        a_node(tmp_path, fetch_networks=("public", "private")) as node,
    ):
        request = leading_to(f"http://localhost:{server.port}/x", "input")
        build = await node.service.submit(LOCAL, request)
        build = await ended(node.service, build.id)
        assert "fetch_networks" in build.reason
        assert server.asked == []


async def test_a_notice_goes_where_the_operator_allows_it(tmp_path: Path) -> None:
    """By a name too; it is given up as any that cannot be delivered, and the build says why."""
    settings = {"notice_networks": ("public", "private"), "notice_tries": 1}
    async with (
        a_server(ALLOWED, text("taken")) as server,
        a_scheduler(tmp_path, **settings) as scheduler,
    ):
        request = leading_to(f"http://localhost:{server.port}/x", "notice")
        build = await scheduler.service.submit(LOCAL, request)
        build = await until(
            scheduler.service,
            build.id,
            lambda build: any(record.gave_up for record in build.notices),
        )
        assert "notice_networks" in build.notices[0].gave_up
        assert server.asked == []


HERE_AND_THERE = [
    ("notice", "guidance.notices[0].url", "notice_networks"),
    ("cancel_url", "guidance.cancel_url", "notice_networks"),
    ("input", "recipe.inputs[0].content.url", "fetch_networks"),
]


def leading_to(url: str, what: str) -> BuildRequest:
    """A build with this URL there."""
    files = (InputFile("x", FetchedContent(url)),) if what == "input" else ()
    recipe = Recipe((Command("x", text="print x"),), inputs=files, output=NoOutput())
    notices = (Notice(url=url),) if what == "notice" else ()
    cancel_url = url if what == "cancel_url" else None
    return BuildRequest(recipe, Guidance(notices=notices, cancel_url=cancel_url))


@pytest.mark.parametrize(("what", "field", "setting"), HERE_AND_THERE)
async def test_a_build_with_a_forbidden_address_is_not_taken(
    tmp_path: Path, what: str, field: str, setting: str
) -> None:
    """By whoever would call it; it is told the field and the setting. A preview says the same."""
    usual = ("public", "private")
    async with (
        a_node(tmp_path, fetch_networks=usual, notice_networks=usual) as node,
        a_scheduler(tmp_path, notice_networks=usual) as scheduler,
    ):
        request = leading_to("http://127.0.0.1:1/", what)
        calling = (node,) if what == "input" else (node, scheduler)
        for program in calling:
            for asking in (program.service.submit, program.service.preview):
                with pytest.raises(Denied, match=setting) as refused:
                    await asking(LOCAL, request)
                assert refused.value.field == field
                assert setting in refused.value.expected
        if what == "input":  # for a node to say
            await scheduler.service.submit(LOCAL, request)
        private = leading_to("http://10.1.2.3/", what)
        await node.service.preview(LOCAL, private)


# The redirect of a create


@pytest.mark.parametrize(
    ("redirect", "status"),
    [
        ("https://ci.example.org/x", 303),
        ("http://ci.example.org/x", 403),
        ("https://evil.example/", 403),
        ("https://user@ci.example.org/", 400),
        ("https://ci.example.org/\r\nX: y", 400),
        ("javascript:alert(1)", 400),
    ],
)
@pytest.mark.parametrize("path", ["/create", "/test/create"])
async def test_a_create_redirects_where_the_operator_allows_it(
    tmp_path: Path, path: str, redirect: str, status: int
) -> None:
    """Else nothing is begun, and the error names the field."""
    asked = {"redirect": redirect, "commands": []}
    async with (
        a_node(tmp_path, redirects=("https://*.example.org",)) as node,
        aiohttp.ClientSession() as session,
        session.post(node.url + path, json=asked, allow_redirects=False) as answer,
    ):
        assert answer.status == status
        if status == 303:
            assert answer.headers["Location"].startswith(f"{redirect}?status=")
        else:
            assert (await answer.json())["field"] == "redirect"
            assert "Location" not in answer.headers
            assert not tuple(node.parts.ledger.board)


# Nodes


NO_NODE = "its address is loopback, which the setting node_networks"


async def test_a_node_outside_the_node_networks_is_not_called(tmp_path: Path) -> None:
    """Nor by a name that leads there; whether it registered or was found, the roster says why."""
    async with (
        a_server(ALLOWED, text("a node")) as server,
        a_scheduler(tmp_path, unproven="none", pool_listen=f"{ALLOWED}:0") as scheduler,
    ):
        record = Beacon(
            id="a" * 32,
            boot="b",
            pool="default",
            role="node",
            port=server.port,
            addresses=(ALLOWED,),
            pool_port=server.port,
            pool_id=scheduler.parts.membered.own.pool,
        )
        scheduler.parts.discovery.found(record)
        scheduler.parts.discovery.register(Registration(f"https://localhost:{server.port}"))
        await roster_until(
            scheduler,
            lambda roster: [NO_NODE in entry.reason for entry in roster.nodes] == [True, True],
        )
        assert server.asked == []


async def test_a_node_cannot_register_an_address_outside_the_node_networks(
    tmp_path: Path,
) -> None:
    """It is told so, and the roster does not have it; inside of them it may."""
    networks = {"unproven": "none", "node_networks": ("private", "127.0.0.3/32")}
    async with a_scheduler(tmp_path, **networks) as scheduler, a_client(scheduler.url) as client:
        for url in ("http://127.0.0.1:1", "http://169.254.169.254", "http://93.184.216.34:8090"):
            with pytest.raises(Denied, match="node_networks") as refused:
                await client.register(Registration(url))
            assert refused.value.field == "url"
        assert not scheduler.parts.listing.roster().nodes
        await client.register(Registration("http://127.0.0.3:1"))
        assert len(scheduler.parts.listing.roster().nodes) == 1


async def test_nodes_on_loopback_where_programs_need_no_proof(tmp_path: Path) -> None:
    """As long as `unproven` has it so."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path) as scheduler:
        scheduler.parts.discovery.register(Registration(node.url))
        await ready(scheduler)

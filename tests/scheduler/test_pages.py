"""The scheduler's page: figures in words, what is shown and how, who gets it and who gets data."""

import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import Application

from protocol import wire
from protocol.api.image_creator.specification import Specification, to_request
from protocol.api.mount import application
from protocol.api.route import ApiSettings, Context
from protocol.errors import Denied, Unavailable
from protocol.model.build import (
    Artifact,
    Build,
    CommandStatus,
    NodeReference,
    Result,
    Stage,
    new_build,
)
from protocol.model.messages import BuildPage, BuildQuery, Registration, Roster, RosterEntry
from protocol.model.recipe import Command, Recipe
from protocol.model.request import BuildRequest, Guidance
from protocol.ports.service import BuildService, Caller
from scheduler.roster import nodes_api
from scheduler.web import pages, words
from scheduler.web.view import page_view
from tests.callers import Locals

NOW = 1_763_690_413.0
HOSTILE = "</td><script>alert('x')</script>\"&"


def node(name: str = "forge", **fields: object) -> RosterEntry:
    """A ready node."""
    entry = RosterEntry(
        url=f"http://{name}.test:8090",
        found=("mdns",),
        state="ready",
        reason="",
        id="0123456789abcdef",
        name=name,
        role="node",
        version="0.1.0",
        architecture="x86_64",
        stated_priority=10,
        priority=10,
        slots=4,
        last_seen=0.4,
        latency=0.003,
    )
    return replace(entry, **fields)


def build(*names: str, note: str = "", **fields: object) -> Build:
    """A build that was asked for a minute ago."""
    commands = tuple(Command(name, text="true") for name in names or ("build iso",))
    request = BuildRequest(Recipe(commands=commands), Guidance(note=note))
    fresh = new_build("0" * 24 + "cafe0001", request, origin="o", owner="a", now=NOW - 60)
    return replace(fresh, **fields)


def html(*nodes: RosterEntry, builds: tuple[Build, ...] = (), base: str = "") -> str:
    """The page with these."""
    roster = Roster("lab", nodes, waiting=2, running=1)
    view = page_view(roster, builds, now=NOW, origin="http://pool.test:8080", base=base)
    return pages.render(view).decode()


class Text(HTMLParser):
    """What a reader sees of a page, and the places its links lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.elements: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each element."""
        self.elements.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href" and tag == "a"]

    def handle_data(self, data: str) -> None:
        """Called for each piece of text."""
        self.words += data.split()

    def __str__(self) -> str:
        return " ".join(self.words)


def seen(*nodes: RosterEntry, builds: tuple[Build, ...] = ()) -> str:
    """The page's text."""
    return str(Text(html(*nodes, builds=builds)))


# Figures in words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "9 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (187, "3 min 7 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (7620, "2 h 7 min"),
        (4 * 86400 + 3 * 3600, "4 d 3 h"),
        (float("nan"), "0 s"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, said: str) -> None:
    """Neither says more than it means, nor rounds up into what has not come."""
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "just now"), (0.9, "just now"), (12.8, "12 s ago"), (185, "3 min ago"), (1e5, "1 d ago")],
)
def test_an_age_has_one_unit(seconds: float, said: str) -> None:
    """From afar the second says nothing."""
    assert words.ago(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "<1 ms"), (0.0032, "3.2 ms"), (0.045, "45 ms"), (0.9999, "1.0 s"), (12, "12 s")],
)
def test_a_latency_is_in_milliseconds_while_it_is_short(seconds: float, said: str) -> None:
    """As far as figures go that mean something."""
    assert words.latency(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 << 10, "10 KiB"),
        (350 << 20, "350 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (2 << 40, "2.0 TiB"),
    ],
)
def test_a_size_has_two_figures_or_more(count: int, said: str) -> None:
    """In binary units, and never 1024 of one."""
    assert words.size(count) == said


@given(st.floats(), st.integers())
def test_no_figure_is_too_odd_to_be_said(figure: float, count: int) -> None:
    """Nodes state them, and a node may state anything: the page is shown all the same."""
    for said in (words.duration(figure), words.ago(figure), words.latency(figure)):
        assert said
    assert words.size(count)
    assert words.moment(figure) == "" or words.moment(figure).endswith(" UTC")


def test_short_ids_of_builds_differ_within_a_minute() -> None:
    """Their heads are the time; their tails are drawn by lot."""
    assert words.short_build("019aa3b5c1d2" + "0" * 12 + "1122aabb") == "1122aabb"
    assert words.short_node("0123456789abcdef") == "01234567"


# The roster


def test_a_node_is_shown_with_all_that_is_known_of_it() -> None:
    """One line tells an admin where it is, how it does, and what it has."""
    said = seen(
        node(
            state="busy",
            reason="no free slot",
            found=("mdns", "settings"),
            used=3,
            builds=("0" * 24 + "cafe0001",),
            labels=("kvm", "ssd"),
        )
    )
    for what in (
        *("forge", "01234567", "http://forge.test:8090", "mdns, settings", "busy", "no free slot"),
        *("3/4", "cafe0001", "kvm", "ssd", "x86_64", "0.1.0", "just now", "3.0 ms"),
    ):
        assert what in said


def test_the_highest_effective_priority_comes_first_then_the_name() -> None:
    """As placement goes through them; who has no priority comes last."""
    nodes = [
        node("delta", priority=5),
        node("Beta", priority=5),
        node("alpha", priority=-1),
        node("omega", stated_priority=0, priority=90),
        node("gone", stated_priority=None, priority=None),
    ]
    said = seen(*nodes)
    found = [said.index(name) for name in ("omega", "Beta", "delta", "alpha", "gone")]
    assert found == sorted(found)


def test_a_priority_that_was_overridden_shows_both() -> None:
    """The effective one, and what the node states where that is another."""
    assert "50 stated 10" in seen(node(stated_priority=10, priority=50))
    assert "stated 10" not in seen(node(stated_priority=10, priority=10))


def test_a_node_that_never_answered_has_a_place_of_its_own() -> None:
    """With its URL, how it was found, and its error; it counts in the totals."""
    lost = RosterEntry("http://10.0.0.7:8090", ("settings",), "unanswered", "no route to host")
    said = seen(node(), lost)
    nodes, unanswered = said.split("Nodes that never answered")
    assert "http://10.0.0.7:8090 settings no answer no route to host" in unanswered
    assert "10.0.0.7" not in nodes
    assert "1 unanswered" in nodes
    assert "Nodes that never answered" not in seen(node())


def test_states_are_counted() -> None:
    """The ready ones always, the others where there are some; and slots of those that can build."""
    nodes = (node("a", used=1), node("b", state="busy", used=4), node("c", state="silent", used=4))
    said = seen(*nodes)
    assert "1 ready 1 busy 1 silent Slots 5/8 used Builds 1 running 2 waiting" in said
    assert "0 ready Slots none" in seen()


def test_a_state_nobody_foresaw_is_shown_too() -> None:
    """By its name."""
    assert "1 rusty" in seen(node(state="rusty"))


def test_many_labels_fold() -> None:
    """The first few show; the rest opens."""
    labels = tuple(f"label-{number}" for number in range(9))
    assert "label-3 5 more label-4" in seen(node(labels=labels))


@pytest.mark.parametrize(
    ("used", "slots", "pieces"),
    [(0, 0, 0), (1, 4, 4), (9, 4, 4), (-1, 2, 2), (40, 1000, 2), (1, -5, 0)],
)
def test_slots_are_drawn_as_far_as_they_make_sense(used: int, slots: int, pieces: int) -> None:
    """One by one while they are few; whatever a node states, the bar stays within its bounds."""
    bar = (
        page_view(Roster("", (node(used=used, slots=slots),), 0, 0), (), now=0, origin="")
        .nodes[0]
        .bar
    )
    assert len(bar) == pieces
    assert all(piece.x >= 0 and piece.x + piece.width <= 100.1 for piece in bar)


# Builds


def test_a_build_that_waits_says_why_and_how_long() -> None:
    """That is what people come to the page for."""
    said = seen(builds=(build(reason="every node is busy: forge has no free slot"),))
    assert "build iso cafe0001 waiting every node is busy: forge has no free slot" in said
    assert "1 min ago waiting 1 min" in said


def test_a_long_reason_folds_and_is_there_whole() -> None:
    """With a hundred nodes there are a hundred refusals."""
    reason = "; ".join(f"node {number} is busy" for number in range(50))
    said = seen(builds=(build(reason=reason),))
    assert "…" in said
    assert reason in said


def test_a_build_that_runs_says_at_which_command() -> None:
    """Steps that the node added are not counted; its log is followed."""
    commands = (
        CommandStatus("find the image", start=0, end=9, exit_code=0, added=True),
        CommandStatus("update", start=9, end=20, exit_code=0),
        CommandStatus("install", start=20),
    )
    running = build(
        stage=Stage.RUNNING,
        commands=commands,
        attempt=2,
        node=NodeReference("f00", "forge"),
        started=NOW - 45,
        log_size=4096,
    )
    page = Text(html(builds=(running,)))
    assert "running command 2 of 2: install forge attempt 2 1 min ago running 45 s" in str(page)
    assert "log 4.0 KiB" in str(page)
    assert f"/api/v1/builds/{running.id}/log?follow=1" in page.links
    assert f"/status/{running.id}" in page.links


def test_a_build_that_ended_shows_its_result_and_downloads() -> None:
    """The first artifact where the documents have it, the others by the native API."""
    ended = build(
        stage=Stage.STOPPED,
        result=Result.SUCCEEDED,
        started=NOW - 50,
        stopped=NOW - 10,
        artifacts=(Artifact("live.iso", 3 << 30, "ab"), Artifact("live.log", 12, "cd")),
    )
    page = Text(html(builds=(ended,)))
    assert "succeeded 1 min ago took 40 s live.iso 3.0 GiB live.log 12 B log" in str(page)
    assert f"/download/{ended.id}/live.iso" in page.links
    assert f"/api/v1/builds/{ended.id}/artifacts/live.log" in page.links
    assert f"/api/v1/builds/{ended.id}/log" in page.links


def test_a_build_that_never_ran_has_nothing_to_fetch() -> None:
    """No log, no download; its status tells the rest."""
    ended = build(stage=Stage.STOPPED, result=Result.TIMED_OUT, reason="nobody took it")
    page = Text(html(builds=(ended,)))
    assert "timed out nobody took it 1 min ago never ran status" in str(page)
    assert not [link for link in page.links if link.endswith("/log") or "/download" in link]


def test_a_build_goes_by_its_note_or_its_first_commands() -> None:
    """Whichever says more to people."""
    assert "nightly for the lab" in seen(builds=(build("a", "b", note=" nightly for\nthe lab "),))
    assert "a, b, c + 2 more" in seen(builds=(build("a", "b", "c", "d", "e"),))


def test_a_build_shows_its_labels() -> None:
    """Those that its client gave it; many fold."""
    request = BuildRequest(guidance=Guidance(labels={"team": "web", "nightly": ""}))
    assert "cafe0001 nightly team=web" in seen(builds=(build(request=request),))
    many = BuildRequest(guidance=Guidance(labels={f"l{i}": HOSTILE for i in range(9)}))
    page = Text(html(builds=(build(request=many),)))
    assert "5 more" in str(page)
    assert page.elements.count("script") == 1


# Pages for strangers


def test_names_are_never_taken_for_markup() -> None:
    """Whoever names a node, a label, a command or a file writes text, wherever it is shown."""
    plain = Text(html(node(), builds=(build(reason="r"),))).elements
    strange = node(
        HOSTILE,
        url="http://forge.test:8090/" + HOSTILE,
        reason=HOSTILE,
        labels=(HOSTILE,),
        version=HOSTILE,
        architecture=HOSTILE,
        id=HOSTILE,
        found=(HOSTILE,),
    )
    page = html(strange, builds=(build(HOSTILE, reason=HOSTILE, node=NodeReference("x", HOSTILE)),))
    assert "<script>" not in page
    assert Text(page).elements.count("script") == plain.count("script") == 1
    assert "alert('x')" in str(Text(page))


def test_an_address_that_browsers_must_not_follow_is_no_link() -> None:
    """A node may register under any URL."""
    page = Text(html(node(url="javascript:alert(1)")))
    assert "javascript:alert(1)" in str(page)
    assert not [link for link in page.links if link.startswith("javascript")]


def test_an_empty_pool_says_how_to_begin() -> None:
    """With lines that work as they stand, host and port included."""
    said = seen()
    assert "No nodes yet." in said
    assert "imagepool node --scheduler http://pool.test:8080" in said
    line = said[said.index("curl http://pool.test:8080/create") : said.index("The same as data")]
    body = shlex.split(line.replace("\\ ", " "))[-1]
    request = to_request(wire.decode(body.encode(), Specification), ("*",))
    assert request.recipe.commands[0].text == "#!/bin/bash\n/toiso/command.sh -q\n"
    assert json.loads(body)["redirect"] == "http://pool.test:8080/"


def test_a_pool_without_answers_says_so() -> None:
    """There are nodes then, but none to build on."""
    lost = RosterEntry("http://10.0.0.7:8090", ("settings",), "unanswered", "refused")
    assert "No node has answered yet." in seen(lost)


def test_links_begin_where_a_proxy_puts_the_pool() -> None:
    """`public_url` may have a path."""
    page = html(node(builds=("abc",)), builds=(build(),), base="/pool")
    places = re.findall(r'(?:href|src)="(/[^"]*)"', page)
    assert len(places) >= 8
    assert all(place.startswith("/pool/") for place in places)


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    """Or its own Content-Security-Policy would forbid it."""
    page = html(node(), builds=(build(),))
    assert " style=" not in page
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]* src=)", page)
    assert not re.search(r"\son[a-z]+=", page)
    assert '<noscript><meta http-equiv="refresh"' in page


def test_every_state_has_a_sign_of_its_own() -> None:
    """Colour is never the only carrier of state, so there must be a shape."""
    page = html()
    for state in (
        *(
            "ready",
            "busy",
            "silent",
            "lost",
            "refused",
            "quarantined",
            "cordoned",
            "drained",
            "unanswered",
        ),
        *("waiting", "running"),
        *(result.value for result in Result),
    ):
        assert f'id="sign-{state}"' in page


def test_text_stands_out_from_its_ground_light_and_dark() -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least, for every colour that text or signs have."""
    sheet = Path(pages.__file__).with_name("page.css").read_text()
    palettes = [
        dict(re.findall(r"--([a-z]+): #([0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    ]
    assert len(palettes) == 2
    for palette in palettes:
        colours = ("ink", "faint", "link", "good", "working", "warn", "bad")
        for colour, ground in itertools.product(colours, ("paper", "sheet", "hover")):
            assert _contrast(palette[colour], palette[ground]) >= 4.5, (colour, ground)


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Who gets a page, and who gets data


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html", True),
        ("application/json;q=0.5, TEXT/HTML;q=0.6", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/msgpack", False),
        ("application/json, text/html", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
        (";;,,q=1", False),
    ],
)
def test_whoever_prefers_html_gets_the_page(accept: str, page: bool) -> None:
    """Browsers name it; programs do not."""
    assert pages.prefers_html(accept) is page


ROUTES = (*nodes_api.ROUTES, *pages.ROUTES)


class Pool:
    """The roster's port, and as much of a build service as the page uses."""

    def __init__(self) -> None:
        self.registered: list[str] = []
        self.asked: list[BuildQuery] = []

    def roster(self) -> Roster:
        """As the port has it."""
        return Roster("lab", (node(),), waiting=0, running=1)

    def register(self, registration: Registration, member: str = "") -> None:
        """As the port has it."""
        if "forbidden" in registration.url:
            raise Denied("this address is not allowed", field="url")
        self.registered.append(registration.url)

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """As the build service has it."""
        self.asked.append(query)
        return BuildPage((build("a command"),))


@pytest.fixture
def pool() -> Pool:
    """A pool of one node."""
    return Pool()


@pytest.fixture
def app(pool: Pool) -> Application:
    """The page's routes as the scheduler mounts them."""
    return application(
        Context(cast(BuildService, pool), ApiSettings(), Locals(), {"roster": pool}), ROUTES
    )


async def fetch(client: AsyncHTTPClient, url: str, **options: object) -> HTTPResponse:
    """An answer of any status."""
    return await client.fetch(url, raise_error=False, **options)


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/", "/nodes"])
async def test_browsers_get_a_page(
    http_client: AsyncHTTPClient, base_url: str, pool: Pool, path: str
) -> None:
    """With the nodes and the newest builds, under a strict policy, never from a cache."""
    answer = await fetch(http_client, base_url + path, headers={"Accept": "text/html"})
    assert answer.code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert not [rule for rule in policy if "unsafe" in rule or "*" in rule or "http" in rule]
    said = str(Text(answer.body.decode()))
    assert "forge" in said
    assert "a command" in said
    assert pool.asked == [BuildQuery(limit=50)]


@pytest.mark.gen_test
async def test_the_nodes_are_shown_also_where_the_builds_cannot_be(
    http_client: AsyncHTTPClient, base_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason: a store that cannot be written is when people look at the page."""

    async def full(*_: object) -> BuildPage:
        raise Unavailable("the disk is <full>")

    monkeypatch.setattr(pool, "list", full)
    answer = await fetch(http_client, base_url, headers={"Accept": "text/html"})
    assert answer.code == 200
    said = str(Text(answer.body.decode()))
    assert "forge" in said
    assert "The builds cannot be shown now: the disk is <full>" in said
    assert "No builds yet" not in said


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/", "/nodes", "/api/v1/nodes"])
@pytest.mark.parametrize("media_type", [wire.JSON, wire.MSGPACK])
async def test_programs_get_the_roster(
    http_client: AsyncHTTPClient, base_url: str, pool: Pool, path: str, media_type: str
) -> None:
    """In the format that they ask for."""
    answer = await fetch(http_client, base_url + path, headers={"Accept": media_type})
    assert answer.headers["Content-Type"] == media_type
    assert wire.decode(answer.body, Roster, media_type) == pool.roster()
    assert pool.asked == []


@pytest.mark.gen_test
async def test_a_node_makes_itself_known(
    http_client: AsyncHTTPClient, base_url: str, pool: Pool
) -> None:
    """By its URL, in JSON or msgpack."""
    registration = Registration("http://10.1.2.3:8090")
    for media_type in (wire.JSON, wire.MSGPACK):
        answer = await fetch(
            http_client,
            base_url + "/api/v1/nodes",
            method="POST",
            body=wire.encode(registration, media_type),
            headers={"Content-Type": media_type},
        )
        assert (answer.code, answer.body) == (204, b"")
    assert pool.registered == ["http://10.1.2.3:8090"] * 2


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("body", "status"),
    [("{}", 400), ('{"url": 5}', 400), ("no", 400), ('{"url": "http://forbidden"}', 403)],
)
async def test_a_registration_that_is_wrong_is_refused(
    http_client: AsyncHTTPClient, base_url: str, pool: Pool, body: str, status: int
) -> None:
    """With the field that is wrong; nothing is registered."""
    answer = await fetch(
        http_client,
        base_url + "/api/v1/nodes",
        method="POST",
        body=body,
        headers={"Content-Type": wire.JSON},
    )
    assert answer.code == status
    assert json.loads(answer.body)["field"] == ("body" if body == "no" else "url")
    assert pool.registered == []


@pytest.mark.gen_test
async def test_what_the_page_refers_to_is_there_and_kept_by_browsers(
    http_client: AsyncHTTPClient, base_url: str
) -> None:
    """Under a name that changes with the content."""
    page = await fetch(http_client, base_url + "/", headers={"Accept": "text/html"})
    places = re.findall(r'(?:href|src)="(/static/[^"]*)"', page.body.decode())
    kinds = []
    for place in places:
        answer = await fetch(http_client, base_url + place)
        assert answer.code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        kinds.append(answer.headers["Content-Type"].partition(";")[0])
    assert sorted(kinds) == ["image/svg+xml", "text/css", "text/javascript"]


@pytest.mark.gen_test
async def test_an_older_name_of_a_file_is_served_but_not_kept(
    http_client: AsyncHTTPClient, base_url: str
) -> None:
    """A page from before an upgrade still asks for it; what is none of its files is not there."""
    older = await fetch(http_client, f"{base_url}/static/{'0' * 16}/page.css")
    assert (older.code, older.headers["Cache-Control"]) == (200, "no-store")
    assert (await fetch(http_client, f"{base_url}/static/{'0' * 16}/page.html")).code == 404
    assert (await fetch(http_client, f"{base_url}/static/{'0' * 16}/pages.py")).code == 404


@pytest.mark.gen_test
async def test_the_page_can_be_asked_after_without_being_sent(
    http_client: AsyncHTTPClient, base_url: str
) -> None:
    """As monitoring does; other methods are not served."""
    head = await fetch(http_client, base_url + "/", method="HEAD", headers={"Accept": "text/html"})
    assert (head.code, head.body) == (200, b"")
    assert (await fetch(http_client, base_url + "/", method="POST", body="")).code == 405


@pytest.mark.gen_test
async def test_a_host_header_that_names_no_host_is_refused(
    http_client: AsyncHTTPClient, base_url: str
) -> None:
    """It would stand in the lines that people copy."""
    headers = {"Accept": "text/html", "Host": "a/b"}
    assert (await fetch(http_client, base_url + "/", headers=headers)).code == 400

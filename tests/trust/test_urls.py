"""Which URLs are followed, and which addresses are called: decided without sending anything."""

import re
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from yarl import URL

from protocol.api.image_creator.specification import redirect_to
from protocol.errors import Denied, Invalid
from protocol.model.checks import check_request
from protocol.model.networks import RANGES, WORDS, reach
from protocol.model.recipe import Command, FetchedContent, InputFile, NoOutput, Recipe
from protocol.model.request import BuildRequest, Guidance, Notice
from protocol.model.urls import check_patterns, check_redirect, follow, read_url
from protocol.remote.guard import Guard, Refused
from tests.trust.hostile_urls import GOOD, HOSTILE, NAMES, NO_URL, OWN, REDIRECTED

USUAL = ("public", "private")


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is sent, and no name service asked: whoever tries fails the test."""

    def sent(*_: Any, **__: Any) -> None:
        pytest.fail("something would have been sent")

    with monkeypatch.context() as patched:
        for name in ("connect", "connect_ex", "sendto"):
            patched.setattr(socket.socket, name, sent)
        patched.setattr(socket, "getaddrinfo", sent)
        yield


def looked_up(host: str, port: int, family: int) -> list[tuple[int, int, str]]:
    """What `NAMES` has."""
    if host not in NAMES:
        raise socket.gaierror(-2, "Name or service not known")
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    return [(families[ip_address(text).version], socket.IPPROTO_TCP, text) for text in NAMES[host]]


def guard(*entries: str) -> Guard:
    """One that opens these, on a machine with the addresses of the tables."""
    own = frozenset(map(ip_address, OWN))
    return Guard(reach(entries, "fetch_networks"), own=lambda: own, look_up=looked_up)


async def verdict(url: str, *moves: str, entries: tuple[str, ...] = USUAL) -> str:
    """Why the URL, or where its server redirects to, is not called; empty where it is."""
    async with guard(*entries) as place:
        try:
            called = place.check(url, "url")
            for location in moves:
                called = place.check(follow(called, location, plain=False).text, "Location")
            assert await place.addresses(called)
        except Invalid:
            return NO_URL
        except (Denied, Refused) as error:
            words = error.detail if isinstance(error, Denied) else str(error.strerror)
            return words.partition("its address is ")[2].partition(", which")[0]
    return ""


@pytest.mark.parametrize(("url", "why"), HOSTILE)
@pytest.mark.gen_test
async def test_a_hostile_url_is_not_called(url: str, why: str) -> None:
    """And the reason is the right one."""
    assert await verdict(url) == why


@pytest.mark.parametrize(("url", "location", "why"), REDIRECTED)
@pytest.mark.gen_test
async def test_a_hostile_redirect_is_not_followed(url: str, location: str, why: str) -> None:
    """Each is judged as if somebody had given it to us."""
    assert await verdict(url) == ""
    assert await verdict(url, location) == why


@pytest.mark.parametrize(("url", "origin", "text"), GOOD)
@pytest.mark.gen_test
async def test_a_good_url_is_called(url: str, origin: str, text: str) -> None:
    """As it is meant: what is called names the same host to every reader there is here."""
    assert await verdict(url) == ""
    place = read_url(url, "url")
    assert place.origin == origin
    assert text in ("", place.text)
    for read in (URL(place.text), urlsplit(place.text)):
        assert (read.scheme, read.port or URL(place.text).port) == (place.scheme, place.port)
        assert (URL(place.text).raw_host or "", urlsplit(place.text).hostname) == (place.host,) * 2


@pytest.mark.parametrize(
    ("url", "location", "arrived"),
    [
        ("http://example.org/a/b", "c", "http://example.org/a/c"),
        ("http://example.org/a/b", "/c?d", "http://example.org/c?d"),
        ("http://example.org/", "//build.lan:8000/x", "http://build.lan:8000/x"),
        ("http://example.org/", "https://example.org/", "https://example.org/"),
        ("https://example.org/a", "/b", "https://example.org/b"),
    ],
)
@pytest.mark.gen_test
async def test_a_good_redirect_is_followed(url: str, location: str, arrived: str) -> None:
    """Also one that is relative."""
    assert follow(read_url(url, "url"), location, plain=False).text == arrived
    assert await verdict(url, location) == ""


def test_a_redirect_to_plain_http_is_followed_where_the_digest_is_known() -> None:
    """Then it matters to nobody how the bytes came."""
    secure = read_url("https://example.org/", "url")
    assert follow(secure, "http://example.org/x", plain=True).text == "http://example.org/x"


@pytest.mark.gen_test
async def test_only_allowed_addresses_of_a_name_are_called() -> None:
    """A name may have others beside them."""
    async with guard(*USUAL) as place:
        mixed = read_url("http://mixed.example/", "url")
        assert await place.addresses(mixed) == ("93.184.216.34",)


@pytest.mark.parametrize("url", [url for url, why in HOSTILE if why == NO_URL])
def test_what_is_no_url_is_refused_wherever_one_is_given(url: str) -> None:
    """In the redirect of a create, in a command, an input, a notice and in `cancel_url`: as
    Invalid, with the field.
    """
    content = InputFile("x", FetchedContent(url))
    asked = {
        "recipe.commands[0].url": Recipe((Command("x", url=url),), output=NoOutput()),
        "recipe.inputs[0].content.url": Recipe((), inputs=(content,), output=NoOutput()),
    }
    guided = {
        "guidance.notices[0].url": Guidance(notices=(Notice(url=url),)),
        "guidance.cancel_url": Guidance(cancel_url=url),
    }
    empty = Recipe((Command("x", text="true"),), output=NoOutput())
    requests = {field: BuildRequest(recipe, Guidance()) for field, recipe in asked.items()}
    requests |= {field: BuildRequest(empty, guidance) for field, guidance in guided.items()}
    for field, request in requests.items():
        with pytest.raises(Invalid) as refused:
            check_request(request, ("*",))
        assert (refused.value.field, bool(refused.value.expected)) == (field, True)
    with pytest.raises(Invalid) as refused:
        check_redirect(url, ("*",), "redirect")
    assert refused.value.field == "redirect"


def test_a_refused_password_is_not_repeated() -> None:
    """An error is seen by more people than the URL was meant for."""
    with pytest.raises(Invalid) as refused:
        read_url("https://ada:geheim@example.org/", "url")
    assert "geheim" not in refused.value.detail + refused.value.expected
    assert "example.org" in refused.value.detail


# The redirect of a create: a browser goes there, so that its address is not ours to judge


@pytest.mark.parametrize("url", [url for url, _, _ in GOOD] + ["http://localhost/"])
def test_a_create_may_redirect_to_any_url(url: str) -> None:
    """As the document has it; what is sent is one line."""
    check_redirect(url, ("*",), "redirect")
    moved = redirect_to(url, "http://s/status/1")
    assert moved.isascii()
    assert moved.isprintable()


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://ci.example.org/x", True),
        ("https://CI.example.org:443/x", True),
        ("https://ci.example.org./x", True),
        ("http://page:8000/x", True),
        ("http://ci.example.org/", False),
        ("https://ci.example.org:8443/", False),
        ("https://example.org/", False),
        ("https://example.org.evil.example/", False),
        ("https://evil.example/?.example.org", False),
        ("https://evil.example/.example.org", False),
        ("https://evil.example#.example.org", False),
        ("http://page/x", False),
        ("http://page:80/x", False),
    ],
)
def test_an_operator_says_where_a_create_may_redirect_to(url: str, allowed: bool) -> None:
    """By patterns of origins; a refusal says which."""
    patterns = ("https://*.example.org", "http://page:8000")
    if allowed:
        check_redirect(url, patterns, "redirect")
        return
    with pytest.raises(Denied) as refused:
        check_redirect(url, patterns, "redirect")
    assert refused.value.field == "redirect"
    assert patterns[0] in refused.value.expected


@pytest.mark.parametrize(
    "pattern", ["", "example.org", "https://", "https://a/", "ftp://a", "https://A.org", "//a"]
)
def test_a_pattern_that_nothing_is_like_is_refused(pattern: str) -> None:
    """At the start of the program."""
    with pytest.raises(Invalid) as refused:
        check_patterns(("*", "http*://a", pattern), "redirects")
    assert refused.value.field == "redirects[2]"


# What an operator can open and close


@pytest.mark.parametrize(
    ("url", "entries", "why"),
    [
        ("http://127.0.0.1/", ("loopback",), ""),
        ("http://localhost/", ("127.0.0.0/8",), ""),
        ("http://127.0.0.1/", ("127.0.0.1/32",), ""),
        ("http://127.0.0.2/", ("127.0.0.1/32",), "loopback"),
        ("http://127.0.0.1/", ("0.0.0.0/0", "::/0"), "loopback"),
        ("http://[::1]/", ("127.0.0.0/8",), "loopback"),
        ("http://[::ffff:127.0.0.1]/", ("loopback",), ""),
        ("http://[::ffff:127.0.0.1]/", ("::/0",), "loopback"),
        ("http://169.254.1.1/", ("link-local",), ""),
        ("http://169.254.169.254/", ("link-local",), "metadata"),
        ("http://169.254.169.254/", ("169.254.0.0/16",), "metadata"),
        ("http://169.254.169.254/", ("metadata",), ""),
        ("http://169.254.169.254/", ("169.254.169.254/32",), ""),
        ("http://[fd00:ec2::254]/", ("fc00::/7",), "metadata"),
        ("http://192.168.7.7/", ("192.168.7.0/24", "private", "public"), "own"),
        ("http://192.168.7.7/", ("own",), ""),
        ("http://192.168.7.7/", ("192.168.7.7/32",), ""),
        ("http://192.168.7.9/", ("192.168.7.0/24",), ""),
        ("http://192.168.8.9/", ("192.168.7.0/24",), "private"),
        ("http://192.168.8.9/", ("public",), "private"),
        ("http://93.184.216.34/", ("private",), "public"),
        ("http://93.184.216.34/", ("93.184.0.0/16",), ""),
        ("http://93.184.216.34/", ("0.0.0.0/0",), ""),
        ("http://93.184.216.34/", (), "public"),
        ("http://[64:ff9b::10.0.0.1]/", ("public",), "private"),
        ("http://198.18.0.1/", USUAL, "reserved"),
        ("http://198.18.0.1/", ("198.18.0.0/15",), ""),
        ("http://0.0.0.0/", ("0.0.0.0/32", "loopback"), "unspecified or multicast"),
        ("http://224.0.0.251/", ("224.0.0.0/4",), "unspecified or multicast"),
        ("http://0.0.0.0/", WORDS, "unspecified or multicast"),
    ],
)
@pytest.mark.gen_test
async def test_an_operator_opens_ranges(url: str, entries: tuple[str, ...], why: str) -> None:
    """By word or network; a special range by a network within it alone."""
    assert await verdict(url, entries=entries) == why


@pytest.mark.parametrize("entry", ["", "all", "Public", "10.0.0.1/8", "10.0.0.0/33", "localhost"])
def test_what_is_neither_word_nor_network_is_refused(entry: str) -> None:
    """With its place, and all words there are."""
    with pytest.raises(Invalid) as refused:
        reach(("public", entry), "notice_networks")
    assert refused.value.field == "notice_networks[1]"
    assert all(word in refused.value.expected for word in WORDS)


@pytest.mark.gen_test
async def test_a_refusal_names_the_setting_and_what_it_has() -> None:
    """Whoever reads it can ask for the right thing."""
    async with guard("public", "10.0.0.0/8") as place:
        with pytest.raises(Denied) as refused:
            place.check("http://127.0.0.1:80/", "recipe.inputs[0].content.url")
    assert refused.value.field == "recipe.inputs[0].content.url"
    assert refused.value.expected == "an address in fetch_networks: public, 10.0.0.0/8"


def test_the_ranges_are_those_that_operators_read_of() -> None:
    """docs/security.md has each with all its networks, and every word there is."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `?([a-z -]+?)`? \| (.*) \|$", text, re.MULTILINE)
    shown = {kind: tuple(re.findall(r"[0-9a-f:.]+/[0-9]+", what)) for kind, what in rows}
    everything = {"public": ()}
    assert {kind: shown[kind] for kind in RANGES} == RANGES | everything
    assert set(WORDS) == (set(RANGES) & set(WORDS)) | {"own"} <= set(shown)

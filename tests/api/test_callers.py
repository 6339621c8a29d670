"""Who asks, by what a request carries; every way to be believed, and what is believed of nobody."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.iostream import IOStream, StreamClosedError

from protocol.api.callers import ClientCallers, ProvenCallers, Rules, csrf_token, headers
from protocol.api.failures import Failures
from protocol.errors import Denied, Invalid, TooOften, Unauthenticated
from protocol.ports.service import Caller, Role
from protocol.trust.accounts import Accounts
from protocol.trust.membership import Memberships

LAN = "192.0.2.7"
PROGRAM = "a" * 40
NOBODY = Caller(owner="", role=Role.NOBODY)
LOCAL = Caller(owner="local", role=Role.ADMIN)


class Connection:
    """Where a request came from."""

    def __init__(self, address: str) -> None:
        self.context = self
        self.remote_ip = address
        self.protocol = "http"


def asked(
    address: str = "127.0.0.1",
    host: str = "127.0.0.1:8080",
    method: str = "GET",
    version: str = "HTTP/1.1",
    **more: str,
) -> HTTPServerRequest:
    """A request with these headers; _ in their names stands for -."""
    given = HTTPHeaders({"Host": host})
    for name, value in more.items():
        given[name.replace("_", "-")] = value
    line = RequestStartLine(method, "/api/v1/builds", version)
    connection: Any = Connection(address)
    return HTTPServerRequest(start_line=line, headers=given, connection=connection)


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def accounts(io_loop, tmp_path: Path) -> Iterator[Accounts]:
    """Of nobody yet."""
    made = Accounts(tmp_path, Clock())
    yield made
    io_loop.run_sync(made.close)


def callers(accounts: Accounts, limit: int = 3, **rules: Any) -> ClientCallers:
    """Under these rules; `limit`: failures in a minute."""
    return ClientCallers(accounts, Rules(**rules), Failures(limit, 60, Clock()))


# Nothing but an address


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:80"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_somebody_of_this_machine(accounts, address: str, host: str) -> None:
    """Is its admin, as long as there is nobody to tell apart."""
    assert callers(accounts).caller_of(asked(address, host)) == LOCAL


NOT_LOCAL = [
    asked(LAN),
    asked("2001:db8::1"),
    asked(""),
    asked(host="evil.example:8080"),  # a name that was made to lead here
    asked(host="127.0.0.1.evil.example"),
    asked(host="localhost.evil.example"),
    asked(host="192.0.2.1:8080"),
    asked(host="[::1"),
    asked(Origin="http://evil.example"),
    asked(Origin="http://127.0.0.1:3000"),
    asked(Origin="https://127.0.0.1:8080"),
    asked(Origin="null"),
    asked(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"),  # <img src="http://localhost...">
    asked(Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors"),  # another port of this machine
    asked(method="POST", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"),  # a form
    asked(X_Forwarded_For="192.0.2.7"),
    asked(Forwarded="for=192.0.2.7"),
    asked(Via="1.1 proxy"),
    asked(X_Real_Ip="192.0.2.7"),
    asked(X_Forwarded_Proto="https"),
    asked(X_Forwarded_Port="443"),
    asked(version="HTTP/1.0", Connection="close"),  # nginx that was told nothing
]


@pytest.mark.parametrize("request_", NOT_LOCAL, ids=lambda r: f"{r.remote_ip} {dict(r.headers)}")
def test_somebody_who_only_seems_to_be(accounts, request_: HTTPServerRequest) -> None:
    """Another machine, a page in a browser, a name that was made to lead here, a proxy: nobody;
    nor does the program's word help.
    """
    assert callers(accounts).caller_of(request_) == NOBODY
    request_.headers["Imagepool-Program"] = PROGRAM
    assert callers(accounts).caller_of(request_) == NOBODY


def test_a_page_of_ours(accounts) -> None:
    """By its own origin, and where somebody followed a link to it."""
    for page in (
        asked(Origin="http://127.0.0.1:8080"),
        asked(Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors"),
        asked(Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate"),
        asked(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"),
    ):
        assert callers(accounts).caller_of(page) == LOCAL


def test_an_old_client(accounts) -> None:
    """Is no proxy."""
    assert callers(accounts).caller_of(asked(version="HTTP/1.0")) == LOCAL


TOLD = {
    "192.0.2.7": "192.0.2.7",
    "198.51.100.1, 192.0.2.7": "192.0.2.7",
    "192.0.2.7:4711": "192.0.2.7",
    "2001:db8::7": "2001:db8::7",
    "[2001:db8::7]": "2001:db8::7",
    "[2001:db8::7]:4711": "2001:db8::7",
    "": "127.0.0.1",
    "unknown": "127.0.0.1",
    "192.0.2.7, ": "127.0.0.1",
    "192.0.2.7, \x1b[2J": "127.0.0.1",
    "192.0.2.7, " + "7" * 9000: "127.0.0.1",
}


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told[:24])
def test_the_address_that_a_proxy_tells(accounts, told: str) -> None:
    """The last one, without its port: or each connection would be another address, of which each
    may fail. What is none is not believed.
    """
    behind = callers(accounts, behind=True)
    assert behind.address_of(asked(X_Forwarded_For=told)) == TOLD[told]
    assert behind.address_of(asked(LAN, X_Forwarded_For=told)) == LAN
    assert callers(accounts).address_of(asked(X_Forwarded_For=told)) == "127.0.0.1"


def test_behind_a_proxy(accounts) -> None:
    """Nobody is of this machine: the proxy is."""
    assert callers(accounts, behind=True).caller_of(asked()) == NOBODY


@pytest.mark.parametrize("unproven", ["loopback", "none", "anywhere"])
@pytest.mark.gen_test
async def test_once_somebody_has_a_token(accounts, unproven: str) -> None:
    """Whoever has none is nobody, on this machine too."""
    await accounts.make_token("ada", Role.ADMIN)
    assert callers(accounts, unproven=unproven).caller_of(asked()) == NOBODY


@pytest.mark.gen_test
async def test_once_there_is_a_user(accounts) -> None:
    """Likewise."""
    await accounts.put_user("ada", Role.ADMIN, "correct horse battery")
    assert callers(accounts).caller_of(asked()) == NOBODY


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER])
def test_anonymous(accounts, role: Role) -> None:
    """What the setting makes of them, and for nobody else."""
    one = callers(accounts, anonymous=role.value)
    assert one.caller_of(asked(LAN)) == Caller(owner="anonymous", role=role)
    with pytest.raises(Denied) as refused:
        one.caller_of(asked(LAN, Imagepool_Owner="ada"))
    assert refused.value.field == "Imagepool-Owner"
    assert one.caller_of(asked()) == LOCAL


# Programs


@pytest.mark.parametrize(
    ("unproven", "address", "believed"),
    [
        ("anywhere", LAN, True),
        ("anywhere", "127.0.0.1", True),
        ("loopback", LAN, False),
        ("loopback", "127.0.0.1", True),
        ("none", LAN, False),
        ("none", "127.0.0.1", False),
    ],
)
@pytest.mark.gen_test
async def test_a_program_by_its_word(accounts, unproven, address, believed) -> None:
    """Only whence the setting says."""
    await accounts.make_token("ada", Role.ADMIN)
    one = callers(accounts, unproven=unproven)
    caller = one.caller_of(asked(address, Imagepool_Program=PROGRAM, Imagepool_Store="b" * 32))
    program = Caller(owner="", role=Role.PROGRAM, program=PROGRAM, store="b" * 32)
    assert caller == (program if believed else NOBODY)
    assert headers(program) == {"Imagepool-Program": PROGRAM, "Imagepool-Store": "b" * 32}


def test_what_is_no_program(accounts) -> None:
    """An id that is none is refused; a store that is none is not known."""
    one = callers(accounts)
    for wrong in ("", "a b", "x" * 65, "é"):
        with pytest.raises(Invalid) as refused:
            one.caller_of(asked(Imagepool_Program=wrong))
        assert refused.value.field == "Imagepool-Program"
    assert one.caller_of(asked(Imagepool_Program=PROGRAM, Imagepool_Store="-")).store == ""


def test_a_program_behind_a_proxy(accounts) -> None:
    """Is not believed for coming from this machine."""
    one = callers(accounts, behind=True)
    assert one.caller_of(asked(Imagepool_Program=PROGRAM)) == NOBODY


# Tokens


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN])
@pytest.mark.gen_test
async def test_a_token(accounts, role: Role) -> None:
    """From wherever: its role and its owner."""
    text, kept = await accounts.make_token("ci", role, "ada")
    one = callers(accounts)
    for address in (LAN, "127.0.0.1"):
        for word in ("Bearer", "bearer", "BEARER"):
            caller = one.caller_of(asked(address, Authorization=f"{word} {text}"))
            assert caller == Caller(owner="ada", role=role, token=kept.id)


@pytest.mark.gen_test
async def test_what_is_no_token(accounts) -> None:
    """It is not as if nothing had been said: who has anonymous rights, and whoever is believed to
    be local, is refused too.
    """
    await accounts.make_token("ci", Role.ADMIN)
    one = callers(accounts, limit=100, anonymous="user", unproven="anywhere")
    for wrong in ("", "x", "imagepool-aaaaaaaa-" + "a" * 26, "\xe9"):
        with pytest.raises(Unauthenticated) as refused:
            one.caller_of(asked(Authorization=f"Bearer {wrong}", Imagepool_Program=PROGRAM))
        assert refused.value.field == "Authorization"
    for scheme in ("Basic YTpi", "Negotiate x", ""):
        with pytest.raises(Unauthenticated, match="not served"):
            one.caller_of(asked(Authorization=scheme))


@pytest.mark.gen_test
async def test_a_token_that_was_revoked_or_is_over(accounts) -> None:
    """Is none from then on."""
    one = callers(accounts)
    text, _ = await accounts.make_token("ci", Role.ADMIN)
    short, _ = await accounts.make_token("short", Role.ADMIN, lasts=1)
    await accounts.revoke("ci")
    accounts._clock.now += 1
    for wrong in (text, short):
        with pytest.raises(Unauthenticated):
            one.caller_of(asked(Authorization=f"Bearer {wrong}"))


@pytest.mark.parametrize(
    ("role", "may"), [(Role.VIEWER, 0), (Role.USER, 0), (Role.OPERATOR, 1), (Role.ADMIN, 1)]
)
@pytest.mark.gen_test
async def test_acting_for_another_owner(accounts, role: Role, may: int) -> None:
    """Operators may, and it is known who did; everybody may say who they are."""
    text, kept = await accounts.make_token("ada", role)
    one = callers(accounts)
    bearer = {"Authorization": f"Bearer {text}"}
    own = one.caller_of(asked(LAN, Imagepool_Owner="ada", **bearer))
    assert own == Caller(owner="ada", role=role, token=kept.id)
    if may:
        acting = one.caller_of(asked(LAN, Imagepool_Owner="bob", **bearer))
        assert acting == Caller(owner="bob", role=role, token=kept.id, by="ada")
        for wrong in ("", "a b", "x" * 129, "-a", "é"):
            with pytest.raises(Invalid) as refused:
                one.caller_of(asked(LAN, Imagepool_Owner=wrong, **bearer))
            assert refused.value.field == "Imagepool-Owner"
    else:
        with pytest.raises(Denied):
            one.caller_of(asked(LAN, Imagepool_Owner="bob", **bearer))
    assert headers(Caller(owner="bob")) == {"Imagepool-Owner": "bob"}


def test_the_local_admin_acts_for_others_too(accounts) -> None:
    """As any admin."""
    caller = callers(accounts).caller_of(asked(Imagepool_Owner="bob"))
    assert caller == Caller(owner="bob", role=Role.ADMIN, by="local")


# Cookies


@pytest.mark.gen_test
async def test_a_cookie(accounts) -> None:
    """It reads by itself; what changes something carries the page's proof."""
    user = await accounts.put_user("ada", Role.OPERATOR, "correct horse battery")
    text = await accounts.begin_session(user)
    one = callers(accounts)
    cookie = {"Cookie": f"{accounts.cookie}={text}"}
    ada = Caller(owner="ada", role=Role.OPERATOR, token=accounts.token(text).id)
    for method in ("GET", "HEAD", "OPTIONS"):
        assert one.caller_of(asked(LAN, method=method, **cookie)) == ada
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        proven = asked(LAN, method=method, X_CSRF_Token=csrf_token(text), **cookie)
        assert one.caller_of(proven) == ada
        for wrong in ({}, {"X_CSRF_Token": csrf_token(text + "a")}, {"X_CSRF_Token": "\xe9"}):
            with pytest.raises(Denied) as refused:
                one.caller_of(asked(LAN, method=method, **wrong, **cookie))
            assert refused.value.field == "X-CSRF-Token"


@pytest.mark.gen_test
async def test_a_cookie_that_is_over(accounts) -> None:
    """Says nothing, since browsers send it all the same; and nobody is counted for it."""
    user = await accounts.put_user("ada", Role.ADMIN, "correct horse battery")
    text = await accounts.begin_session(user)
    await accounts.end_session(text)
    token, _ = await accounts.make_token("ci", Role.ADMIN)
    one = callers(accounts, limit=1)
    for value in (text, "x", "", token):  # nor is a token a cookie
        for _ in range(3):
            assert one.caller_of(asked(LAN, Cookie=f"{accounts.cookie}={value}")) == NOBODY


@pytest.mark.gen_test
async def test_a_cookie_is_no_token(accounts) -> None:
    """It would be one without the page's proof."""
    user = await accounts.put_user("ada", Role.ADMIN, "correct horse battery")
    text = await accounts.begin_session(user)
    with pytest.raises(Unauthenticated):
        callers(accounts).caller_of(asked(LAN, Authorization=f"Bearer {text}"))


# How often one may fail


@pytest.mark.gen_test
async def test_too_many_wrong_tokens(accounts) -> None:
    """Are told so; who has a right one is served all the same, from the same address too."""
    text, _ = await accounts.make_token("ci", Role.USER)
    one = callers(accounts, limit=3)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            one.caller_of(asked(LAN, Authorization="Bearer x"))
    with pytest.raises(TooOften) as refused:
        one.caller_of(asked(LAN, Authorization="Bearer x"))
    assert 0 < refused.value.retry_after <= 60
    assert one.caller_of(asked(LAN, Authorization=f"Bearer {text}")).owner == "ci"
    with pytest.raises(Unauthenticated):
        one.caller_of(asked("192.0.2.8", Authorization="Bearer x"))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),  # one network
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "x" * 1000, False),
    ],
)
def test_what_counts_as_one_address(first: str, second: str, same: bool) -> None:
    """Of IPv6 a /64, which is what one machine has."""
    failures = Failures(1, 60, Clock())
    failures.count(first)
    if same:
        with pytest.raises(TooOften):
            failures.count(second)
    else:
        failures.count(second)


def test_failures_are_forgotten_steadily() -> None:
    """A third of the window, a third of the limit; whoever is refused adds nothing."""
    clock = Clock()
    failures = Failures(3, 60, clock)
    for _ in range(3):
        failures.count(LAN)
    for _ in range(100):
        with pytest.raises(TooOften) as refused:
            failures.count(LAN)
    assert 20 <= refused.value.retry_after <= 21
    clock.now += 20
    failures.count(LAN)
    with pytest.raises(TooOften):
        failures.count(LAN)
    failures.forgive(LAN)
    failures.count(LAN)
    failures.forgive("192.0.2.99")
    clock.now += 1000
    for _ in range(3):
        failures.count(LAN)


def test_memory_has_a_bound() -> None:
    """Who asked longest ago is forgotten first."""
    failures = Failures(1, 60, Clock(), addresses=100)
    for number in range(1000):
        failures.count(f"10.0.{number // 250}.{number % 250}")
    assert len(failures) == 100
    with pytest.raises(TooOften):
        failures.count("10.0.3.249")
    failures.count("10.0.0.0")


# On the listener for the pool


@pytest.mark.gen_test
async def test_one_who_is_gone_already(tmp_path: Path) -> None:
    """Whose certificate can be asked for no more: dropped, as all who hang up are."""

    class Gone(Connection):
        def __init__(self) -> None:
            super().__init__(LAN)
            self.stream = IOStream(socket.socket())
            self.stream.close()

    connection: Any = Gone()
    line = RequestStartLine("GET", "/status", "HTTP/1.1")
    given = HTTPHeaders({"Host": "x"})
    request = HTTPServerRequest(start_line=line, headers=given, connection=connection)
    callers = ProvenCallers(Memberships(tmp_path, tmp_path / "key.pem"), lambda program: False)
    with pytest.raises(StreamClosedError):
        callers.caller_of(request)

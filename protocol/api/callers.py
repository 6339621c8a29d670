"""Who asks, by what a request carries: a certificate of the pool, a token, a cookie, or nothing but
the address that it came from.
"""

import hashlib
import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct
from tornado.httputil import HTTPServerRequest

from protocol.errors import Denied, Invalid, TooOften, Unauthenticated
from protocol.ports.service import Caller, Role
from protocol.trust.accounts import Accounts
from protocol.trust.certificates import SCHEDULER
from protocol.trust.membership import Memberships

PROGRAM_HEADER = "Imagepool-Program"
"""Carries the id of the calling program, where that need not be proven."""
STORE_HEADER = "Imagepool-Store"
"""Carries the id of the calling scheduler's store."""
OWNER_HEADER = "Imagepool-Owner"
"""Whose builds these are, where an operator asks for somebody else."""
CSRF_HEADER = "X-CSRF-Token"
"""Proves that a page of ours asks, and not another one in the same browser."""
COOKIE = "imagepool"
"""The cookie of somebody who gave a password."""

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_HARMLESS = {"GET", "HEAD", "OPTIONS"}


class Callers(Protocol):
    """How a listener knows who asks."""

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """Raises Unauthenticated, Denied, TooOften, Invalid."""


class Rules(Struct, frozen=True):
    """What a listener for clients lets pass without a token."""

    anonymous: str = "none"  # what somebody without a token is: none, viewer, user
    unproven: str = "loopback"  # whence programs need no certificate: none, loopback, anywhere
    behind: bool = False  # a proxy on this machine speaks for others


class ProvenCallers:
    """On the listener for the pool: programs, by their certificates."""

    def __init__(self, memberships: Memberships, is_revoked: Callable[[str], bool]) -> None:
        self._memberships = memberships
        self._is_revoked = is_revoked

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """See Callers. Who has no certificate is nobody, and may ask to join."""
        shown = request.get_ssl_certificate(binary_form=True)
        assert shown is None or isinstance(shown, bytes)
        party = self._memberships.party(shown)
        if party is None:
            return Caller(owner="", role=Role.NOBODY)
        if self._is_revoked(party.id):
            raise Denied("this program was put out of the pool")
        role = Role.PROGRAM if party.role == SCHEDULER else Role.NODE
        store = request.headers.get(STORE_HEADER, "") if role is Role.PROGRAM else ""
        known = store if _ID.fullmatch(store) else ""
        return Caller(owner="", role=role, program=party.id, store=known)


class ClientCallers:
    """On the listener for clients: tokens, cookies, and the people of this machine."""

    def __init__(self, accounts: Accounts, rules: Rules, failures: "Failures") -> None:
        self._accounts = accounts
        self._rules = rules
        self._failures = failures

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """See Callers."""
        text = _bearer(request)
        if text is not None:
            return self._by_token(request, text)
        cookie = request.cookies.get(COOKIE)
        if cookie is not None:
            return self._by_token(request, cookie.value, cookie=True)
        if PROGRAM_HEADER in request.headers and self._believes_programs(request):
            return _program(request)
        if self._accounts.empty and self._is_local(request):
            return _acting(request, Caller(owner="local", role=Role.ADMIN))
        role = {"viewer": Role.VIEWER, "user": Role.USER}.get(self._rules.anonymous, Role.NOBODY)
        return Caller(owner="anonymous", role=role)

    def _by_token(self, request: HTTPServerRequest, text: str, *, cookie: bool = False) -> Caller:
        address = request.remote_ip or ""
        self._failures.check(address)
        try:
            token = self._accounts.token(text)
        except Denied as error:
            self._failures.count(address)
            raise Unauthenticated(error.detail, field="Authorization") from error
        if cookie != token.session:
            raise Unauthenticated("a cookie is no token, nor a token a cookie", field="Cookie")
        if cookie and request.method not in _HARMLESS:
            given = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode(), csrf_token(text).encode()):
                raise Denied(
                    "nothing says that our own page asks",
                    field=CSRF_HEADER,
                    expected="the value that came with the page",
                )
        return _acting(request, Caller(owner=token.owner, role=token.role))

    def _believes_programs(self, request: HTTPServerRequest) -> bool:
        anywhere = self._rules.unproven == "anywhere"
        here = self._rules.unproven == "loopback" and self._is_local(request)
        return anywhere or here

    def _is_local(self, request: HTTPServerRequest) -> bool:
        return not self._rules.behind and is_local(request)


class Failures:
    """How often somebody failed to prove who they are, by address; as many are remembered as
    `addresses` says.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        clock: Callable[[], float] = time.monotonic,
        addresses: int = 10_000,
    ) -> None:
        """`limit`: failures in `window` seconds, after which nobody from there is heard until some
        of them are older.
        """
        self._limit = limit
        self._window = window
        self._clock = clock
        self._addresses = addresses
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (count, as of)

    def check(self, address: str) -> None:
        """Raises TooOften."""
        count = self._now(_network(address))
        if count >= self._limit:
            pause = (count - self._limit + 1) * self._window / self._limit
            raise TooOften("too many failures from your address", retry_after=int(pause) + 1)

    def count(self, address: str) -> None:
        """One more."""
        key = _network(address)
        self._counts[key] = (self._now(key) + 1, self._clock())
        self._counts.move_to_end(key)
        while len(self._counts) > self._addresses:
            self._counts.popitem(last=False)

    def _now(self, key: str) -> float:
        """What is left of the failures; they are forgotten steadily."""
        count, at = self._counts.get(key, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * self._limit / self._window)


def csrf_token(session: str) -> str:
    """What a page of ours sends with what it asks for, by the cookie that it was got with."""
    return hmac.new(session.encode(), b"imagepool csrf", hashlib.sha256).hexdigest()


def is_local(request: HTTPServerRequest) -> bool:
    """Whether somebody on this machine asks: not a page of another origin in their browser, nor
    one whose name was made to lead here.
    """
    if not _is_loopback(request.remote_ip or ""):
        return False
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    if host not in _LOCAL_HOSTS and not _is_loopback(host):
        return False
    origin = request.headers.get("Origin")
    return origin in (None, f"{request.protocol}://{request.host}")


def headers(caller: Caller) -> dict[str, str]:
    """What tells a program that need not be proven who calls."""
    said = {PROGRAM_HEADER: caller.program, STORE_HEADER: caller.store}
    if not caller.program:
        said = {OWNER_HEADER: caller.owner}
    return {name: value for name, value in said.items() if value}


def _bearer(request: HTTPServerRequest) -> str | None:
    """The token that a request carries. Raises Unauthenticated for another way of proving."""
    given = request.headers.get("Authorization")
    if given is None:
        return None
    scheme, _, text = given.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "that way to prove who you are is not served here",
            field="Authorization",
            expected="Bearer and a token",
        )
    return text.strip()


def _program(request: HTTPServerRequest) -> Caller:
    """A program that is believed to be who it says. Raises Invalid."""
    program = request.headers.get(PROGRAM_HEADER, "")
    store = request.headers.get(STORE_HEADER, "")
    if not _ID.fullmatch(program):
        raise Invalid(
            f"{PROGRAM_HEADER} is {program[:40]!r}", field=PROGRAM_HEADER, expected="a program's id"
        )
    known = store if _ID.fullmatch(store) else ""
    return Caller(owner="", role=Role.PROGRAM, program=program, store=known)


def _acting(request: HTTPServerRequest, caller: Caller) -> Caller:
    """The caller, or who an operator says to act for. Raises Invalid, Denied."""
    owner = request.headers.get(OWNER_HEADER)
    if owner is None or owner == caller.owner:
        return caller
    if not _OWNER.fullmatch(owner):
        raise Invalid(
            f"{OWNER_HEADER} is {owner[:40]!r}",
            field=OWNER_HEADER,
            expected="up to 128 letters, digits and . _ @ + -, the first one of the former",
        )
    if caller.role not in (Role.OPERATOR, Role.ADMIN):
        raise Denied(f"a {caller.role.value} acts for nobody else", field=OWNER_HEADER)
    return Caller(owner=owner, role=caller.role)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _network(address: str) -> str:
    """What counts as one address: of IPv6, where anybody has many, a whole network."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)

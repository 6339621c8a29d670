"""Who asks, by what a request carries: a certificate of the pool, a token, a cookie, or nothing but
the address that it came from.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Collection
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError

from protocol.api.failures import Failures, is_address, is_loopback
from protocol.errors import Denied, Invalid, Unauthenticated
from protocol.model.people import NAME
from protocol.ports.service import Caller, Role
from protocol.trust.accounts import Accounts, Token
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
HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_OWNER = re.compile(NAME)
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_RELAYED = ("Forwarded", "Via", "X-Real-Ip")
_RELAYED_TOO = "X-Forwarded-"  # begins the names of more
_TOLD = re.compile(r"([0-9.]{7,15})(?::\d{1,5})?|\[?([0-9A-Fa-f:.]{2,45})(?:\]|\]:\d{1,5})?")


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

    def __init__(
        self,
        memberships: Memberships,
        is_revoked: Callable[[str], bool],
        for_strangers: Collection[str] = (),
    ) -> None:
        """`for_strangers`: paths that may be asked for without a certificate."""
        self._memberships = memberships
        self._is_revoked = is_revoked
        self._for_strangers = for_strangers

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """See Callers. Who has no certificate is nobody, and may ask to join. Raises
        StreamClosedError where the caller has hung up.
        """
        if request.connection.stream.closed():  # type: ignore[union-attr]
            raise StreamClosedError  # nobody is there to show one
        shown = request.get_ssl_certificate(binary_form=True)
        assert shown is None or isinstance(shown, bytes)
        party = self._memberships.party(shown)
        if party is None:
            if request.path not in self._for_strangers:
                raise Unauthenticated("this is for members of the pool", expected="a certificate")
            return Caller(owner="", role=Role.NOBODY)
        if self._is_revoked(party.id):
            raise Denied("this program was put out of the pool")
        role = Role.PROGRAM if party.role == SCHEDULER else Role.NODE
        store = request.headers.get(STORE_HEADER, "") if role is Role.PROGRAM else ""
        known = store if _ID.fullmatch(store) else ""
        return Caller(owner="", role=role, program=party.id, store=known)


class ClientCallers:
    """On the listener for clients: tokens, cookies, and the people of this machine."""

    def __init__(self, accounts: Accounts, rules: Rules, failures: Failures) -> None:
        self._accounts = accounts
        self._rules = rules
        self._failures = failures

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """See Callers."""
        text = _bearer(request)
        if text is not None:
            return self._by_token(request, text)
        session = self.session_of(request)
        if session is not None:
            return self._by_cookie(request, *session)
        if PROGRAM_HEADER in request.headers and self._believes_programs(request):
            return _program(request)
        if self._accounts.empty and self._is_local(request):
            return _acting(request, Caller(owner="local", role=Role.ADMIN))
        if self._rules.anonymous == "none":
            return Caller(owner="", role=Role.NOBODY)
        return _acting(request, Caller(owner="anonymous", role=Role(self._rules.anonymous)))

    def session_of(self, request: HTTPServerRequest) -> tuple[str, Token] | None:
        """(the cookie's text, what is kept of it); None where nobody is known by one. A cookie that
        is over says nothing of who sends it: browsers do until they are told otherwise.
        """
        cookie = request.cookies.get(self._accounts.cookie)
        try:
            token = self._accounts.token(cookie.value) if cookie is not None else None
        except Denied:
            return None
        return (cookie.value, token) if cookie and token and token.session else None

    def by_session(self, request: HTTPServerRequest, text: str) -> Caller:
        """Whom a family's own cookie names: nobody, where it is none or over. The family sees to it
        that no page of another origin uses it. Raises Denied, Invalid.
        """
        try:
            token = self._accounts.token(text)
        except Denied:
            return Caller(owner="", role=Role.NOBODY)
        if not token.session:
            return Caller(owner="", role=Role.NOBODY)
        return _acting(request, Caller(owner=token.owner, role=token.role, token=token.id))

    def address_of(self, request: HTTPServerRequest) -> str:
        """Whence somebody asks, in the words of a proxy on this machine where there is one."""
        address = request.remote_ip or ""
        if self._rules.behind and is_loopback(address):
            said = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            match = _TOLD.fullmatch(said)
            told = (match[1] or match[2]) if match else ""
            return told if is_address(told) else address
        return address

    def _by_token(self, request: HTTPServerRequest, text: str) -> Caller:
        try:
            token = self._accounts.token(text)
            if token.session:
                raise Denied("a cookie is no token")
        except Denied as error:
            # Only after the look: whoever shares an address with somebody who tries is served. A
            # token has too many bits for that to help him.
            self._failures.count(self.address_of(request))
            raise Unauthenticated(error.detail, field="Authorization") from error
        return _acting(request, Caller(owner=token.owner, role=token.role, token=token.id))

    def _by_cookie(self, request: HTTPServerRequest, text: str, token: Token) -> Caller:
        if request.method not in HARMLESS:
            given = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode(), csrf_token(text).encode()):
                raise Denied(
                    "nothing says that our own page asks",
                    field=CSRF_HEADER,
                    expected="the value that came with the page",
                )
        return _acting(request, Caller(owner=token.owner, role=token.role, token=token.id))

    def _believes_programs(self, request: HTTPServerRequest) -> bool:
        anywhere = self._rules.unproven == "anywhere"
        here = self._rules.unproven == "loopback" and self._is_local(request)
        return anywhere or here

    def _is_local(self, request: HTTPServerRequest) -> bool:
        return not self._rules.behind and is_local(request)


def csrf_token(session: str) -> str:
    """What a page of ours sends with what it asks for, by the cookie that it was got with."""
    return hmac.new(session.encode(), b"imagepool csrf", hashlib.sha256).hexdigest()


def is_local(request: HTTPServerRequest) -> bool:
    """Whether somebody on this machine asks: not a page of another origin in their browser, nor
    one whose name was made to lead here.
    """
    if not is_loopback(request.remote_ip or "") or _is_relayed(request):
        return False
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    return (host == "localhost" or is_loopback(host)) and not is_foreign(request)


def is_foreign(request: HTTPServerRequest, public_url: str = "") -> bool:
    """Whether a browser says that a page of another origin asks. That somebody follows a link to a
    page of ours is no such thing. `public_url`: what a proxy makes of ours.
    """
    own = [f"{request.protocol}://{request.host}", None]
    if public_url:
        parts = urlsplit(public_url)
        own.append(f"{parts.scheme}://{parts.netloc}")
    if request.headers.get("Origin") not in own:
        return True
    if request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return False
    return request.method not in HARMLESS or request.headers.get("Sec-Fetch-Mode") != "navigate"


def _is_relayed(request: HTTPServerRequest) -> bool:
    """Whether a proxy says that it speaks for somebody else. Not all of them do; one that most have
    is known by how it asks where it was told nothing else: nginx until 1.28.
    """
    given = request.headers
    if any(name in given for name in _RELAYED) or any(n.startswith(_RELAYED_TOO) for n in given):
        return True
    return request.version == "HTTP/1.0" and given.get("Connection", "").lower() == "close"


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
    return replace(caller, owner=owner, by=caller.owner)

"""URLs that others give us: which text is one, and where a redirect may lead.

Narrower than what clients read in the wild, so that nobody after us can read another host in it: a
host is a name in ASCII or an address in its usual form. Where its name leads, and whether we go
there, is `protocol/model/networks.py`'s.
"""

import fnmatch
import re
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn, TypeAlias
from urllib.parse import urljoin

from msgspec import Struct

from protocol.errors import Denied, Invalid

Address: TypeAlias = IPv4Address | IPv6Address

_LIMIT = 8192  # characters
_NAME_LIMIT = 253  # characters of a host's name
_NAMED = "a host's name in ASCII; one in other letters as xn--"
_SHOWN = 80  # characters of a refused URL that are told
_PORTS = {"http": 80, "https": 443}
_SOUND = re.compile(r"[^\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]+")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<host>\[[^\]/?#@]*\]|[^\[\]:/?#@]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>[/?][^#]*)?(?:#.*)?"
)
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # what a last part makes an address of the whole


class WebUrl(Struct, frozen=True):
    """An http or https URL, taken apart once."""

    scheme: str  # "http" or "https"
    host: str  # a name in lower case, or an address without brackets
    port: int
    path: str  # with its query, as given; begins with "/"
    address: Address | None = None  # what the host is, where it is no name

    @property
    def origin(self) -> str:
        """Scheme, host and port in one spelling, as patterns of origins are written."""
        host = f"[{self.host}]" if ":" in self.host else self.host.removesuffix(".")
        return f"{self.scheme}://{host}" + ("" if self._usual else f":{self.port}")

    @property
    def text(self) -> str:
        """The URL without fragment, such that every reader sees the same parts in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self._usual else f":{self.port}") + self.path

    @property
    def _usual(self) -> bool:
        return self.port == _PORTS[self.scheme]


def read_url(text: str, field: str) -> WebUrl:
    """The parts of a URL that somebody gave us. Raises Invalid, naming the field."""
    found = _URL.fullmatch(text) if len(text) <= _LIMIT and _SOUND.fullmatch(text) else None
    if found is None:
        _refuse(text, field, "an http or https URL, without user, spaces and control characters")
    scheme, port = found["scheme"].lower(), int(found["port"] or 1)
    if scheme not in _PORTS or port > 65535:
        _refuse(text, field, "an http or https URL, with a port up to 65535 if any")
    host, address = _host(found["host"], text, field)
    path = found["path"] or "/"
    return WebUrl(
        scheme=scheme,
        host=host,
        port=port if found["port"] else _PORTS[scheme],
        path=path if path.startswith("/") else "/" + path,
        address=address,
    )


def _host(host: str, text: str, field: str) -> tuple[str, Address | None]:
    """The host in one spelling, and as an address where it is one. Raises Invalid."""
    if not host.isascii():  # also what becomes ASCII in lower case
        _refuse(text, field, _NAMED)
    host = host.lower()
    try:
        if host.startswith("["):
            inner = IPv6Address(host[1:-1])
            if inner.scope_id is not None:
                _refuse(text, field, "an address without a zone")
            return str(inner), inner
        if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
            return host, IPv4Address(host)
    except ValueError:
        _refuse(text, field, "an address as four decimal numbers, or IPv6 in brackets")
    if not _NAME.fullmatch(host) or len(host) > _NAME_LIMIT:
        _refuse(text, field, _NAMED)
    return host, None


def _refuse(text: str, field: str, expected: str) -> NoReturn:
    raise Invalid(f"{field} is {_told(text)!r}", field=field, expected=expected)


def _told(text: str) -> str:
    """What may be repeated of it: a password before the host may not."""
    head, slashes, rest = text.partition("//")
    secret, at, host = rest.rpartition("@")
    return (head + slashes + host if slashes and at and secret else text)[:_SHOWN]


def follow(url: WebUrl, location: str, *, plain: bool) -> WebUrl:
    """Where a server's redirect leads. Raises Invalid where that is no URL to follow; unless
    `plain`, also where it leads from https to http.
    """
    if not _SOUND.fullmatch(location):
        _refuse(location, "Location", "a URL, without spaces and control characters")
    try:
        joined = urljoin(url.text, location)
    except ValueError:
        _refuse(location, "Location", "a URL")
    found = read_url(joined, "Location")
    if url.scheme == "https" and found.scheme != "https" and not plain:
        _refuse(location, "Location", "https, as before the redirect")
    return found


def check_redirect(text: str, patterns: tuple[str, ...], field: str) -> None:
    """Whether we send a client's browser there. Raises Invalid, and Denied where its origin is like
    none of the operator's patterns.
    """
    origin = read_url(text, field).origin
    if not any(fnmatch.fnmatchcase(origin, pattern) for pattern in patterns):
        allowed = ", ".join(patterns) or "none"
        raise Denied(
            f"{field} leads to {origin[:_SHOWN]}, which is not allowed here",
            field=field,
            expected=f"a URL whose origin is like one of: {allowed}",
        )


def check_patterns(patterns: tuple[str, ...], field: str) -> None:
    """Raises Invalid for a pattern that no origin can be like."""
    for index, pattern in enumerate(patterns):
        scheme, slashes, rest = pattern.partition("://")
        whole = slashes and any(fnmatch.fnmatchcase(known, scheme) for known in _PORTS)
        if pattern != "*" and (not whole or not rest or "/" in rest or pattern != pattern.lower()):
            where = f"{field}[{index}]"
            raise Invalid(
                f"{where} is {pattern[:_SHOWN]!r}",
                field=where,
                expected="* or an origin, such as https://*.example.org or http://host:8000",
            )

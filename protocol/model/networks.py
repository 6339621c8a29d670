"""Which addresses may be called: the ranges that are told apart, and the operator's word on them.

A setting lists words and networks. Of the ranges that an address lies in, the narrowest decides.
It is opened by its word, or by a network that has the address; a special range only by a network
within it, so that `10.0.0.0/8` opens no address of this machine, and `0.0.0.0/0` no loopback. An
IPv6 address that carries one of IPv4 is judged by both. The ranges are those of IANA's registries
of special-purpose addresses.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

from msgspec import Struct

from protocol.errors import Denied, Invalid
from protocol.model.urls import Address, WebUrl

Network: TypeAlias = IPv4Network | IPv6Network

PUBLIC, PRIVATE, LOOPBACK = "public", "private", "loopback"
LINK_LOCAL, METADATA, OWN = "link-local", "metadata", "own"
WORDS = (PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL, METADATA, OWN)
"""What a setting may list beside networks. `own` is the addresses of this machine that are not
loopback; `metadata` is where clouds tell a machine its secrets.
"""
_RESERVED = "reserved"  # no word opens it
_NEVER = "unspecified or multicast"  # nothing opens it

RANGES: dict[str, tuple[str, ...]] = {
    PUBLIC: ("0.0.0.0/0", "::/0"),
    PRIVATE: ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    LOOPBACK: ("127.0.0.0/8", "::1/128"),
    LINK_LOCAL: ("169.254.0.0/16", "fe80::/10"),
    METADATA: (
        *("169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "fe80::a9fe:a9fe/128"),
        *("fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"),
        *("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    ),
    _RESERVED: (
        *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "::/96", "::ffff:0:0:0/96"),
        *("64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"),
        "fec0::/10",
    ),
    _NEVER: ("0.0.0.0/32", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32"),
}
"""Kind -> its networks; docs/security.md has the same."""
_NARROWEST_FIRST = sorted(
    ((kind, ip_network(text)) for kind, texts in RANGES.items() for text in texts),
    key=lambda item: -item[1].prefixlen,
)
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_ISATAP = (0x5EFE, 0x0200_5EFE)  # bits 64 to 95 of an address that ends in one of IPv4


class Reach(Struct, frozen=True):
    """The addresses that may be called, as one setting has it."""

    setting: str
    words: frozenset[str]
    networks: tuple[Network, ...]

    def refusal(self, address: Address, own: frozenset[Address] = frozenset()) -> str:
        """Why this address is not called, in words; empty where it may be. `own`: the addresses of
        this machine.
        """
        for meant in _meant(address):
            kind, narrowest = _range(meant, own)
            if not self._opens(meant, kind, narrowest):
                return f"its address is {kind}, which the setting {self.setting} does not allow"
        return ""

    def check(self, url: WebUrl, field: str, own: frozenset[Address] = frozenset()) -> None:
        """Raises Denied where the URL's host is an address that is not called; where a name leads,
        nobody knows yet.
        """
        if url.address is not None and (why := self.refusal(url.address, own)):
            listed = ", ".join((*sorted(self.words), *map(str, self.networks))) or "nothing"
            raise Denied(
                f"{url.origin} is not called: {why}",
                field=field,
                expected=f"an address in {self.setting}: {listed}",
            )

    def _opens(self, address: Address, kind: str, narrowest: Network) -> bool:
        if kind == _NEVER:
            return False
        return kind in self.words or any(
            address in network
            and (kind in (PUBLIC, PRIVATE) or network.prefixlen >= narrowest.prefixlen)
            for network in self.networks
        )


def reach(entries: tuple[str, ...], setting: str) -> Reach:
    """What a setting allows. Raises Invalid, naming the entry."""
    words = frozenset(entries) & frozenset(WORDS)
    networks = tuple(
        _network(entry, f"{setting}[{index}]")
        for index, entry in enumerate(entries)
        if entry not in words
    )
    return Reach(setting, words, networks)


def _network(entry: str, field: str) -> Network:
    try:
        return ip_network(entry)
    except ValueError as error:
        expected = f"a network, such as 10.0.0.0/8, or one of: {', '.join(WORDS)}"
        raise Invalid(f"{field} is {entry[:80]!r}", field=field, expected=expected) from error


def _range(address: Address, own: frozenset[Address]) -> tuple[str, Network]:
    """The narrowest range that has the address."""
    found = next((kind, network) for kind, network in _NARROWEST_FIRST if address in network)
    if address in own and found[0] not in (LOOPBACK, _NEVER):
        return OWN, ip_network(address)
    return found


def _meant(address: Address) -> Iterator[Address]:
    """Every address that a connection to this one may end at."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    number = int(address)
    yield IPv6Address(number)  # without its zone
    if address in _NAT64 or number >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield IPv4Address(number & 0xFFFF_FFFF)
    if address in _SIX_TO_FOUR:
        yield IPv4Address(number >> 80 & 0xFFFF_FFFF)

"""What a build with a network reaches, where that is the internet and nothing nearer.

The verdict on a packet that came in by the bridge of the builds is the first rule that fits::

    a name server of the machine, port 53           passes: without names there is no internet
    an address that the operator allows by itself   passes
    this machine, by whichever address              dropped: node, engine, whatever else serves
    a network that the operator allows              passes
    a network that is not the internet (NEARBY)     dropped: LAN, metadata, other builds, multicast
    a network that this machine is itself on        dropped: a LAN may have public addresses
    all else                                        passes

There is no IPv6 on the bridge; what is sent by it all the same is dropped.
"""

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Network

from msgspec import Struct

from protocol.errors import Invalid

NEARBY = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a carrier's NAT; overlays and metadata of some clouds
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, metadata
            "172.16.0.0/12",
            "192.0.0.0/24",  # metadata of some clouds
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/4",  # multicast: mDNS
            "240.0.0.0/4",  # broadcast
        ),
    )
)
"""Networks that are not the internet (the special-purpose registry of IANA, RFC 6890)."""


class Reach(Struct, frozen=True):
    """What differs from machine to machine."""

    allowed: tuple[IPv4Network, ...] = ()  # by the operator
    name_servers: tuple[str, ...] = ()  # IPv4 addresses that the engine asks
    connected: tuple[IPv4Network, ...] = ()  # that the machine is on


def allowed_networks(texts: Iterable[str]) -> tuple[IPv4Network, ...]:
    """Of a setting. Raises Invalid."""
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(IPv4Network(text))
        except ValueError as error:
            field = f"build_networks_allowed[{index}]"
            raise Invalid(
                f"{field} is {text[:80]!r}",
                field=field,
                expected="an IPv4 address or network, such as 192.168.7.0/24",
            ) from error
    return tuple(found)


def rules(reach: Reach) -> tuple[str, ...]:
    """What iptables is to do with a packet from a build, in order, without the chain's name."""
    alone = [network for network in reach.allowed if network.prefixlen == 32]
    wide = [network for network in reach.allowed if network.prefixlen < 32]
    near = [*NEARBY, *(net for net in reach.connected if not any(map(net.subnet_of, NEARBY)))]
    found = (
        *(
            f"-d {server}/32 -p {protocol} --dport 53 -j RETURN"
            for server in reach.name_servers
            for protocol in ("udp", "tcp")
        ),
        *(f"-d {network} -j RETURN" for network in alone),
        "-m addrtype --dst-type LOCAL -j DROP",
        *(f"-d {network} -j RETURN" for network in wide),
        *(f"-d {network} -j DROP" for network in near),
    )
    return tuple(dict.fromkeys(found))


def name_servers(text: str) -> tuple[str, ...]:
    """The IPv4 name servers that a resolv.conf names, those of the machine itself excepted: the
    engine cannot ask them for a container.
    """
    found = []
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest and _is_elsewhere(rest[0]):
            found.append(rest[0])
    return tuple(dict.fromkeys(found))


def _is_elsewhere(text: str) -> bool:
    try:
        return not ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        return False


def connected(table: str) -> tuple[IPv4Network, ...]:
    """The networks that a machine is on, by the text of its /proc/net/route: all that has no
    gateway, a default route excepted.
    """
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[2] != "00000000" or fields[7] == "00000000":
            continue
        address, mask = (_address(field) for field in (fields[1], fields[7]))
        found.append(IPv4Network(f"{address}/{mask}", strict=False))
    return tuple(dict.fromkeys(found))


def _address(text: str) -> ipaddress.IPv4Address:
    """As the kernel writes it there: in hexadecimal digits, the last byte first."""
    return ipaddress.IPv4Address(bytes.fromhex(text)[::-1])

"""Who is found by mDNS, as the program itself would find them, and what keeps them apart."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import ifaddr
from msgspec import Struct

from imagepool.client.finding import SEARCH
from imagepool.doctor.finding import Finding, Subject, fail, in_thread, ok, warn
from imagepool.doctor.sockets import holders
from protocol.errors import Invalid, PoolError
from protocol.model.messages import API_VERSION
from protocol.model.urls import read_url
from protocol.program import mdns
from protocol.program.beacon import SERVICE_TYPE, Beacon, urls
from protocol.program.identity import key_of
from protocol.program.mdns import Mdns
from protocol.program.settings import ProgramSettings, is_loopback
from protocol.trust.certificates import fingerprint
from scheduler.pool.proof import node_reach

_TOLD = 32  # programs that are listed: anybody on a LAN can advertise any number
_GROUP, _PORT = "224.0.0.251", 5353  # RFC 6762
_MULTICAST = 0x1000  # IFF_MULTICAST
_LABELS = SERVICE_TYPE.rstrip(".").encode().split(b".")
_QUESTION = b"".join(
    (
        struct.pack("!6H", 0, 0, 1, 0, 0, 0),
        *(bytes([len(label)]) + label for label in _LABELS),
        struct.pack("!B2H", 0, 12, 1),
    )
)
"""Who offers our service (PTR, IN; RFC 6762)?"""


class Heard(Struct, frozen=True):
    """What was heard, and why nothing could be."""

    beacons: tuple[Beacon, ...] = ()
    problem: Invalid | None = None


class Lan:
    """The LAN's mDNS, listened to once for all who ask. For use on one event loop."""

    def __init__(self, settings: ProgramSettings, search: float = SEARCH) -> None:
        """`search`: seconds."""
        self._settings = settings
        self._search = search
        self._listening: asyncio.Task[Heard] | None = None

    async def heard(self, host: str) -> Heard:
        """The programs that advertise themselves where one speaks mDNS that listens on `host`."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(host))
        return await asyncio.shield(self._listening)

    async def _listen(self, host: str) -> Heard:
        if not self._settings.mdns:
            return Heard()
        try:
            opened = Mdns(self._settings, host)
        except Invalid as error:
            return Heard(problem=error)
        beacons: dict[str, Beacon] = {}

        def gone(program: str) -> None:
            beacons.pop(program, None)

        try:
            opened.browse(lambda beacon: beacons.update({beacon.id: beacon}), gone)
            await asyncio.sleep(self._search)
        finally:
            await opened.close()
        return Heard(tuple(beacons.values()))


async def neighbours(subject: Subject) -> tuple[Finding, ...]:
    """Whether mDNS works here, and who is heard by it."""
    name, settings = "mDNS", subject.settings
    if not settings.mdns:
        return (_switched_off(subject),)
    heard, silent = await asyncio.gather(
        subject.lan.heard(subject.host), in_thread(lambda: tuple(_silent(subject)))
    )
    if heard.problem is not None:
        others = ", ".join(map(str, holders("udp", _PORT)))
        words = heard.problem.detail + (f"; {others} has its port" if others else "")
        return (fail(name, words, "let that share the port (avahi: disallow-other-stacks=no)"),)
    me = _me(subject)
    beacons = [beacon for beacon in heard.beacons if beacon.id != me]
    told = tuple(finding for beacon in beacons if (finding := verdict(subject, beacon)))[:_TOLD]
    wanted = [beacon for beacon in beacons if _is_wanted(subject, beacon)]
    return (*silent, *_summary(subject, beacons, bool(wanted), me in _ids(heard)), *told)


def _ids(heard: Heard) -> set[str]:
    return {beacon.id for beacon in heard.beacons}


def _me(subject: Subject) -> str:
    try:
        return fingerprint(key_of(subject.folder).public_key())
    except (PoolError, OSError):
        return ""


def _is_wanted(subject: Subject, beacon: Beacon) -> bool:
    """A node looks for schedulers, a scheduler for nodes."""
    return subject.is_node == beacon.role.startswith("scheduler")


def _switched_off(subject: Subject) -> Finding:
    named = subject.settings.schedulers if subject.is_node else subject.settings.nodes
    if named or subject.url:
        return ok("mDNS", "switched off; settings name whom to speak to")
    other = "--scheduler" if subject.is_node else "--node"
    return fail("mDNS", "switched off, and nobody is named", f"without --no-mdns, or {other} URL")


def _summary(subject: Subject, beacons: list[Beacon], wanted: bool, own: bool) -> Iterator[Finding]:
    others = [str(one) for one in holders("udp", _PORT) if one.id != os.getpid()]
    beside = f"; beside {', '.join(others)}" if others else ""
    where = ", ".join(map(str, _places(subject))) or "no interface"
    self_heard = ", this program itself too" if own else ""
    words = f"heard {_count(beacons)} on {where}{self_heard}{beside}"
    if wanted or not subject.is_node:
        yield ok("mDNS", words)
        return
    words += "; no scheduler is among them"
    if not subject.wants_pool and is_loopback(subject.host):
        mend = "only this machine is listened to: imagepool doctor --join TOKEN looks further"
        yield warn("mDNS", words, mend)
    elif subject.settings.schedulers or subject.url:
        yield ok("mDNS", words)
    else:
        mend = "--scheduler https://ADDRESS:8081 names it; else let UDP port 5353 through firewalls"
        yield fail("mDNS", words, f"{mend} on both machines, and run both on one LAN")


def _count(beacons: list[Beacon]) -> str:
    return "1 program" if len(beacons) == 1 else f"{len(beacons) or 'no'} programs"


def _places(subject: Subject) -> tuple[str, ...]:
    """IPv4 addresses on which mDNS is spoken."""
    settings = subject.settings
    if settings.mdns_interfaces:
        return tuple(settings.mdns_interfaces)
    if is_loopback(subject.host):
        return ("127.0.0.1",)
    try:
        return tuple(each for each in mdns.addresses(subject.host) if ":" not in each)
    except OSError:
        return ()


def _silent(subject: Subject) -> Iterator[Finding]:
    """Interfaces by which no multicast goes out."""
    for address in _places(subject):
        interface = _interface(address)
        try:
            _send(_QUESTION, address)
        except OSError as error:
            words = f"no multicast goes out by {interface or address}: {error.strerror}"
            mend = f"ip link set dev {interface or 'INTERFACE'} up multicast on"
            if error.errno == errno.EADDRNOTAVAIL:
                mend = "mdns_interfaces in the settings: addresses of this machine"
            yield fail("multicast", words, mend)
            continue
        if interface and address != "127.0.0.1" and not _flags(interface) & _MULTICAST:
            words = f"{interface} ({address}) is not set up for multicast"
            yield warn("multicast", words, f"ip link set dev {interface} multicast on")


def _send(packet: bytes, address: str) -> None:
    """The question for our programs, once. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((address, 0))
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        asking.sendto(packet, (_GROUP, _PORT))


def _interface(address: str) -> str:
    for adapter in ifaddr.get_adapters():
        if any(ip.ip == address for ip in adapter.ips):
            return str(adapter.nice_name)
    return ""


def _flags(interface: str) -> int:
    try:
        return int(Path("/sys/class/net", interface, "flags").read_text(), 16)
    except (OSError, ValueError):
        return _MULTICAST


def verdict(subject: Subject, beacon: Beacon) -> Finding | None:
    """What one program that advertises itself is to ours; None where they have nothing to do with
    each other.
    """
    kind = "scheduler" if beacon.role.startswith("scheduler") else "node"
    name = f"{kind} {beacon.name or beacon.id[:16]}"[:60]
    where = urls(beacon, member=bool(beacon.pool_port))[:1]
    words = f"advertises {where[0] if where else 'no address'}"
    if not _is_wanted(subject, beacon):
        return None
    if beacon.api != API_VERSION:
        words += f", and speaks version {beacon.api} of the API, not {API_VERSION}"
        return warn(name, words, "install the same imagepool on both machines")
    if beacon.pool != subject.settings.pool:
        passed = "it passes this node over" if subject.is_node else "it is passed over"
        words += f", of the pool {beacon.pool!r}, not {subject.settings.pool!r}: {passed}"
        return warn(name, words, f"--pool {beacon.pool}, where they belong together")
    return (
        _scheduler(subject, beacon, name, words)
        if subject.is_node
        else _node(subject, beacon, name, words)
    )


def _scheduler(subject: Subject, beacon: Beacon, name: str, words: str) -> Finding:
    if beacon.pool_port:
        return ok(name, f"{words}, of the pool {beacon.pool_id}")
    if subject.settings.join:
        words += ", and has no place for members: only its own machine reaches it"
        return warn(name, words, "there: imagepool scheduler --listen ADDRESS:8080")
    return ok(name, words)


def _node(subject: Subject, beacon: Beacon, name: str, words: str) -> Finding:
    memberships = subject.memberships
    own = next(iter(memberships.all()), "") if memberships else ""
    settings = subject.settings
    member = bool(beacon.pool_port) and beacon.pool_id == own
    here = all(is_loopback(address) for address in beacon.addresses)
    let_off = settings.unproven == "anywhere" or (settings.unproven == "loopback" and here)
    if not member and not let_off:
        of = f"it is of the pool {beacon.pool_id}" if beacon.pool_id else "it has joined no pool"
        joining = "there: imagepool node --join TOKEN, with what `imagepool invite` prints here"
        return warn(name, f"{words}; it cannot prove who it is: {of}", joining)
    if not member:
        return ok(name, f"{words}; it need not prove who it is")
    refused = _refusal(subject, urls(beacon, member=True))
    if refused:
        return warn(name, f"{words}, and is not called: {refused}", "node_networks in the settings")
    return ok(name, f"{words}; it says that it is a member (`imagepool nodes`: whether it is)")


def _refusal(subject: Subject, places: tuple[str, ...]) -> str:
    """Why a scheduler calls none of these URLs; empty where it does."""
    allowed, refused = node_reach(subject.settings), "it has no address"
    for url in places:
        try:
            allowed.check(read_url(url, "url"), "url")
        except PoolError as error:
            refused = error.detail
        else:
            return ""
    return refused

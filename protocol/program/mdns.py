"""Advertising and finding programs by mDNS: the record of `protocol.program.beacon` on real
sockets.

mDNS only finds. A browser hears nothing when a program that died comes back unchanged, so whether
one lives is asked over HTTP; a goodbye is believed as far as not to call an address any more.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import ifaddr
from zeroconf import InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from protocol.errors import Invalid
from protocol.program import beacon
from protocol.program.beacon import SERVICE_TYPE, Beacon
from protocol.program.settings import ProgramSettings, is_loopback

log = logging.getLogger(__name__)


def _without_trace(record: logging.LogRecord) -> bool:
    """A network that is down is no bug: a line says so."""
    record.exc_info = None
    return True


logging.getLogger("zeroconf").addFilter(_without_trace)

_BRIDGES = ("docker", "br-", "veth", "virbr", "podman", "cni", "lxcbr")
_RESOLVE = 3000  # milliseconds that a found record may take to come whole

_MOST = 4096  # programs of which it is known who said goodbye

Found = Callable[[Beacon], None]
Gone = Callable[[str], None]  # the id that a goodbye was for


def addresses(host: str) -> tuple[str, ...]:
    """The addresses under which others can reach a program that listens on this host: no
    engine's bridges, and of the protocol that it listens with (`::` is bound for IPv6 only).
    """
    if host not in ("0.0.0.0", "::"):
        return (socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][4][0],)  # type: ignore[return-value]
    version = ipaddress.ip_address(host).version
    found = []
    for adapter in ifaddr.get_adapters():
        if adapter.nice_name.startswith(_BRIDGES):
            continue
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_address(text)
            if address.version == version and not (address.is_loopback or address.is_link_local):
                found.append(text)
    return tuple(found)


def interfaces(settings: ProgramSettings, host: str) -> Any:
    """Where to speak mDNS: on the addresses that settings name, else where the program listens;
    on `::` by IPv4 too, for there are programs that speak nothing else.
    """
    if settings.mdns_interfaces:
        return list(settings.mdns_interfaces)
    if is_loopback(host):
        return ["127.0.0.1"]
    if host == "0.0.0.0":
        return InterfaceChoice.All
    if host == "::":
        return [text for text in _own_addresses() if text != "::1"]
    return list(addresses(host))


def _own_addresses() -> list[str]:
    ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    return [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in ips]


class Mdns:
    """This program's mDNS: one set of sockets to advertise and to browse with."""

    def __init__(self, settings: ProgramSettings, host: str) -> None:
        """Open the sockets. Raises Invalid where they cannot be had."""
        try:
            self._zeroconf = AsyncZeroconf(interfaces=interfaces(settings, host))
        except (OSError, RuntimeError) as error:
            raise Invalid(
                f"mDNS is not to be had here: {error}", field="mdns", expected="or --no-mdns"
            ) from error
        self._browser: AsyncServiceBrowser | None = None
        self._advertised = False
        self._ids: dict[str, str] = {}  # instance name -> id
        self._resolving: dict[str, asyncio.Task[None]] = {}  # instance name -> its newest news

    async def advertise(self, record: Beacon) -> None:
        """Announce the record, in place of an earlier one; names are unique by the program's key,
        so that nothing need be probed for first.
        """
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            beacon.instance_name(record),
            port=record.port,
            properties=beacon.properties(record),
            server=beacon.host_name(record),
            parsed_addresses=list(record.addresses),
        )
        if self._advertised:
            await self._zeroconf.async_update_service(info)
        else:
            self._advertised = True
            await self._zeroconf.async_register_service(info, cooperating_responders=True)

    def browse(self, found: Found, gone: Gone) -> None:
        """Begin to tell of programs found and of goodbyes."""

        def changed(
            zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
        ) -> None:
            if (earlier := self._resolving.pop(name, None)) is not None:
                earlier.cancel()
            if state_change is not ServiceStateChange.Removed:
                self._resolving[name] = task = asyncio.ensure_future(self._resolve(name, found))
                task.add_done_callback(partial(self._resolved, name))
            elif identity := self._ids.pop(name, ""):
                gone(identity)

        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[changed]
        )

    def _resolved(self, name: str, task: asyncio.Task[None]) -> None:
        if self._resolving.get(name) is task:
            del self._resolving[name]

    async def _resolve(self, name: str, found: Found) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if not await info.async_request(self._zeroconf.zeroconf, _RESOLVE):
            log.info("mDNS: %s was announced and does not resolve", name[:100])
            return
        text = tuple(info.parsed_scoped_addresses())
        record = beacon.read(info.properties, info.port, text)
        if record is None:
            log.info("mDNS: %s makes no sense", name[:100])
            return
        self._ids.pop(name, None)  # the newest stands last
        self._ids[name] = record.id
        if len(self._ids) > _MOST:
            del self._ids[next(iter(self._ids))]
        found(record)

    async def close(self) -> None:
        """Say goodbye and close the sockets."""
        for task in self._resolving.values():
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
        await self._zeroconf.async_unregister_all_services()
        await self._zeroconf.async_close()

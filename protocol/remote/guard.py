"""Connecting to places that others named, and to none that the operator did not allow.

A name is looked up once for a connection; of its addresses those that may be called are kept, and
connections are made to these as they are: who answers the next look-up with another address gets
nothing. Each address is looked at once more when its socket is made, however it came there.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, Self, TypeAlias

import aiohttp
import ifaddr
from aiohttp.abc import AbstractResolver, ResolveResult

from protocol.model.networks import Reach
from protocol.model.urls import Address, WebUrl, read_url

_LOOKUPS = 16  # threads

SocketFactory: TypeAlias = Callable[[aiohttp.AddrInfoType], socket.socket]
LookUp: TypeAlias = Callable[[str, int, int], list[tuple[int, int, str]]]
"""Family, protocol and address of each address of a name, for a port and a family. Raises OSError.
Runs in a thread.
"""


class Refused(OSError):
    """No connection is made to such an address."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.EACCES, words)


def own_addresses() -> frozenset[Address]:
    """Those of this machine, now."""
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return frozenset(
        ip_address((ip if isinstance(ip, str) else ip[0]).partition("%")[0]) for ip in ips
    )


def plain_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for an address, with nothing set."""
    family, kind, protocol, *_ = address
    return socket.socket(family, kind, protocol)


def looked_up(host: str, port: int, family: int) -> list[tuple[int, int, str]]:
    """The system's answer."""
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    plain = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return [
        (kind, protocol, socket.getnameinfo(address, plain)[0])
        for kind, _, protocol, _, address in found
    ]


class Guard(AbstractResolver):
    """What may be called, kept. For use on one event loop; names are looked up in threads of its
    own, so that a slow name server holds up nothing else.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        own: Callable[[], frozenset[Address]] = own_addresses,
        look_up: LookUp = looked_up,
    ) -> None:
        """`own`: this machine's addresses, which are a range of their own."""
        self._reach = reach
        self._own = own
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(_LOOKUPS, "look-up")

    def connector(
        self, *, socket_factory: SocketFactory = plain_socket, **options: Any
    ) -> aiohttp.TCPConnector:
        """Connections to what may be called, and to nothing else; `socket_factory` makes the
        sockets. Closing it does not close the guard.
        """

        def made(address: aiohttp.AddrInfoType) -> socket.socket:
            self._check_address(address[4][0])
            return socket_factory(address)

        return aiohttp.TCPConnector(resolver=self, socket_factory=made, **options)

    def check(self, text: str, field: str) -> WebUrl:
        """The parts of a URL that may be called as far as can be seen without a look-up. Raises
        Invalid, and Denied where its host is an address that may not be called.
        """
        url = read_url(text, field)
        self._reach.check(url, field, self._own())
        return url

    async def addresses(self, url: WebUrl) -> tuple[str, ...]:
        """Where a connection to this URL would be made. Raises Refused where nowhere, OSError
        where the name is not known.
        """
        if url.address is not None:
            self._check_address(str(url.address))
            return (str(url.address),)
        return tuple(found["host"] for found in await self.resolve(url.host, url.port))

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Called by aiohttp. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._look_up, host, port, family)
        own = self._own()
        refusals = [self._reach.refusal(ip_address(address), own) for _, _, address in found]
        if found and all(refusals):
            raise Refused(refusals[0])
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for (kind, protocol, address), refusal in zip(found, refusals, strict=True)
            if not refusal
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *of: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Look nothing up any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_address(self, text: str) -> None:
        if why := self._reach.refusal(ip_address(text), self._own()):
            raise Refused(why)

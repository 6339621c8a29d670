"""An engine and nodes on a machine of a test's own, and the world around that: network namespaces
without a way out of them.

The machine is 192.168.77.1. One other namespace is all that it can see: a host of its LAN
(192.168.77.9) that also answers for the LAN's name server (.53), for the address where clouds have
their metadata, and for a host of the internet.
"""

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from msgspec.structs import replace

from protocol.model.build import Build
from protocol.model.recipe import ImageBase
from protocol.model.request import BuildRequest, Needs
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.programs import ended, log_of, request
from tests.system.namespaces import STEP, Inside, a_prefix, ip, script_in, sweep
from tests.system.private_engine import PrivateEngine
from tests.system.processes import Process

T = TypeVar("T")

MACHINE, LAN, NAMES = "192.168.77.1", "192.168.77.9", "192.168.77.53"
METADATA, INTERNET = "169.254.169.254", "203.0.113.80"
NAME = "internet.test"
_LOOK = 0.1  # seconds between asking a node how it is


class Site:
    """See the module. Made by `a_site`."""

    def __init__(self, folder: Path, prefix: str, engine: PrivateEngine) -> None:
        self.folder = folder
        self.engine = engine
        self.namespace = f"{prefix}-machine"
        self._world = f"{prefix}-world"
        self._resolver = folder / "resolv.conf"
        self._resolver.write_text(f"nameserver {NAMES}\n")
        self._ending = contextlib.ExitStack()

    def open(self) -> None:
        """Cables, addresses, and who answers there; the engine."""
        keeper = self.engine.keeper
        run("ip", "netns", "attach", self.namespace, str(keeper))
        mount = ["mount", "--bind", str(self._resolver), "/etc/resolv.conf"]
        run("nsenter", "--target", str(keeper), "--mount", *mount)
        ip(f"netns add {self._world}")
        ip(f"link add eth0 type veth peer name eth0 netns {self._world}", namespace=self.namespace)
        ip(
            "link set lo up",
            *(f"address add {address} dev eth0" for address in (f"{LAN}/24", f"{NAMES}/32")),
            *(f"address add {address}/32 dev eth0" for address in (METADATA, INTERNET)),
            "link set eth0 up",
            namespace=self._world,
        )
        ip(
            "link set lo up",
            f"address add {MACHINE}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {LAN}",
            namespace=self.namespace,
        )
        self.inside = Inside(self.namespace)
        self._ending.callback(self.inside.close)
        world = Inside(self._world)
        self._ending.callback(world.close)
        servers = world.run(_serve(), STEP)
        self._ending.callback(lambda: world.run(_closed(servers), STEP))
        self.engine.start()

    def close(self) -> None:
        """Nodes and servers; the namespaces go with the prefix."""
        self._ending.close()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = STEP) -> T:
        """The result of a coroutine whose sockets are on the machine."""
        return self.inside.run(work, seconds)

    def script(self, text: str) -> None:
        """Run by the machine's root."""
        script_in(self.namespace, text)

    @contextlib.contextmanager
    def node(
        self, name: str, *, through: tuple[str, ...] = (), **settings: Any
    ) -> Iterator["Node"]:
        """A node beside the engine; `through`: what its arguments are given to."""
        node = Node(self, name, through, settings)
        try:
            yield node
        finally:
            node.close()

    def wrapped(self, through: tuple[str, ...], *arguments: str) -> list[str]:
        """What runs this on the machine, with its name server."""
        mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        inner = ["unshare", "--mount", "sh", "-c", mount, str(self._resolver)]
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *inner, *through, *arguments]


class Node:
    """A running `imagepool node` on all addresses of the machine."""

    def __init__(
        self, site: Site, name: str, through: tuple[str, ...], settings: Mapping[str, Any]
    ) -> None:
        self._site = site
        chosen = {"mdns": False, "disk_reserve": 0, "drain_limit": 0, "engine_check": 0.5}
        chosen |= {"anonymous": "viewer", "build_network": "internet", **settings}
        environment = {f"IMAGEPOOL_{key.upper()}": str(value) for key, value in chosen.items()}
        command = [sys.executable, "-m", "imagepool", "node", "--listen", "0.0.0.0:0"]
        self.process = Process(
            name,
            site.wrapped(through, *command, "--data", str(site.folder / name)),
            environment={**environment, "DOCKER_HOST": site.engine.socket},
        )
        match, _ = self.process.line(r"ready http://\S+:(\d+)")
        self.port = int(match[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """SIGTERM; it must end well."""
        self.process.end()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        return self._site.run(_got(self.url + path))

    def built(
        self, image: str, *texts: str, seconds: float = 90.0, **how: Any
    ) -> tuple[Build, str]:
        """A build of these scripts that has ended, and its log; the node answered all the while
        within a second.
        """
        return self.asked(in_image(image, *texts, **how), seconds)

    def do(self, work: Callable[[HttpService], Coroutine[Any, Any, T]], seconds: float = 120) -> T:
        """The result of something done with its build service."""

        async def done() -> T:
            client = HttpService(self.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return self._site.run(done(), seconds)

    def asked(self, wanted: BuildRequest, seconds: float = 90.0) -> tuple[Build, str]:
        """As `built`."""

        async def asked(client: HttpService) -> tuple[Build, str]:
            slowest = 0.0
            build = await client.submit(LOCAL, wanted)
            waiting = asyncio.create_task(ended(client, build.id, seconds))
            while not waiting.done():
                begun = time.monotonic()
                status, _ = await _got(f"{self.url}/status")
                slowest = max(slowest, time.monotonic() - begun)
                assert status == 200
                await asyncio.wait({waiting}, timeout=_LOOK)
            build = await waiting
            assert slowest < 1, f"GET /status took {slowest:.2f} s"
            return build, (await log_of(client, build.id)).decode("utf-8", "replace")

        return self.do(asked, seconds + STEP)


def in_image(image: str, *texts: str, **how: Any) -> BuildRequest:
    """A build of these shell scripts in an image."""
    asked = request(*(f"#!/bin/sh\n{text}" for text in texts), **how)
    return replace(asked, recipe=replace(asked.recipe, base=ImageBase(image)))


def needs(**wanted: Any) -> Needs:
    """With a network, unless it says otherwise."""
    return Needs(**{"time_limit": 60.0, **wanted})


@contextlib.contextmanager
def a_site(folder: Path) -> Iterator[Site]:
    """Everything, and nothing of it afterwards."""
    assert os.geteuid() == 0, "namespaces take root: run `make test`"
    sweep()
    place = folder / "e"
    place.mkdir()
    with a_prefix() as prefix:
        engine = PrivateEngine(place, live_restore=True, networks=True)
        site = Site(folder, prefix, engine)
        try:
            site.open()
            yield site
        finally:
            site.close()
            engine.close()


def run(*arguments: str) -> str:
    """What a short command prints; it must end well."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=STEP, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


async def _got(url: str) -> tuple[int, Any]:
    timeout = aiohttp.ClientTimeout(10)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
        return answer.status, await answer.json()


# The world


async def _serve() -> list[Any]:
    """HTTP at every address of the world, names at one."""
    http = await asyncio.start_server(_answer, "0.0.0.0", 80)
    loop = asyncio.get_running_loop()
    names, _ = await loop.create_datagram_endpoint(_Names, (NAMES, 53))
    return [http, names]


async def _closed(servers: list[Any]) -> None:
    for server in servers:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.read(4096)
        host = writer.get_extra_info("sockname")[0]
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{host}\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


class _Names(asyncio.DatagramProtocol):
    """Answers every question for an address with that of the internet's host."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        end = data.index(b"\0", 12) + 5
        question = data[12:end]
        asks_address = question[-4:] == b"\0\1\0\1"
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, int(asks_address), 0, 0)
        numbers = bytes(map(int, INTERNET.split(".")))
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + numbers
        self._transport.sendto(head + question + (answer if asks_address else b""), address)

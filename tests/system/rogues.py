"""What somebody on the LAN can do who is not of the pool: say things by mDNS, pass on what others
say, listen to the switch; and a build that has something of everything that they are not to read.
"""

import base64
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace
from zeroconf import InterfaceChoice
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from protocol.model.build import Build, State
from protocol.model.recipe import InputFile, PathsOutput, UploadedContent
from protocol.ports.service import LOCAL
from protocol.program import beacon
from protocol.program.beacon import SERVICE_TYPE, Beacon
from tests import leaks
from tests.programs import log_of, request
from tests.streams import Given
from tests.system.lan import Host, Lan
from tests.system.pool import Scheduler
from tests.system.processes import Process
from tests.trust.wire import Wire

_SIZE = 20_000
"""Bytes of an input and of an artifact: more than a packet."""
_LAST = 20.0  # seconds that the capture has to catch up
_LOOK = 0.1  # seconds between looks at its file
_SLICE = 24
"""Bytes that are searched for, at several places: one of them is in one packet."""


class Treasure(Struct, frozen=True):
    """What a build had, by what it is."""

    build: Build
    secret: bytes
    input: bytes
    log: bytes
    artifact: bytes

    def seen_in(self, data: bytes) -> set[str]:
        """What of it stands there, as it is or in base64."""
        return {
            name
            for name in ("secret", "input", "log", "artifact")
            if any(form in data for form in _forms(getattr(self, name)))
        }


def _forms(whole: bytes) -> Iterator[bytes]:
    places = range(0, max(1, len(whole) - _SLICE), 700)
    for part in (whole[place : place + _SLICE] for place in places):
        yield part
        yield base64.b64encode(part).rstrip(b"=")[:-1]


@contextmanager
def captured(lan: Lan, file: Path) -> Iterator[None]:
    """All that crosses the switch meanwhile is in the file afterwards: what was sent last, a word
    of ours, is waited for.
    """
    command = ["tcpdump", "-i", "switch", "-U", "-w", str(file), "-s", "0", "--immediate-mode"]
    command += ["-B", "16384"]  # KiB: nothing is dropped
    tcpdump = Process("tcpdump", ["ip", "netns", "exec", lan.switch, *command])
    tcpdump.line(r".*listening on switch.*")
    try:
        yield
        word = secrets.token_bytes(16)
        lan["control"].call(partial(_sent, word, lan["anvil"].address))
        deadline = time.monotonic() + _LAST
        while word not in file.read_bytes():
            assert time.monotonic() < deadline, "the capture did not come to its end"
            time.sleep(_LOOK)
    finally:
        tcpdump.end()


def _sent(word: bytes, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(word, (address, 9))


def treasure(scheduler: Scheduler) -> Treasure:
    """A build with a secret, an input and a log of their own, and what it made, asked for on the
    scheduler's own machine.
    """
    return scheduler.host.run(_treasure(scheduler), 60)


async def _treasure(scheduler: Scheduler) -> Treasure:
    client = scheduler.client
    secret, word = secrets.token_hex(16), secrets.token_hex(16)
    leaks.used(secret, "build secret")
    given = secrets.token_bytes(_SIZE)
    digest = await client.upload(LOCAL, Given(given), size=len(given))
    asked = request(f"print {word}", f"file /a/x.iso {_SIZE}", output=PathsOutput(("/a/*.iso",)))
    file = InputFile("given.bin", UploadedContent(digest))
    asked = replace(asked, recipe=replace(asked.recipe, inputs=(file,)), secrets=("password",))
    build = await client.submit(LOCAL, asked, secrets={"password": secret})
    while build.state is not State.STOPPED:
        build = await client.get(LOCAL, build.id, after=build.revision, wait=5)
    log = await log_of(client, build.id)
    assert word.encode() in log, build
    (made,) = build.artifacts
    opened = await client.open_artifact(LOCAL, build.id, made.name)
    artifact = b"".join([piece async for piece in opened.stream])
    assert len(artifact) == _SIZE
    return Treasure(build, secret.encode(), given, word.encode(), artifact)


def advertise(host: Host, record: Beacon, instance: str) -> None:
    """Say this by mDNS, from that machine, until it is taken away."""

    async def begin() -> None:
        said = AsyncZeroconf(interfaces=InterfaceChoice.All)
        host.at_close(said.async_close)
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            f"{instance}.{SERVICE_TYPE}",
            port=record.port,
            properties=beacon.properties(record),
            server=f"{instance}.local.",
            parsed_addresses=list(record.addresses),
        )
        await said.async_register_service(info)

    host.run(begin())


def relay(host: Host, there: Host, port: int) -> Wire:
    """A wire on that machine to a port of another one."""
    wire = Wire(host.address, 0, there.address, port)
    host.at_close(wire.close)
    host.run(wire.open())
    return wire

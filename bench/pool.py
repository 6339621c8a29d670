"""A scheduler and a node that speak the pool's TLS with each other, and the same two without."""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from msgspec import Struct

from bench.processes import Running, free_slot, program
from protocol.remote.client import HttpService
from protocol.trust.certificates import NODE, server_name
from protocol.trust.membership import FOLDER


class Two(Struct, frozen=True):
    """They serve."""

    scheduler: Running
    node: Running
    called: str  # URL where the scheduler calls the node
    gate: str = ""  # URL where the node calls the scheduler, if by TLS


class Papers(Struct, frozen=True):
    """What a program other than ours calls a node of the pool with."""

    authorities: Path
    certificate: Path  # of the scheduler, and behind it its key
    name: str  # what must stand in the node's certificate


@contextlib.asynccontextmanager
async def two(
    folder: Path, *, tls: bool, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Two]:
    """Both, each a process, while the context lasts; the node plays scripts. `environment`: the
    scheduler's settings.
    """
    folder.mkdir()
    async with contextlib.AsyncExitStack() as ending:
        if not tls:
            node = await ending.enter_async_context(program(folder, "node", "--engine", "dummy"))
            scheduler = await ending.enter_async_context(
                program(folder, "scheduler", "--node", node.url, environment=environment)
            )
            pool = Two(scheduler, node, node.url)
        else:
            gate, at = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            scheduler = await ending.enter_async_context(
                program(folder, "scheduler", "--pool-listen", gate, environment=environment)
            )
            flags = ("--join", await token(scheduler.url), "--scheduler", f"https://{gate}")
            node = await ending.enter_async_context(
                program(folder, "node", "--engine", "dummy", "--pool-listen", at, *flags)
            )
            pool = Two(scheduler, node, f"https://{at}", f"https://{gate}")
        client = HttpService(scheduler.url)
        try:
            await free_slot(client)
        finally:
            await client.close()
        yield pool


async def token(scheduler: str) -> str:
    """The join token of the scheduler's pool."""
    client = HttpService(scheduler)
    try:
        return (await client.invitation()).token
    finally:
        await client.close()


def papers(folder: Path) -> Papers:
    """Those of the pool whose scheduler has its data below this folder. Blocking."""
    data = folder / "scheduler"
    (place,) = (data / FOLDER).iterdir()
    certificate = folder / "certificate-and-key.pem"
    certificate.touch(mode=0o600)
    certificate.write_bytes(
        (place / "certificate.pem").read_bytes() + (data / "key.pem").read_bytes()
    )
    return Papers(place / "authorities.pem", certificate, server_name(NODE, place.name))


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

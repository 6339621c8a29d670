"""What running as a program takes, the same for node and scheduler: sockets, signals, the ready
line, a clean end.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable

from tornado import netutil, web

from protocol.errors import Invalid
from protocol.program.doorway import Doorway
from protocol.program.settings import ProgramSettings, host_and_port, is_loopback

log = logging.getLogger(__name__)


BACKLOG = 4096
"""Connections that may wait to be accepted; one that finds no room tries again a second later."""


class Listener:
    """The sockets of a program, and the URL by which it is reached."""

    def __init__(self, settings: ProgramSettings) -> None:
        """Bind. Raises Invalid where the address cannot be had."""
        self.host, port = host_and_port(settings.listen)
        try:
            self.sockets = netutil.bind_sockets(port, self.host, backlog=BACKLOG)
        except OSError as error:
            raise Invalid(
                f"cannot listen on {settings.listen}: {error.strerror or error}",
                field="listen",
                expected="a free address of this machine",
            ) from error
        self.port: int = self.sockets[0].getsockname()[1]
        if not is_loopback(self.host):
            log.warning("serving on %s: whoever reaches this address may use it", settings.listen)

    @property
    def url(self) -> str:
        """The URL as somebody on this machine says it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def serve(self, application: web.Application, settings: ProgramSettings) -> Doorway:
        """Begin to answer."""
        server = Doorway(application, limits=settings)
        server.add_sockets(self.sockets)
        return server


async def until_told(stop: asyncio.Event) -> None:
    """Wait for SIGTERM or SIGINT, or for `stop`. A second signal ends the program at once."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, _told, stop)
    await stop.wait()


def _told(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)  # at once: a thread may wait for an engine, and requests for their answers
    stop.set()


def announce_ready(url: str) -> None:
    """The one line on standard output by which scripts know that the program serves."""
    print(f"ready {url}", flush=True)


def reachable_from(url_host: str) -> str:
    """Our address on the way to a host: what it can call us by. Sends nothing."""
    family, _, _, _, address = socket.getaddrinfo(url_host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


Ready = Callable[[str], None]
"""Called with the program's URL when it serves."""

"""What running as a program takes, the same for node and scheduler: sockets, signals, the ready
line, a clean end.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable

from tornado import netutil, web

from protocol.errors import Invalid
from protocol.program.doorway import Doorway
from protocol.program.settings import ProgramSettings, host_and_port

log = logging.getLogger(__name__)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whoever knocks without a certificate that fits is told so; it is no news here."""
    return not str(record.msg).startswith("SSL Error")


logging.getLogger("tornado.general").addFilter(_is_worth_a_line)

BACKLOG = 4096
"""Connections that may wait to be accepted; one that finds no room tries again a second later."""


class Listener:
    """The sockets of a program, and the URL by which it is reached."""

    def __init__(
        self,
        settings: ProgramSettings,
        listen: str = "",
        context: ssl.SSLContext | None = None,
        field: str = "",
    ) -> None:
        """Bind, where clients are served; with `context` at `listen`, where the pool is; `field`:
        the setting that says where, if it is another one. Raises Invalid where the address cannot
        be had.
        """
        field, self._context = field or ("pool_listen" if context else "listen"), context
        listen = listen or settings.listen
        self.host, port = host_and_port(listen, field)
        try:
            self.sockets = netutil.bind_sockets(port, self.host, backlog=BACKLOG)
        except OSError as error:
            raise Invalid(
                f"cannot listen on {listen}: {error.strerror or error}",
                field=field,
                expected="a free address of this machine",
            ) from error
        self.port: int = self.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """The URL as somebody on this machine says it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return self.url_at(host)

    def url_at(self, host: str) -> str:
        """The URL as somebody says it who knows us by this address."""
        scheme = "https" if self._context else "http"
        named = f"[{host}]" if ":" in host else host
        return f"{scheme}://{named}:{self.port}"

    def serve(self, application: web.Application, settings: ProgramSettings) -> Doorway:
        """Begin to answer."""
        server = Doorway(application, limits=settings, ssl_options=self._context)
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


def announce_joined(pool: str, url: str, priority: int) -> None:
    """The line that tells who pasted a join token that it was good."""
    print(f"joined {pool} at {url}, priority {priority}", flush=True)


def reachable_from(url_host: str) -> str:
    """Our address on the way to a host: what it can call us by. Sends nothing."""
    family, _, _, _, address = socket.getaddrinfo(url_host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


Ready = Callable[[str], None]
"""Called with the program's URL when it serves."""

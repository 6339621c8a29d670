"""Who may stay connected, and for how long: what keeps a listener answering while others flood it.

A connection waits for a header, has its body arrive, or is answered. One that waits can be closed
at any time; so where an address, or all together, have as many connections as they may, the one
that has waited longest makes room for the newcomer. A header must be whole soon after it has begun,
and a body must not stand still.
"""

import logging
import resource
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any

from tornado import httputil, ioloop, iostream, web
from tornado.httpserver import HTTPServer

from protocol import wire
from protocol.api.problems import problem
from protocol.api.route import ApiSettings
from protocol.errors import PoolError

log = logging.getLogger(__name__)

IDLE = 120
"""Seconds after which an idle client connection is closed; longer than our own client keeps one."""
_LOOK = 1.0  # seconds between looks at what takes too long
_SAY = 60.0  # seconds between two words about it
_TCP_INFO, _RECEIVED = 136, 128  # bytes of the kernel's `struct tcp_info`, and where that count is


class _Visit:
    """One connection."""

    def __init__(self, stream: iostream.IOStream, address: str, now: float) -> None:
        self.stream = stream
        self.address = address
        self.header: float | None = now  # since when a header arrives
        self.body: float | None = None  # since when nothing of a body came
        self.received = 0  # bytes, when it began to wait

    def heard(self) -> int:
        """Bytes that it ever sent."""
        if self.stream.closed():
            return 0
        information = self.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO)
        return int(struct.unpack_from("Q", information, _RECEIVED)[0])


class Doorway(HTTPServer):
    """An HTTP server with limits on connections, headers and URLs."""

    def initialize(  # type: ignore[override]
        self, application: web.Application, **options: Any
    ) -> None:
        """`limits`: the settings; `now`: a clock, for tests; the rest as HTTPServer has it."""
        self._limits: ApiSettings = options.pop("limits")
        self._now: Callable[[], float] = options.pop("now", time.monotonic)
        super().initialize(
            application,
            idle_connection_timeout=IDLE,
            max_header_size=self._limits.header_limit,
            max_body_size=self._limits.body_limit,
            xheaders=False,
            **options,
        )
        self.most = room_for(self._limits.connections)
        self.visits: dict[iostream.IOStream, _Visit] = {}
        self._waiting: dict[str, dict[_Visit, None]] = {}  # by address, the longest waiting first
        self._counts: dict[str, int] = {}  # connections by address
        self._said = -_SAY
        self._looking = ioloop.PeriodicCallback(self.look, _LOOK * 1000)

    def add_sockets(self, sockets: Any) -> None:
        """Begin to accept."""
        super().add_sockets(sockets)
        self._looking.start()

    def stop(self) -> None:
        """Accept no more."""
        self._looking.stop()
        super().stop()

    def handle_stream(self, stream: iostream.IOStream, address: tuple[Any, ...]) -> None:
        """Called by Tornado for each connection."""
        who = _address_of(address)
        if not self._room_for(who):
            stream.close()
            return
        stream.read_until_regex = self._counting(stream)  # type: ignore[method-assign]
        visit = _Visit(stream, who, self._now())
        self.visits[stream] = visit
        self._counts[who] = self._counts.get(who, 0) + 1
        self._waiting.setdefault(who, {})[visit] = None
        super().handle_stream(stream, address)

    def start_request(
        self, server_conn: Any, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        """Called by Tornado when a connection begins to wait for a header."""
        inner = super().start_request(server_conn, request_conn)
        visit = self.visits.get(server_conn.stream)
        if visit is None:  # closed meanwhile
            return inner
        if visit.header is None:  # not the first one: it may be silent for a while
            visit.received = visit.heard()
        self._waiting.setdefault(visit.address, {})[visit] = None
        return _Request(inner, request_conn, self, visit)

    def on_close(self, server_conn: Any) -> None:
        """Called by Tornado when a connection has ended, or has been given away."""
        super().on_close(server_conn)
        visit = self.visits.pop(server_conn.stream, None)
        if visit is not None:
            self.waits_no_more(visit)
            self._counts[visit.address] -= 1
            if not self._counts[visit.address]:
                del self._counts[visit.address]

    def waits_no_more(self, visit: _Visit) -> None:
        """Its header is there."""
        waiting = self._waiting.get(visit.address, {})
        waiting.pop(visit, None)
        if not waiting:
            self._waiting.pop(visit.address, None)
        visit.header = None

    def moved(self, visit: _Visit) -> None:
        """Something of its body came, or is to come."""
        visit.body = self._now()

    def refusal(self, target: str) -> tuple[int, PoolError] | None:
        """Why a header is not gone into, with the HTTP status."""
        limit = self._limits.url_limit
        if len(target) <= limit:
            return None
        expected = f"at most {limit} bytes"
        return 414, PoolError("the URL is too long", field="URL", expected=expected)

    def look(self) -> None:
        """Close what takes too long. Called from time to time."""
        now, limits = self._now(), self._limits
        for visit in list(self.visits.values()):
            if visit.body is not None:
                late = now - visit.body > limits.body_pause
            elif visit.header is not None:
                late = now - visit.header > limits.header_time
            else:
                late = False
                if visit in self._waiting.get(visit.address, ()):
                    visit.header = now if visit.heard() > visit.received else None
            if late:
                visit.stream.close()

    def _counting(self, stream: iostream.IOStream) -> Callable[..., Awaitable[bytes]]:
        """How Tornado reads a header there: one of too many lines is refused before it is taken
        apart, which takes a thousand times as long as to count them.
        """
        read, limit = stream.read_until_regex, self._limits.header_count

        async def counted(*pattern: Any, **options: Any) -> bytes:
            head = await read(*pattern, **options)
            if head.count(b"\n") - 2 <= limit:  # without the request's line and the empty one
                return head
            expected = f"at most {limit} headers"
            error = PoolError("there are too many headers", field="headers", expected=expected)
            said, body = _told(431, error)
            fields = "".join(f"{name}: {value}\r\n" for name, value in said.items())
            line = "HTTP/1.1 431 Request Header Fields Too Large\r\n"
            await stream.write(f"{line}{fields}\r\n".encode() + body)
            stream.close()
            raise iostream.StreamClosedError

        return counted

    def _room_for(self, who: str) -> bool:
        """Whether another connection fits in, once the longest waiting has been closed."""
        if self._counts.get(who, 0) >= self._limits.connections_per_address:
            crowd = who
        elif len(self.visits) >= self.most:
            crowd = max(self._waiting, key=lambda each: self._counts[each], default=who)
        else:
            return True
        if self._now() - self._said >= _SAY:
            self._said = self._now()
            log.warning("%s has %d connections: idle ones make room", crowd, self._counts[crowd])
        waiting = self._waiting.get(crowd)
        if not waiting:
            return False
        visit = next(iter(waiting))
        self.waits_no_more(visit)
        visit.stream.close()
        return True


class _Request(httputil.HTTPMessageDelegate):
    """A request on its way to whom it is for; told by Tornado what has arrived."""

    def __init__(
        self,
        inner: httputil.HTTPMessageDelegate,
        connection: httputil.HTTPConnection,
        door: Doorway,
        visit: _Visit,
    ) -> None:
        self._inner: httputil.HTTPMessageDelegate | None = inner
        self._connection = connection
        self._door = door
        self._visit = visit

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Any:
        """The header is whole."""
        self._door.waits_no_more(self._visit)
        self._door.moved(self._visit)
        refused = self._door.refusal(start_line.path)
        if refused is None:
            assert self._inner is not None
            return self._inner.headers_received(start_line, headers)
        self._inner = None
        status, error = refused
        said, body = _told(status, error)
        line = httputil.ResponseStartLine("HTTP/1.1", status, "Refused")
        self._connection.write_headers(line, httputil.HTTPHeaders(said), body)
        self._connection.finish()
        return None

    def data_received(self, chunk: bytes) -> Any:
        """A piece of the body; what takes it may take its time."""
        taken = self._inner.data_received(chunk) if self._inner is not None else None
        if taken is None:
            self._door.moved(self._visit)
            return None
        self._visit.body = None
        return self._taken(taken)

    async def _taken(self, taking: Awaitable[None]) -> None:
        await taking
        self._door.moved(self._visit)

    def finish(self) -> None:
        """The body is whole."""
        self._visit.body = None
        if self._inner is not None:
            self._inner.finish()

    def on_connection_close(self) -> None:
        """There will be no more of it."""
        self._visit.body = None
        if self._inner is not None:
            self._inner.on_connection_close()


def room_for(connections: int) -> int:
    """How many connections of that many this process can have: as many files again are for what is
    served. The limit on open files is raised as far as it may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(2 * connections, hard) if hard != resource.RLIM_INFINITY else 2 * connections
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, soft - soft // 4)


def _address_of(address: tuple[Any, ...]) -> str:
    """Whom a connection is counted for: an address, or what somebody has of IPv6, a /64."""
    host = str(address[0]).partition("%")[0] if address else ""
    return str(ip_network(f"{host}/64", strict=False)) if ":" in host else host


def _told(status: int, error: PoolError) -> tuple[dict[str, str], bytes]:
    """Headers and body of a refusal."""
    body = wire.encode(problem(status, error))
    return {"Content-Type": wire.PROBLEM, "Content-Length": str(len(body))}, body

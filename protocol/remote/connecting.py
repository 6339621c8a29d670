"""Connections to other programs: how they are made and proven, and what it means when one fails."""

import socket
import ssl
from collections.abc import Callable, Mapping

import aiohttp
from msgspec import Struct

from protocol.errors import Unavailable, Unproven, Unreachable

CONNECT = 2.0
"""Seconds that a connection may take; less than a scheduler's patience, to know which it was."""
_PIECE = 1 << 20
_SHOWN = 200  # characters of a foreign error that are told
_ALIVE = {
    "TCP_KEEPIDLE": 5,  # seconds of silence after which the other machine is asked whether it lives
    "TCP_KEEPINTVL": 5,  # seconds between such questions
    "TCP_KEEPCNT": 3,  # of them may stay unanswered: a machine that lost its power says nothing
    "TCP_USER_TIMEOUT": 5000,  # milliseconds after which what was sent into a gap is dropped, not
    # delivered when the gap has closed and nobody waits for it any more
}


class Secured(Struct, frozen=True):
    """How it is made sure who answers, by TLS."""

    context: Callable[[], ssl.SSLContext]  # of connections that are made from now on
    name: str  # what must stand in the other side's certificate


def session(
    connector: aiohttp.TCPConnector,
    headers: Mapping[str, str] = {},
    *,
    silence: float | None = None,
) -> aiohttp.ClientSession:
    """Connections to a program or server: its bytes as they come, no cookies, no proxies; at most
    `silence` seconds between two pieces of an answer.
    """
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=CONNECT, sock_connect=CONNECT, sock_read=silence
        ),
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=_PIECE,
        trust_env=False,
    )


def unavailable(url: str, error: BaseException) -> Unavailable:
    """What an error on the way to `url` is: Unreachable where nothing can have been heard."""
    if isinstance(error, aiohttp.ClientResponseError):
        return foreign(f"{url} speaks no HTTP that is understood here")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return Unproven(f"what answers at {url} does not prove to be of this pool: {_why(error)}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unreachable(f"{url} cannot be reached: no connection in {CONNECT:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unreachable(f"{url} cannot be reached: {error.os_error.strerror or error}")
    return Unavailable(f"{url} does not answer: {str(error)[:_SHOWN] or 'no answer in time'}")


def _why(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    """TLS's words, without its numbers."""
    cause = getattr(error, "certificate_error", None) or error.__cause__ or error
    words = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or str(cause)
    return str(words)[:_SHOWN]


def foreign(detail: str) -> Unavailable:
    """The error of an answer that no program of ours gives."""
    error = Unavailable(detail)
    error.foreign = True
    return error


def socket_of(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices when the other end went without a word."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made

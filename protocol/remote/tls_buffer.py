"""How asyncio reads TLS: into one large buffer for all connections of a thread.

As it comes, asyncio gives each connection 256 KiB of its own, which hold bytes only between two
statements of the event loop: most of what an idle node costs its scheduler. One buffer serves all,
and a larger one lets a relay read more at a time, which takes less processor time
(docs/performance.md). There is no setting for it: two names of asyncio's are replaced, where they
do what is known of them.
"""

import threading
from asyncio.sslproto import SSLProtocol
from typing import Any

SIZE = 1 << 20
"""Bytes that are read at a time, of what a connection has sent."""
_RECORD = 16 << 10  # bytes: what a record of TLS holds; more is not decrypted at a time
_VIEW = "_ssl_buffer_view"


class _Buffer(threading.local):
    """Of the thread that asks; two event loops of one thread do not run at the same time."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SIZE))


_buffer = _Buffer()


def share() -> bool:
    """Do so from now on, in this whole process; False where this asyncio is built otherwise."""
    known = (SSLProtocol.get_buffer, SSLProtocol.buffer_updated)
    if not all(_VIEW in method.__code__.co_names for method in known):
        return SSLProtocol.get_buffer is _get_buffer
    SSLProtocol.get_buffer = _get_buffer  # type: ignore[assignment, method-assign]
    SSLProtocol.max_size = _RECORD
    return True


def _get_buffer(protocol: Any, _: int) -> memoryview:
    """Called before bytes are received; `buffer_updated`, right after that, takes them out."""
    protocol._ssl_buffer_view = _buffer.view
    return _buffer.view

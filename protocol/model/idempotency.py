"""Idempotency keys of clients: the same key and request gives the same build, another request with
it is refused.
"""

import hashlib
import re

import msgspec

from protocol.errors import Conflict, Invalid
from protocol.model.build import Build
from protocol.model.request import BuildRequest

HEADER = "Idempotency-Key"
"""The header by which a client's repeated create is known."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def check_key(key: str) -> str:
    """The key. Raises Invalid."""
    if not _KEY.fullmatch(key):
        raise Invalid(
            f"{HEADER} is {key[:40]!r}",
            field=HEADER,
            expected="up to 255 printable ASCII characters without spaces",
        )
    return key


def check_same(known: Build, request: BuildRequest) -> None:
    """Raises Conflict where the build that was made with a key was another request's."""
    if _fingerprint(known.request) != _fingerprint(request):
        raise Conflict(
            f"this key was used for build {known.id}, which is another request",
            field=HEADER,
            expected="a new key for a new request",
        )


def _fingerprint(request: BuildRequest) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(request, order="deterministic")).digest()

"""A join token: what somebody pastes on a machine that is to join a pool.

It names the pool's authority by digest, so that nobody in between can pass for it, and carries the
secret that the authority wants to hear.
"""

import base64
import binascii
import hashlib
import hmac
import re

from msgspec import Struct

from protocol.errors import Invalid

PREFIX = "imagepool-join-1-"
"""What every join token begins with."""
SECRET = 16
"""Bytes of a secret."""
_DIGEST = 32  # bytes
_CHECK = 2  # bytes that tell a token that was cut off or mistyped from a wrong one
_TEXT = re.compile(r"[a-z2-7]{80}")


class JoinToken(Struct, frozen=True):
    """What a token says."""

    authority: str  # SHA-256 of the authority's certificate, hex
    secret: bytes

    def __str__(self) -> str:
        said = bytes.fromhex(self.authority) + self.secret
        return PREFIX + base64.b32encode(said + _check(said)).decode().lower()

    def __repr__(self) -> str:
        return f"JoinToken({self.authority[:16]}, ...)"


def read(text: str) -> JoinToken:
    """The token in a text. Raises Invalid, without repeating it."""
    text = text.strip()
    body = text.removeprefix(PREFIX)
    if body == text or not _TEXT.fullmatch(body):
        raise _no_token(f"it begins with {PREFIX} and has 80 letters and digits after that")
    try:
        data = base64.b32decode(body.upper())
    except binascii.Error as error:
        raise _no_token("one that was not cut off") from error
    said, check = data[:-_CHECK], data[-_CHECK:]
    if not hmac.compare_digest(check, _check(said)):
        raise _no_token("one without a mistake in it; copy it again, whole")
    return JoinToken(said[:_DIGEST].hex(), said[_DIGEST:])


def hashed(secret: bytes) -> str:
    """What is kept of a secret: it has 128 random bits, so that nobody finds it by trying."""
    return hashlib.sha256(b"imagepool join secret\n" + secret).hexdigest()


def _check(said: bytes) -> bytes:
    return hashlib.sha256(b"imagepool join token\n" + said).digest()[:_CHECK]


def _no_token(expected: str) -> Invalid:
    return Invalid("that is no join token", field="join", expected=expected)

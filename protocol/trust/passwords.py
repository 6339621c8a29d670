"""People's passwords, hashed by argon2id: a few at a time, and none on the event loop."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from protocol.errors import Busy

_AT_ONCE = 2  # passwords that are hashed at the same time: each takes 64 MiB for a moment
_QUEUE = 20  # passwords that are checked, or wait for that


class Passwords:
    """What hashes them. For use on one event loop."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()  # of RFC 9106's second choice, in its low-memory form
        self._hashing = asyncio.Semaphore(_AT_ONCE)
        self._checking = 0

    async def hashed(self, password: str) -> str:
        """What is kept of it."""
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def fits(self, kept: str | None, password: str) -> bool:
        """Whether it is the one that this was kept of; where nothing was, finding out takes as
        long. Raises Busy where too many are being checked.
        """
        if self._checking >= _QUEUE:
            raise Busy("too many passwords are being checked", retry_after=5)
        self._checking += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(self._verify, kept, password)
        finally:
            self._checking -= 1

    def _verify(self, kept: str | None, password: str) -> bool:
        if kept is None:
            self._hasher.hash(password)
            return False
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False

"""Byte streams for tests, and what they should have become."""

import hashlib
from collections.abc import AsyncIterator

from protocol.errors import Unavailable


class Given:
    """A stream of these bytes, piece by piece; with `breaks` it is not whole."""

    def __init__(self, data: bytes, *, piece: int = 70_000, breaks: bool = False) -> None:
        self.given = 0  # bytes so far
        self._data = data
        self._piece = piece
        self._breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), self._piece):
            piece = self._data[start : start + self._piece]
            self.given += len(piece)
            yield piece
        if self._breaks:
            raise Unavailable("the source broke off")

    async def close(self) -> None:
        """Nothing to let go of."""


def digest_of(data: bytes) -> str:
    """SHA-256, lower-case hex."""
    return hashlib.sha256(data).hexdigest()

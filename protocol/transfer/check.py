"""Looking at bytes that pass by: whether they are those that they should be."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from protocol.errors import Unavailable

Bytes: TypeAlias = bytes | bytearray | memoryview


class Check:
    """Of one body, from its first byte to its last. Whoever passes it on in order gives each piece
    to `take` before: so nobody ever gets the end of a body that is not the right one.
    """

    def __init__(self, sha256: str, size: int, wrong: Callable[[], None]) -> None:
        """`sha256`: lower-case hex; `size`: bytes; `wrong` is called where it is another body, in
        the thread that `take` is called in.
        """
        self._sha256 = sha256
        self._left = size
        self._wrong = wrong
        self._digest = hashlib.sha256()

    def take(self, piece: Bytes) -> None:
        """The next bytes. Raises Unavailable with the last ones of what is another body."""
        self._digest.update(piece)
        self._left -= len(piece)
        if self._left < 0 or (not self._left and self._digest.hexdigest() != self._sha256):
            self._wrong()
            raise Unavailable("what came is not what the node has: its digest is another one")

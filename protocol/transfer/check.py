"""Looking at bytes that pass by: whether they are those that they should be. Whoever has the right
ones marks them, block by block; whoever passes them on compares, and holds each block back until it
is known to be right.

A mark is the SHA-256 of all that comes before the end of a block: so both sides read everything
once, the last mark is the digest of the whole, and marks of other bytes do not fit together.
"""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from protocol.errors import Unavailable

BLOCK = 1 << 20
"""Bytes of a block; the last one has fewer."""
_MARK = 32  # bytes

Bytes: TypeAlias = bytes | bytearray | memoryview


class Marks:
    """Made while a body is read."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._marks = bytearray()

    def take(self, piece: bytes) -> None:
        """The next bytes."""
        view = memoryview(piece)
        while view:
            room = BLOCK - self.size % BLOCK
            self._digest.update(view[:room])
            self.size += len(view[:room])
            view = view[room:]
            if not self.size % BLOCK:
                self._marks += self._digest.digest()

    @property
    def sha256(self) -> str:
        """Of all that came."""
        return self._digest.hexdigest()

    @property
    def whole(self) -> bytes:
        """All marks, of what is whole."""
        return bytes(self._marks) + (self._digest.digest() if self.size % BLOCK else b"")


class Check:
    """Of one body, from its first byte to its last: `room` says where the next bytes are to be put,
    `filled` gives out what may be passed on.
    """

    def __init__(self, sha256: str, size: int, marks: bytes, wrong: Callable[[], None]) -> None:
        """`sha256`: lower-case hex; `size`: bytes; `wrong` is called where it is another body, in
        the thread that `filled` is called in. Raises Unavailable where these do not fit.
        """
        if len(marks) != -(-size // BLOCK) * _MARK or (size and marks[-_MARK:].hex() != sha256):
            raise Unavailable("the marks are those of something else")
        self._left = size
        self._marks = memoryview(marks)
        self._wrong = wrong
        self._digest = hashlib.sha256()
        self._block = memoryview(bytearray(min(size, BLOCK)))
        self._held = 0  # bytes of the block that are here

    def room(self) -> memoryview:
        """Where the next bytes of the block are to be put; empty behind the last one."""
        return self._block[self._held : min(self._left, BLOCK)]

    def filled(self, count: int) -> memoryview:
        """So many were put there. The block, to be passed on before more is put anywhere; nothing
        while it is not whole. Raises Unavailable for a wrong one.
        """
        self._digest.update(self._block[self._held : self._held + count])
        self._held += count
        if self.room():
            return self._block[:0]
        block, self._held = self._block[: self._held], 0
        mark, self._marks = self._marks[:_MARK], self._marks[_MARK:]
        self._left -= len(block)
        if self._digest.digest() != mark:
            self._wrong()
            raise Unavailable("what came is not what the node has: its digest is another one")
        return block

    def take(self, piece: Bytes) -> bytes:
        """The next bytes: what may be passed on of these, and of those before. Raises Unavailable,
        also for more than there is to be.
        """
        view, passed = memoryview(piece), bytearray()
        while view:
            room = self.room()
            if not room:
                raise Unavailable("more came than there is to be")
            count = min(len(room), len(view))
            room[:count] = view[:count]
            passed += self.filled(count)
            view = view[count:]
        return bytes(passed)

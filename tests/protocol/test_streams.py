"""Streams of a file, and of a part of another stream: all of what was said, or an error."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.errors import Unavailable
from protocol.transfer.streams import FileStream, Slice

pytestmark = pytest.mark.gen_test(timeout=10)


class Pieces:
    """A stream of these pieces, of which it is known how many were taken."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += 1
            yield piece

    async def close(self) -> None:
        """See ByteStream."""
        self.closed = True


@pytest.mark.parametrize(
    ("start", "end", "expected", "taken"),
    [(0, 9, b"abcdefghi", 3), (2, 7, b"cdefg", 3), (3, 6, b"def", 2), (0, 1, b"a", 1)],
)
async def test_a_slice(start: int, end: int, expected: bytes, taken: int) -> None:
    """Whatever the pieces are; no more is read than it takes."""
    source = Pieces(b"abc", b"def", b"ghi")
    cut = Slice(source, start, end, 9)
    assert b"".join([piece async for piece in cut]) == expected
    assert source.taken == taken
    await cut.close()
    assert source.closed


@pytest.mark.parametrize(
    ("pieces", "end"), [((b"abc", b"d"), 5), ((b"abc", b"def", b"ghi"), 5), ((b"ab",), 4)]
)
async def test_a_source_of_another_length(pieces: tuple[bytes, ...], end: int) -> None:
    """Never a part that looks whole; nothing is read behind the first piece too many."""
    source = Pieces(*pieces)
    with pytest.raises(Unavailable, match="and had 5"):
        [piece async for piece in Slice(source, 0, end, 5)]
    assert source.taken <= 2


async def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    """What is there of it, then an error."""
    path = tmp_path / "a"
    path.write_bytes(b"abcdef")
    stream = FileStream(os.open(path, os.O_RDONLY), 1, 6)
    os.truncate(path, 4)
    pieces = aiter(stream)
    assert await anext(pieces) == b"bcd"
    with pytest.raises(Unavailable, match="shorter"):
        await anext(pieces)
    await stream.close()
    await stream.close()

"""The folder of bytes by digest: whole or not at all, within its limits, no longer than needed."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import Busy, TooLarge, Unavailable
from protocol.ports.service import LOCAL
from protocol.storage.blob_folder import BlobFolder, Pipe
from tests.streams import Given, digest_of

gen = pytest.mark.gen_test(timeout=20)


def folder_in(
    path: Path, *, limit: int = 1 << 30, elsewhere: Callable[[str], Path | None] | None = None
) -> BlobFolder:
    """A folder with room for everything."""
    return BlobFolder(path / "blobs", limit=limit, reserve=0, elsewhere=elsewhere or _nowhere)


def _nowhere(digest: str) -> Path | None:
    return None


def names(path: Path) -> set[str]:
    """What lies in the folder."""
    return {file.name for file in (path / "blobs").iterdir()}


@gen
async def test_a_file_has_its_digest_for_a_name(tmp_path) -> None:
    """And its bytes; a reader gets them in pieces."""
    blobs, data = folder_in(tmp_path), os.urandom(2_500_000)
    digest = await blobs.upload(LOCAL, Given(data))
    assert names(tmp_path) == {digest_of(data)} == {digest}
    path = blobs.path(digest)
    assert path is not None
    assert path.read_bytes() == data
    opened = blobs.open(digest)
    assert opened is not None
    stream, size = opened
    assert (b"".join([piece async for piece in stream]), size) == (data, len(data))
    await stream.close()


@pytest.mark.parametrize("name", ["", "0" * 63, "0" * 64, "../x", "A" * 64, "0" * 63 + "\n"])
def test_what_is_not_here_or_no_digest_has_no_path(tmp_path, name) -> None:
    """No name leads out of the folder."""
    blobs = folder_in(tmp_path)
    assert blobs.path(name) is None
    assert blobs.open(name) is None


@gen
async def test_what_is_too_large_is_not_kept(tmp_path) -> None:
    """By what is said of it before anything is read; else as soon as it shows."""
    blobs = folder_in(tmp_path, limit=2_000_000)
    stream = Given(bytes(10_000_000))
    with pytest.raises(TooLarge):
        await blobs.upload(LOCAL, stream, size=2_000_001)
    assert stream.given == 0
    with pytest.raises(TooLarge):
        await blobs.upload(LOCAL, stream)
    assert stream.given < 3_500_000
    assert names(tmp_path) == set()


@gen
async def test_what_the_disk_has_no_room_for_is_not_kept(tmp_path) -> None:
    """Busy, by what is said of it, or as soon as it shows."""
    free = shutil.disk_usage(tmp_path).free
    blobs = BlobFolder(tmp_path / "blobs", limit=1 << 60, reserve=free - (200 << 20))
    stream = Given(b"x")
    with pytest.raises(Busy):
        await blobs.upload(LOCAL, stream, size=free)
    assert stream.given == 0
    full = BlobFolder(tmp_path / "blobs", limit=1 << 60, reserve=1 << 60)
    with pytest.raises(Busy):
        await full.upload(LOCAL, stream)
    assert names(tmp_path) == set()


@gen
async def test_what_breaks_off_is_not_kept(tmp_path) -> None:
    """Nor what an earlier life of the program was killed over."""
    blobs = folder_in(tmp_path)
    with pytest.raises(Unavailable):
        await blobs.upload(LOCAL, Given(bytes(100_000), breaks=True))
    assert names(tmp_path) == set()
    (tmp_path / "blobs" / "part.1234").write_bytes(b"half")
    folder_in(tmp_path)
    assert names(tmp_path) == set()


@gen
async def test_an_upload_that_is_given_up_leaves_nothing(tmp_path) -> None:
    """Its task was cancelled in the middle."""
    blobs, pipe = folder_in(tmp_path), Pipe()
    upload = asyncio.create_task(blobs.upload(LOCAL, pipe))
    await pipe.put(bytes(3_000_000))
    await pipe.put(b"x")  # it has begun to write
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert names(tmp_path) == set()


@gen
async def test_many_give_the_same_at_the_same_time(tmp_path) -> None:
    """Each is answered, and it is there once."""
    blobs, data = folder_in(tmp_path), os.urandom(500_000)
    uploads = [blobs.upload(LOCAL, Given(data), sha256=digest_of(data)) for _ in range(5)]
    assert set(await asyncio.gather(*uploads)) == {digest_of(data)}
    assert names(tmp_path) == {digest_of(data)}


@gen
async def test_what_nobody_used_for_long_goes(tmp_path) -> None:
    """Not what is needed, nor what was asked after since; nor what is on its way in."""
    blobs = folder_in(tmp_path)
    old, needed, asked = [await blobs.upload(LOCAL, Given(data)) for data in (b"1", b"2", b"3")]
    for digest in (old, needed, asked):
        os.utime(tmp_path / "blobs" / digest, (1000, 1000))
    (tmp_path / "blobs" / "part.0").write_bytes(b"half")
    os.utime(tmp_path / "blobs" / "part.0", (1000, 1000))
    assert await blobs.missing(LOCAL, [asked]) == frozenset()
    blobs.expire(2000, {needed})
    assert names(tmp_path) == {needed, asked, "part.0"}
    blobs.expire(500, set())
    assert names(tmp_path) == {needed, asked, "part.0"}


@gen
async def test_what_lies_elsewhere_is_here_when_it_is_asked_for(tmp_path) -> None:
    """It stays when it goes there; what went before is missing."""
    source = tmp_path / "artifact"
    source.write_bytes(b"made here")
    digest = digest_of(b"made here")
    places = {digest: source, "1" * 64: tmp_path / "gone"}
    blobs = folder_in(tmp_path, elsewhere=places.get)
    assert await blobs.missing(LOCAL, [digest, "1" * 64, "2" * 64]) == {"1" * 64, "2" * 64}
    source.unlink()
    path = blobs.path(digest)
    assert path is not None
    assert path.read_bytes() == b"made here"
    assert names(tmp_path) == {digest}


@gen
async def test_a_pipe_holds_one_piece(tmp_path) -> None:
    """Who hands in waits for who reads; when the reader has gone, nobody waits."""
    pipe = Pipe()
    await pipe.put(b"1")
    second = asyncio.create_task(pipe.put(b"2"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not second.done()
    pieces = aiter(pipe)
    assert await anext(pieces) == b"1"
    await second
    await pipe.close()
    await pipe.put(b"dropped")
    await pipe.put(b"dropped")
    await pipe.end()

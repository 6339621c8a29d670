"""Verbs and uploads of the client that are passed on as they are: what arrives at the interface of
the build service.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from imagepool import AsyncClient
from imagepool.client import (
    Build,
    Invalid,
    NotFound,
    Recipe,
    TextContent,
    Unavailable,
    UploadedContent,
)
from imagepool.client.orders import INLINE, SourceStream
from protocol.model.build import State, new_build
from protocol.model.messages import Explanation
from protocol.model.request import BuildRequest

BUILD = new_build("ab", BuildRequest(), origin="o", owner="ann", now=0.0)


class Recorder:
    """A build service and a place for uploads that keeps what it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.told: list[tuple[Any, ...]] = []
        self.here: dict[str, bytes] = {}

    async def close(self) -> None:
        """Nothing is open."""

    async def submit(
        self, caller: Any, request: Any, forward: Any = None, key: str = "", secrets: Any = None
    ) -> Build:
        """Keeps the request."""
        self._tell("submit", request, key, secrets)
        return replace(BUILD, request=request)

    async def preview(self, caller: Any, request: Any) -> Explanation:
        """Says that it would wait."""
        self._tell("preview", request)
        return Explanation("", State.WAITING, "it would wait")

    async def retry(self, caller: Any, build_id: str, key: str = "", secrets: Any = None) -> Build:
        """Keeps the key."""
        self._tell("retry", build_id, key, secrets)
        return replace(BUILD, retry_of=build_id)

    async def pin(self, caller: Any, build_id: str, pinned: bool) -> Build:
        """As it is told."""
        self._tell("pin", build_id, pinned)
        return replace(BUILD, pinned=pinned)

    async def delete(self, caller: Any, build_id: str) -> None:
        """Forgets nothing."""
        self._tell("delete", build_id)

    async def missing(self, caller: Any, digests: Any) -> frozenset[str]:
        """What was not uploaded."""
        self._tell("missing", *digests)
        return frozenset(digests) - self.here.keys()

    async def upload(
        self, caller: Any, stream: Any, *, sha256: str = "", size: int | None = None
    ) -> str:
        """Keeps the bytes."""
        self._tell("upload", sha256, size)
        self.here[sha256] = b"".join([piece async for piece in stream])
        await stream.close()
        return sha256

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        if self.failures:
            raise self.failures.pop(0)


def client_of(recorder: Recorder) -> AsyncClient:
    """A client that has found this one."""
    client = AsyncClient("http://127.0.0.1:1")
    client._service = recorder  # type: ignore[assignment]
    return client


@pytest.mark.gen_test
async def test_a_retry_carries_secrets_and_one_key_however_often_it_is_said() -> None:
    """So that a lost answer does not make two builds."""
    recorder = Recorder(Unavailable("cut"))
    build = await client_of(recorder).retry("cd", secrets={"word": "x"})
    assert build.retry_of == "cd"
    first, second = recorder.told
    assert first == second == ("retry", "cd", first[2], {"word": "x"})
    assert len(first[2]) == 32


@pytest.mark.gen_test
async def test_pin_unpin_and_preview() -> None:
    """Each as the interface has it; preview may be given what submit is given."""
    recorder = Recorder()
    client = client_of(recorder)
    assert (await client.pin("ab")).pinned
    assert not (await client.unpin("ab")).pinned
    assert (await client.preview({"recipe": {}})).reason == "it would wait"
    assert recorder.told == [
        ("pin", "ab", True),
        ("pin", "ab", False),
        ("preview", BuildRequest()),
    ]


@pytest.mark.gen_test
async def test_a_delete_is_said_once() -> None:
    """Repeated after a lost answer it would find nothing, and say so."""
    recorder = Recorder(Unavailable("cut"), NotFound("gone"))
    with pytest.raises(Unavailable):
        await client_of(recorder).delete("ab")
    assert recorder.told == [("delete", "ab")]


@pytest.mark.gen_test
async def test_a_preview_looks_at_files_and_sends_none(tmp_path: Path) -> None:
    """What they are called is checked by the pool, that they are there here."""
    large = tmp_path / "large"
    large.write_bytes(b"\xff" * (INLINE + 1))
    recorder = Recorder()
    await client_of(recorder).preview(Recipe(), files={"a": large, "b": b"x"})
    ((verb, request),) = recorder.told
    assert (verb, [file.name for file in request.recipe.inputs]) == ("preview", ["a", "b"])
    with pytest.raises(Invalid, match="No such file") as refused:
        await client_of(recorder).preview(Recipe(), files={"a": tmp_path / "none"})
    assert refused.value.field == "inputs"


@pytest.mark.gen_test
async def test_files_go_with_the_request_or_before_it(tmp_path: Path) -> None:
    """A small text is in the request; bytes and large files are uploaded, once; what may be
    executed here may be in the build.
    """
    small, large, program = (tmp_path / name for name in ("small", "large", "program"))
    small.write_text("é")
    large.write_text("x" * (INLINE + 1))
    program.write_bytes(b"\x7fELF\xff")
    program.chmod(0o755)
    recorder = Recorder()
    files = {"a": small, "b/c": large, "d": program, "e": b"\xff\xfe"}
    build = await client_of(recorder).submit(Recipe(), files=files)
    a, c, d, e = build.request.recipe.inputs
    assert (a.name, a.content, a.executable) == ("a", TextContent("é"), False)
    for file, data in ((c, large.read_bytes()), (d, program.read_bytes()), (e, b"\xff\xfe")):
        assert isinstance(file.content, UploadedContent)
        assert recorder.here[file.content.sha256] == data
        assert file.content.sha256 == hashlib.sha256(data).hexdigest()
    assert (c.executable, d.executable) == (False, True)
    assert [what[0] for what in recorder.told] == ["missing", "upload"] * 3 + ["submit"]
    recorder.told.clear()
    await client_of(recorder).upload(large)
    assert [what[0] for what in recorder.told] == ["missing"]


UNREADABLE = Path("/proc/self/mem")
"""It may be opened; reading its first byte fails."""


@pytest.mark.gen_test
async def test_a_file_that_cannot_be_read_is_not_the_pools_fault(tmp_path):
    """Before it is sent or while it is; nor is one that changes meanwhile. Nothing is repeated."""
    with pytest.raises(Invalid, match="/proc/self/mem: Input/output error") as refused:
        await client_of(Recorder()).upload(UNREADABLE)
    assert refused.value.field == "inputs"
    for verb in (client_of(Recorder()).submit, client_of(Recorder()).preview):
        with pytest.raises(Invalid, match="Input/output error"):
            await verb(Recipe(), files={"a": UNREADABLE})
    with pytest.raises(Invalid, match="Input/output error"):
        await _all_of(SourceStream(UNREADABLE, 10))
    changing = tmp_path / "log"
    changing.write_bytes(b"12345")
    assert await _all_of(SourceStream(changing, 5)) == b"12345"
    for size in (4, 6):
        with pytest.raises(Invalid, match="log changed while it was sent"):
            await _all_of(SourceStream(changing, size))


async def _all_of(stream: SourceStream) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.mark.gen_test
@pytest.mark.parametrize("wanted", [5, None, "build.yaml", [("recipe", {})]])
async def test_what_is_nothing_to_build_is_refused(wanted: Any) -> None:
    """With what would be; nothing is asked."""
    recorder = Recorder()
    with pytest.raises(Invalid, match=f"what is to be built is {type(wanted).__name__}") as refused:
        await client_of(recorder).submit(wanted)
    assert (refused.value.field, recorder.told) == ("wanted", [])

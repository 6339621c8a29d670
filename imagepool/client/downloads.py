"""An artifact's bytes, going on where a connection was cut; written to a file whole and checked,
or not at all.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from imagepool.client.trying import Trying
from protocol.errors import Conflict, NotFound, Unavailable
from protocol.model.build import Artifact
from protocol.ports.service import LOCAL, BuildService, ByteRange

Progress = Callable[[int, int], None]
"""Told bytes that are there, and bytes in all."""


def silent(there: int, whole: int) -> None:
    """No progress is shown."""


async def pieces(
    pool: BuildService, build_id: str, artifact: Artifact, start: int, trying: Trying
) -> AsyncGenerator[bytes, None]:
    """The artifact's bytes from `start` on. Raises Conflict where it is another one by now."""
    while start < artifact.size:
        try:
            part = ByteRange(start, None) if start else None
            opened = await pool.open_artifact(LOCAL, build_id, artifact.name, part)
            try:
                if opened.artifact.sha256 != artifact.sha256 or opened.start != start:
                    raise Conflict(
                        f"{artifact.name} is another file by now", field="name", expected="a retry"
                    )
                async for piece in opened.stream:
                    start += len(piece)
                    trying.progressed()
                    yield piece
            finally:
                await opened.stream.close()
        except Unavailable as error:
            await trying.after(error)


async def growing(pool: BuildService, build_id: str, name: str) -> AsyncGenerator[bytes, None]:
    """What is still being made, from one connection; it cannot be gone on with or checked."""
    opened = await pool.open_artifact(LOCAL, build_id, name)
    try:
        async for piece in opened.stream:
            yield piece
    finally:
        await opened.stream.close()


async def save(
    pool: BuildService,
    build_id: str,
    artifact: Artifact,
    target: Path,
    progress: Progress,
    trying: Trying,
) -> None:
    """Write the artifact to `target`. What came before it broke off lies beside it, by digest, and
    is gone on with next time.

    Raises Conflict: the digest is wrong, or somebody else saves to this file now.
    """
    part = target.with_name(f".{target.name}.{artifact.sha256[:16]}.part")
    with _alone(part) as file:
        there = file.seek(0, os.SEEK_END)
        if there > artifact.size:
            there = file.seek(0)
            file.truncate()
        progress(there, artifact.size)
        async for piece in pieces(pool, build_id, artifact, there, trying):
            file.write(piece)
            there += len(piece)
            progress(there, artifact.size)
        file.flush()
        if await asyncio.to_thread(_digest, part) != artifact.sha256:
            part.unlink()
            raise Conflict(
                f"{target} came with a wrong digest and was not kept",
                field="sha256",
                expected=artifact.sha256,
            )
        await asyncio.to_thread(os.fsync, file.fileno())
        part.replace(target)


def chosen(artifacts: tuple[Artifact, ...], name: str | None, why: str) -> Artifact:
    """The artifact of this name, or the only one. Raises NotFound, Conflict where there are
    several. `why`: what the build says, where it has none.
    """
    found = [artifact for artifact in artifacts if name in (None, artifact.name)]
    names = ", ".join(artifact.name for artifact in artifacts)
    if not artifacts or not found:
        detail = f"there is no artifact {name!r}" if artifacts else f"there is no artifact: {why}"
        raise NotFound(detail, field="name", expected=f"one of: {names}" if names else "")
    if len(found) > 1:
        raise Conflict(
            f"there are {len(found)} artifacts", field="name", expected=f"one of: {names}"
        )
    if not found[0].kept:
        raise NotFound(f"{found[0].name} went to the one reader that it had", field="name")
    return found[0]


@contextmanager
def _alone(part: Path) -> Iterator[IO[bytes]]:
    """The file to append to, which nobody else has open like this."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"somebody else writes {part} now", field="target") from error
        yield file


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

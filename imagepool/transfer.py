"""Following a log and saving an artifact over the build service, going on where a connection
broke.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from protocol.errors import Conflict, Unavailable
from protocol.model import Artifact, Position, State
from protocol.service import LOCAL, BuildService, ByteRange

_TRIES = 5
"""How often in a row a transfer may break off without a byte of progress."""

Progress = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]
"""(what, bytes there, bytes in all) -> a context whose value is told how many bytes more have
come.
"""


async def follow_log(
    pool: BuildService, build_id: str, sink: Callable[[bytes], None], *, follow: bool = True
) -> None:
    """Give the log to `sink`, until the build has stopped; a new attempt's log from its
    beginning.
    """
    position, broken = Position(), 0
    while True:
        try:
            opened = await pool.open_log(LOCAL, build_id, position, follow=follow)
            if opened.attempt != position.attempt:
                position = Position(opened.attempt, opened.start)
            async for piece in opened.stream:
                sink(piece)
                broken = 0
                position = Position(position.attempt, position.offset + len(piece))
        except Unavailable:
            broken += 1
            if broken > _TRIES:
                raise
            await asyncio.sleep(0.2 * broken)
            continue
        build = await pool.get(LOCAL, build_id)
        done = build.state is State.STOPPED and position.offset >= build.log_size
        if not follow or done or (build.state is State.STOPPED and build.node is None):
            return


async def save_artifact(
    pool: BuildService, build_id: str, artifact: Artifact, target: Path, progress: Progress
) -> None:
    """Write the artifact to a file, whole and checked, or not at all; what broke off is gone on
    with.

    Raises Conflict where the digest is wrong.
    """
    part = target.with_name(target.name + ".part")
    there = part.stat().st_size if part.exists() else 0
    if there > artifact.size:
        part.unlink()
        there = 0
    with progress(target.name, there, artifact.size) as came, part.open("ab") as file:
        broken = 0
        while there < artifact.size:
            try:
                opened = await pool.open_artifact(
                    LOCAL, build_id, artifact.name, ByteRange(there, None)
                )
                async for piece in opened.stream:
                    file.write(piece)
                    there += len(piece)
                    came(len(piece))
                    broken = 0
            except Unavailable:
                broken += 1
                if broken > _TRIES:
                    raise
                await asyncio.sleep(0.2 * broken)
    if _digest(part) != artifact.sha256:
        part.unlink()
        raise Conflict(f"{target} came with a wrong digest and was not kept")
    part.rename(target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def silent(what: str, there: int, size: int) -> Iterator[Callable[[int], None]]:
    """No progress is shown."""
    yield lambda count: None

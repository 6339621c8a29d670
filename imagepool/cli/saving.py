"""Where what a build made is saved: said as a file or a folder, and made sure of before anything is
built.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from imagepool.cli import terminal, words
from protocol.errors import Conflict, Invalid
from protocol.model.build import Artifact, Build

if TYPE_CHECKING:
    from imagepool import AsyncClient


class Target(Struct, frozen=True):
    """A place on this machine."""

    path: Path
    folder: bool  # it takes all artifacts, under their names

    def prepare(self) -> None:
        """Make the folder. Raises Invalid where there would be no way to save anything."""
        if self.folder:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _impossible(f"{error.filename}: {error.strerror}") from error
        elif not self.path.parent.is_dir():
            raise _impossible(f"there is no folder {self.path.parent}")


def target_of(text: str) -> Target:
    """What was typed: a folder where it ends in a slash, or is one already."""
    path = Path(text)
    return Target(path, text.endswith("/") or path.is_dir())


async def saved(
    pool: "AsyncClient", build: Build, target: Target, name: str | None = None
) -> AsyncIterator[tuple[Path, Artifact]]:
    """Download all that the build made into the folder, or the one artifact, or that of this name,
    as the file; each when it is there. Raises Conflict where several would be one file.
    """
    chosen = [artifact.name for artifact in build.artifacts if name in (None, artifact.name)]
    if len(chosen) > 1 and not target.folder:
        raise Conflict(
            f"the build made {len(chosen)} artifacts: {', '.join(chosen)}",
            field="output",
            expected=f"a folder: imagepool download {build.id} -o {target.path}/",
        )
    if not chosen:  # the pool says why
        chosen = [(await pool.artifact(build.id, name)).name]
    for each in chosen:
        file = target.path / each if target.folder else target.path
        with terminal.progress(file.name) as told:
            artifact = await pool.download(build.id, file, name=each, progress=told)
        yield file, artifact


def said(file: Path, artifact: Artifact) -> str:
    """A line about a file that was saved."""
    return f"saved {file}, {words.size(artifact.size)}, sha256 {artifact.sha256}"


def _impossible(detail: str) -> Invalid:
    return Invalid(
        detail,
        field="output",
        expected="a file in a folder that is there, or a folder, with a slash at its end",
    )

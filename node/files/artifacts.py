"""The files that builds made: names of our own, whole or not at all, each with size, digest and
marks.
"""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from node.files import untrusted
from protocol.errors import NotFound, Unsatisfiable
from protocol.model.build import Artifact
from protocol.ports.service import ByteRange, OpenArtifact
from protocol.storage.whole_file import write_whole
from protocol.transfer.check import Marks
from protocol.transfer.streams import FileStream

IMAGE = "image.iso"
_PIECE = 1 << 20


class ArtifactStore:
    """A folder with one folder for each build."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(
        self,
        build_id: str,
        place: Callable[[Path], int],
        stop: threading.Event,
        name: str = IMAGE,
    ) -> Artifact:
        """Let `place` put a file under the path it is given, whole or not at all; digest and keep
        it. Blocks.

        Where an earlier life of the node was killed on the way, it goes on: what has its name is
        whole. Raises OSError, also when `stop` is set meanwhile.
        """
        home = self._folder / build_id
        home.mkdir(exist_ok=True)
        part, whole = home / f".{name}.part", home / name  # no artifact's name begins with a dot
        if whole.exists():
            return _artifact(name, _marked(whole, stop))
        if not part.exists():
            place(part)
        untrusted.check_taken(part)
        marks = _marked(part, stop)
        write_whole(home / _marks_of(name), marks.whole)
        part.rename(whole)
        return _artifact(name, marks)

    def open(self, build_id: str, artifact: Artifact, part: ByteRange | None) -> OpenArtifact:
        """A reader of the artifact or a range of it. Raises NotFound, Unsatisfiable."""
        if not artifact.kept:
            raise NotFound(
                f"{artifact.name} went to the one reader that it had, and was not kept",
                field="name",
            )
        span = (0, artifact.size) if part is None else part.within(artifact.size)
        if span is None:
            raise Unsatisfiable(
                f"the artifact has {artifact.size} bytes",
                size=artifact.size,
                field="Range",
                expected=f"bytes within 0-{max(0, artifact.size - 1)}",
            )
        try:
            descriptor = os.open(
                self._folder / build_id / artifact.name, os.O_RDONLY | os.O_CLOEXEC
            )
        except OSError as error:
            raise NotFound(f"{artifact.name} is not kept any more", field="name") from error
        return OpenArtifact(artifact, *span, FileStream(descriptor, *span))

    def path(self, build_id: str, name: str) -> Path:
        """Where the artifact lies, if it is kept; the file never changes."""
        return self._folder / build_id / name

    def marks(self, build_id: str, name: str) -> bytes:
        """What to compare the artifact with where it is passed on. Blocks. Raises NotFound."""
        try:
            return (self._folder / build_id / _marks_of(name)).read_bytes()
        except OSError as error:
            raise NotFound(f"{name} has no marks", field="name") from error

    def remove(self, build_id: str) -> None:
        """Delete what a build made. Blocks."""
        shutil.rmtree(self._folder / build_id, ignore_errors=True)


def _marks_of(name: str) -> str:
    return f".{name}.marks"


def _artifact(name: str, marks: Marks) -> Artifact:
    return Artifact(name, marks.size, marks.sha256)


def _marked(path: Path, stop: threading.Event) -> Marks:
    """Size, SHA-256 and marks of a file that is on disk then. Raises OSError."""
    marks = Marks()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            if stop.is_set():
                raise OSError(errno.ECANCELED, "the build was ended")
            marks.take(piece)
        os.fsync(file.fileno())
    return marks

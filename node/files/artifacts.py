"""The files that builds made: names of our own, whole or not at all, each with size and digest."""

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from node.files import untrusted
from protocol.errors import NotFound, Unsatisfiable
from protocol.model.build import Artifact
from protocol.ports.service import ByteRange, OpenArtifact
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
            return Artifact(name, *_digested(whole, stop))
        if not part.exists():
            place(part)
        untrusted.check_taken(part)
        artifact = Artifact(name, *_digested(part, stop))
        part.rename(whole)
        return artifact

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

    def remove(self, build_id: str) -> None:
        """Delete what a build made. Blocks."""
        shutil.rmtree(self._folder / build_id, ignore_errors=True)


def _digested(path: Path, stop: threading.Event) -> tuple[int, str]:
    """Size and SHA-256 of a file that is on disk then. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            if stop.is_set():
                raise OSError(errno.ECANCELED, "the build was ended")
            digest.update(piece)
            size += len(piece)
        os.fsync(file.fileno())
    return size, digest.hexdigest()

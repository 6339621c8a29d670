"""A folder of blobs: files that are named by their SHA-256 (`protocol/blobs.py`)."""

import contextlib
import os
from pathlib import Path


class BlobFolder:
    """Blobs on disk. May be used from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path | None:
        """The blob's file, whose time of last use is now; None where it is not here."""
        path = self._folder / sha256
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        return None

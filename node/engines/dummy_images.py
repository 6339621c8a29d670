"""The dummy engine's images: names, and nothing behind them.

Every image is here but those whose names say otherwise: missing/..., unreachable/...  Of a
Dockerfile it plays the lines::

    FROM IMAGE        as if it were obtained
    RUN print TEXT    RUN sleep SECONDS    RUN hang    RUN exit CODE

A file system is whatever is a tar file, a saved image whatever `save` wrote.
"""

import re
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from node.engines.base import ImageSpec, Login
from node.engines.errors import (
    EngineDown,
    ImageFailed,
    ImageUnknown,
    Interrupt,
    RegistryUnreachable,
)

_LINE = re.compile(r"(FROM) +(\S+).*|RUN +(print|sleep|exit) +(.*)|RUN +(hang)\s*")
_SAVED = b"an image of the dummy engine\n"


class DummyImages:
    """The half of `Engine` that is about images."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: set[str] = set()
        self._closed = False

    def images(self) -> frozenset[str]:
        """The images that were asked for, or made."""
        self._require_open()
        with self._lock:
            return frozenset(self._images)

    def obtain(
        self,
        image: str,
        progress: Callable[[str], None],
        pull: str = "missing",
        login: Login | None = None,
    ) -> None:
        """Every image is here but those whose names say otherwise."""
        self._require_open()
        require_image(image)
        with self._lock:
            self._images.add(image)

    def name_image(self, image: str, name: str) -> None:
        """There is nothing behind either."""
        self._require_here(image)
        self._made(name)

    def build(self, spec: ImageSpec, output: Callable[[bytes], None], interrupt: Interrupt) -> None:
        """Play the Dockerfile."""
        lines = _dockerfile(spec).decode("utf-8", "replace").splitlines()
        if not any(line.startswith("FROM ") for line in lines):
            raise ImageFailed("the image cannot be built: no build stage in current context")
        for number, line in enumerate(lines, 1):
            output(f"Step {number}/{len(lines)} : {line}\n".encode())
            self._play(line, output, interrupt)
        self._made(spec.image)

    def import_rootfs(
        self, file: Path, image: str, labels: Mapping[str, str], interrupt: Interrupt
    ) -> None:
        """Look whether it is a tar file."""
        interrupt.check()
        try:
            with tarfile.open(file):
                pass
        except (tarfile.TarError, EOFError) as error:
            raise ImageFailed(f"the file system cannot be imported: {error}") from error
        self._made(image)

    def load(self, file: Path, image: str, interrupt: Interrupt) -> None:
        """Look whether `save` wrote it."""
        if not self.is_saved(file):
            raise ImageFailed("the file holds no image that the engine can load")
        self._made(image)

    def is_saved(self, file: Path) -> bool:
        """By its first bytes."""
        with file.open("rb") as source:
            return source.read(len(_SAVED)) == _SAVED

    def save(self, image: str, file: Path, interrupt: Interrupt) -> None:
        """The name, and that it is an image."""
        self._require_here(image)
        file.write_bytes(_SAVED + image.encode())

    def export(
        self, image: str, file: Path, labels: Mapping[str, str], interrupt: Interrupt
    ) -> None:
        """A file system without files."""
        self._require_here(image)
        with tarfile.open(file, "w"):
            pass

    def _play(self, line: str, output: Callable[[bytes], None], interrupt: Interrupt) -> None:
        self._require_open()
        known = _LINE.fullmatch(line)
        match [word for word in known.groups() if word] if known else []:
            case ["FROM", image]:
                require_image(image)
            case ["print", text]:
                output(text.encode() + b"\n")
            case ["sleep", seconds]:
                interrupt.wait(float(seconds))
            case ["hang"]:
                interrupt.wait()
            case ["exit", code] if int(code):
                words = f"The command '/bin/sh -c exit {code}' returned a non-zero code: {code}"
                raise ImageFailed(words, int(code))
        interrupt.check()

    def _made(self, image: str) -> None:
        self._require_open()
        with self._lock:
            self._images.add(image)

    def _require_here(self, image: str) -> None:
        if image not in self.images():
            raise ImageUnknown(f"there is no image {image}")

    def _require_open(self) -> None:
        if self._closed:
            raise EngineDown("the engine was closed")


def require_image(image: str) -> None:
    """Raises what an image of this name stands for."""
    if image.startswith("missing/"):
        raise ImageUnknown(f"there is no image {image}")
    if image.startswith("unreachable/"):
        raise RegistryUnreachable(f"the registry of {image} does not answer")


def _dockerfile(spec: ImageSpec) -> bytes:
    if spec.dockerfile is not None:
        return spec.dockerfile.read_bytes()
    try:
        with tarfile.open(spec.archive) as archive:
            file = archive.extractfile(spec.path)
            return file.read() if file is not None else b""
    except (KeyError, tarfile.TarError) as error:
        raise ImageFailed(f"the archive has no {spec.path}: {error}") from error

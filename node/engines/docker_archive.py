"""Tar archives on their way to the Docker Engine: made, and made harmless, while they are read."""

import gzip
import json
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node.engines.base import ImageSpec
from node.engines.errors import ImageFailed, Interrupt

_PIECE = 1 << 20
_MANIFEST = "manifest.json"
_LEFT_OUT = (_MANIFEST, "repositories", "index.json", "oci-layout")
"""Where an archive of an image says what it is to be called."""
_BROKEN = (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
_MANIFEST_LIMIT = 4 << 20  # bytes


def pieces(file: Path, interrupt: Interrupt) -> Iterator[bytes]:
    """The file. Raises OSError, Interrupted."""
    with file.open("rb", buffering=0) as source:
        while piece := source.read(_PIECE):
            interrupt.check()
            yield piece


def dockerfile_name(spec: ImageSpec) -> str:
    """What the Dockerfile is called in its context: a name that nothing else has there."""
    if spec.archive is not None:
        return spec.path
    taken = {file.name.partition("/")[0] for file in spec.context}
    name = "Dockerfile"
    while name in taken:
        name += ".imagepool"
    return name


def context(spec: ImageSpec, interrupt: Interrupt) -> Iterator[bytes]:
    """What the builder is given. Raises OSError, Interrupted."""
    if spec.archive is not None:
        yield from pieces(spec.archive, interrupt)
        return
    assert spec.dockerfile is not None
    files = [(file.name, file.source, file.executable) for file in spec.context]
    for name, source, executable in (*files, (dockerfile_name(spec), spec.dockerfile, False)):
        entry = tarfile.TarInfo(name)
        entry.size = source.stat().st_size
        entry.mode = 0o755 if executable else 0o644
        entry.mtime = int(spec.made)
        yield from _entry(entry, pieces(source, interrupt))
    yield _END


def nameless(file: Path, interrupt: Interrupt) -> Iterator[bytes]:
    """The archive of one image without the names that it is to have. Ours is the last word in it,
    whatever its entries are. Raises ImageFailed, OSError, Interrupted.
    """
    try:
        manifest = _manifest(file, interrupt)
        with tarfile.open(file) as archive:
            for entry in archive:
                interrupt.check()
                if not (entry.isreg() or entry.isdir() or entry.issym()):
                    raise ImageFailed(f"the image's archive holds {entry.name[:80]!r}, no file")
                if posixpath.normpath("/" + entry.name)[1:] in _LEFT_OUT:
                    continue
                yield from _entry(entry, _content(archive, entry, interrupt))
    except _BROKEN as error:
        raise ImageFailed(f"this is no archive of an image: {error}") from error
    ours = tarfile.TarInfo(_MANIFEST)
    ours.size = len(manifest)
    yield from _entry(ours, iter((manifest,)))
    yield _END


def is_image(file: Path) -> bool:
    """Whether this is an archive of an image, not of a file system. Raises OSError."""
    try:
        with tarfile.open(file) as archive:
            return any(entry.name == _MANIFEST and entry.isreg() for entry in archive)
    except _BROKEN:
        return False


_END = bytes(2 * tarfile.BLOCKSIZE)


def _entry(entry: tarfile.TarInfo, content: Iterator[bytes]) -> Iterator[bytes]:
    yield entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    yield from content
    yield bytes(-entry.size % tarfile.BLOCKSIZE)


def _content(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, interrupt: Interrupt
) -> Iterator[bytes]:
    source = archive.extractfile(entry) if entry.isreg() else None
    if source is None:
        return
    with source:
        while piece := source.read(_PIECE):
            interrupt.check()
            yield piece


def _manifest(file: Path, interrupt: Interrupt) -> bytes:
    """The archive's word on its one image, without names. Raises ImageFailed, TarError."""
    with tarfile.open(file) as archive:
        found: Any = None
        for entry in archive:
            interrupt.check()
            if entry.name == _MANIFEST and entry.isreg() and entry.size <= _MANIFEST_LIMIT:
                found = archive.extractfile(entry).read()  # type: ignore[union-attr]
    try:
        (image,) = json.loads(found or b"")
        kept = {"Config": image["Config"], "RepoTags": [], "Layers": image["Layers"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ImageFailed("this is no archive of one image, as docker save writes it") from error
    return json.dumps([kept]).encode()

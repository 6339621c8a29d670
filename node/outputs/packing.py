"""Packs a folder that a build has filled as it liked into one zip."""

import errno
import os
import stat
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.files import untrusted

_PIECE = 1 << 20
_LEVEL = 1  # of deflate: downloads wait for it
_SAMPLE = 64 << 10  # bytes of a file by which we see whether it is packed already, as images are
_LONGEST = 4096  # bytes of a path: nobody could unpack a longer one
_SHOWN = 20  # lines for the log about what is not as it was; the rest is only counted
_FIRST = (1980, 1, 1, 0, 0, 0)  # what a zip can say of time
_LAST = (2107, 12, 31, 23, 59, 58)
_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


class Bounds(Struct, frozen=True):
    """What a zip may hold at most."""

    files: int  # folders and links included
    size: int  # bytes, unpacked


def pack(
    folder: int, target: Path, bounds: Bounds, stop: threading.Event, say: Callable[[str], None]
) -> int:
    """Write all that is below the folder to `target`, which is there whole or not at all; its size.

    Links are kept as links, empty folders as folders; of what is neither, nor a file, `say` is
    told. Blocks. Raises OSError: over the bounds, unreadable, or `stop` was set meanwhile.
    """
    part = target.with_name(target.name + ".making")
    with part.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as packed:
            _Packing(packed, bounds, stop, say).all(folder)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    return target.stat().st_size


class _Packing:
    """One zip in the making."""

    def __init__(
        self,
        packed: zipfile.ZipFile,
        bounds: Bounds,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._zip = packed
        self._bounds = bounds
        self._stop = stop
        self._say = say
        self._left = bounds.size
        self._odd = 0  # entries about which something is to be said

    def all(self, folder: int) -> None:
        """Add everything."""
        way: list[str] = []
        for count, entry in enumerate(
            untrusted.walk(folder, self._bounds.files + 1, strict=True), 1
        ):
            if count > self._bounds.files:
                raise OSError(errno.EFBIG, f"there are more than {self._bounds.files} files")
            self._check()
            way[entry.depth :] = [entry.name]
            path = "/".join(way)
            if len(os.fsencode(path)) > _LONGEST:
                raise OSError(errno.ENAMETOOLONG, f"a path is longer than {_LONGEST} bytes")
            self._add(path, entry)
        if self._odd > _SHOWN:
            self._say(f"and {self._odd - _SHOWN} more of that kind")

    def _add(self, path: str, entry: untrusted.Entry) -> None:
        mode = entry.state.st_mode
        if stat.S_ISDIR(mode):
            info = self._info(path, entry, "/")
            info.external_attr |= 0x10  # as MS-DOS says it
            self._zip.writestr(info, b"")
        elif stat.S_ISLNK(mode):
            self._zip.writestr(self._info(path, entry), self._link(entry))
        elif stat.S_ISREG(mode):
            self._file(path, entry)
        else:
            kind = _KINDS.get(stat.S_IFMT(mode), "a device")
            self._tell(f"the outbox holds {kind}, which is passed over: {_shown(path)}")

    def _link(self, entry: untrusted.Entry) -> bytes:
        """Where it leads."""
        return os.fsencode(os.readlink(entry.name, dir_fd=entry.folder))

    def _file(self, path: str, entry: untrusted.Entry) -> None:
        descriptor = untrusted.open_file(entry.folder, entry.name, entry.state)
        with open(descriptor, "rb", buffering=0) as file:
            info = self._info(path, entry)
            info.file_size = entry.state.st_size  # so that a large one gets the larger format
            self._charge(entry.state.st_size)
            left = entry.state.st_size
            piece = file.read(min(_PIECE, left))
            info.compress_type = zipfile.ZIP_DEFLATED if _shrinks(piece) else zipfile.ZIP_STORED
            with self._zip.open(info, "w") as into:
                while piece:
                    self._check()
                    into.write(piece)
                    left -= len(piece)
                    piece = file.read(min(_PIECE, left))
        if left:
            raise OSError(errno.EIO, "a file was cut short meanwhile", _shown(path))

    def _info(self, path: str, entry: untrusted.Entry, ending: str = "") -> zipfile.ZipInfo:
        """What the zip says of it: no owner, and rights that do no harm."""
        info = zipfile.ZipInfo(self._name(path, ending), _time(entry.state.st_mtime))
        mode = entry.state.st_mode
        rights = 0o755 if stat.S_ISDIR(mode) or mode & 0o111 else 0o644
        info.create_system = 3  # Unix: what follows is a mode
        info.external_attr = (stat.S_IFMT(mode) | rights) << 16
        return info

    def _name(self, path: str, ending: str) -> str:
        """The path, as it must be in a zip: UTF-8. Bytes that are not become %XX."""
        raw = os.fsencode(path)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = "".join(
                f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter
                for letter in raw.decode("utf-8", "surrogateescape")
            )
            self._tell(f"a name in the outbox is not UTF-8; in the zip it is {name}")
        while name + ending in self._zip.NameToInfo:
            name += "_"
        return name + ending

    def _charge(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise OSError(errno.EFBIG, f"it holds more than {self._bounds.size} bytes")

    def _check(self) -> None:
        if self._stop.is_set():
            raise OSError(errno.ECANCELED, "the build was ended")

    def _tell(self, words: str) -> None:
        self._odd += 1
        if self._odd <= _SHOWN:
            self._say(words)


def _shrinks(piece: bytes) -> bool:
    """Whether what begins so is worth packing, which takes many times as long as copying."""
    sample = piece[:_SAMPLE]
    return len(zlib.compress(sample, _LEVEL)) < 0.9 * len(sample)


def _time(seconds: float) -> Any:
    """As a zip says it, in UTC."""
    try:
        moment = time.gmtime(seconds)[:6]
    except (OverflowError, ValueError, OSError):
        return _FIRST if seconds < 0 else _LAST
    return min(max(moment, _FIRST), _LAST)


def _shown(path: str) -> str:
    """Fit for a line of the log."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "_" for letter in text)

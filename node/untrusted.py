"""Files in a folder where a build's commands could make, replace and link whatever they like.

Every access is relative to a descriptor of that folder, which is a mount source and so cannot
itself be replaced. A file is first pinned without opening it (opening a FIFO blocks, opening a
device acts), looked at, then opened by its pin.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from secrets import token_hex

_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOKED_AT = 100_000  # entries of a folder, when its size is asked
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | 0o111


class NotPlain(OSError):
    """It is not a regular file with exactly one link."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file with one link", name)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the folder. Raises OSError."""
    folder = os.open(path, _FOLDER)
    try:
        yield folder
    finally:
        os.close(folder)


def size(folder: int, name: str) -> int:
    """Bytes of a plain file. Raises OSError, NotPlain."""
    with _pinned(folder, name) as pin:
        return os.fstat(pin).st_size


def changed(folder: int, name: str) -> float:
    """When a plain file was changed last, seconds since the epoch; whoever can write to it can set
    this. Raises OSError, NotPlain.
    """
    with _pinned(folder, name) as pin:
        return os.fstat(pin).st_mtime


def read(folder: int, name: str, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from an offset; empty behind the end. Raises OSError, NotPlain."""
    with _pinned(folder, name) as pin:
        file = os.open(f"/proc/self/fd/{pin}", _READ)
    try:
        return os.pread(file, limit, offset)
    finally:
        os.close(file)


def take(folder: int, name: str, target: Path) -> int:
    """Rename a plain file to `target`; its size.

    Raises OSError, NotPlain; nothing is at `target` then.
    """
    with _pinned(folder, name) as pin:
        expected = os.fstat(pin)
        os.rename(name, target, src_dir_fd=folder)
        moved = os.lstat(target)
        try:
            if (moved.st_dev, moved.st_ino) != (expected.st_dev, expected.st_ino):
                raise NotPlain(name)
            _disarm(pin, name)
            return os.fstat(pin).st_size
        except BaseException:
            os.unlink(target)
            raise


def check_taken(path: Path) -> None:
    """What `take` put there is what it is to be, also where this process was killed on the way.
    Raises OSError, NotPlain.
    """
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
        raise NotPlain(path.name)
    pin = os.open(path, _PIN)
    try:
        _disarm(pin, path.name)
    finally:
        os.close(pin)


def empty(folder: int) -> None:
    """Delete everything in the folder, however much and deep: no recursion, no list of it all."""
    while entries := _some_entries(folder):
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _dissolve(entry.name, folder)
            else:
                os.unlink(entry.name, dir_fd=folder)


def usage(folder: int) -> int:
    """Bytes on disk of what is in the folder, as far as it is looked at: the first entries of it
    and of the folders in it.
    """
    total, looked = 0, 0
    for _, _, names, here in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(name, dir_fd=here, follow_symlinks=False).st_blocks * 512
            looked += 1
            if looked >= _LOOKED_AT:
                return total
    return total


def _dissolve(name: str, parent: int) -> None:
    """Remove a folder: files are deleted, folders move beside it under names nobody foresees."""
    child = os.open(name, _FOLDER, dir_fd=parent)
    try:
        while entries := _some_entries(child):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rename(entry.name, token_hex(16), src_dir_fd=child, dst_dir_fd=parent)
                else:
                    os.unlink(entry.name, dir_fd=child)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=parent)


def _some_entries(folder: int) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return list(islice(entries, 1000))


def _disarm(pin: int, name: str) -> None:
    """Nobody on this machine may run what a build made, least of all with its owner's rights."""
    try:
        os.chmod(f"/proc/self/fd/{pin}", 0o644)
    except PermissionError:  # root's, made in the container, where the node is not root
        if os.fstat(pin).st_mode & _SPECIAL_BITS:
            raise NotPlain(name) from None


@contextmanager
def _pinned(folder: int, name: str) -> Iterator[int]:
    pin = os.open(name, _PIN, dir_fd=folder)
    try:
        state = os.fstat(pin)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise NotPlain(name)
        yield pin
    finally:
        os.close(pin)

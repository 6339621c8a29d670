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

from msgspec import Struct

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


@contextmanager
def inside(folder: int, name: str) -> Iterator[int]:
    """A descriptor of a folder in the folder. Raises OSError."""
    child = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield child
    finally:
        os.close(child)


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
    file = open_plain(folder, name)
    try:
        return os.pread(file, limit, offset)
    finally:
        os.close(file)


def open_plain(folder: int, name: str) -> int:
    """A descriptor of a plain file, to read. Raises OSError, NotPlain."""
    with _pinned(folder, name) as pin:
        return os.open(f"/proc/self/fd/{pin}", _READ)


def open_file(folder: int, name: str, expected: os.stat_result) -> int:
    """A descriptor, to read, of a regular file that was looked at before; it may have other names.
    Raises OSError, NotPlain.
    """
    file = os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder)
    state = os.fstat(file)
    if (state.st_dev, state.st_ino) != (expected.st_dev, expected.st_ino):
        os.close(file)
        raise NotPlain(name)
    return file


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
    """Bytes on disk of what is below the folder, as far as it is looked at: the first entries."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in islice(walk(folder, _LOOKED_AT, strict=False), _LOOKED_AT):
            total += entry.state.st_blocks * 512
    return total


class Entry(Struct, frozen=True):
    """Something below a folder."""

    depth: int  # folders that it is in, below that folder
    name: str
    state: os.stat_result
    folder: int  # a descriptor of where it is, until the next entry is asked for


def walk(folder: int, most: int, *, strict: bool) -> Iterator[Entry]:
    """All that is below the folder, in order of names, what is in a folder right behind it; of one
    folder at most so many entries. No link is followed. However deep: no recursion, one descriptor.

    What cannot be looked at is passed over; where `strict`, and where somebody moves things
    meanwhile, it is an OSError.
    """
    here = os.open(".", _FOLDER, dir_fd=folder)
    way = [(os.fstat(here), _names(here, most))]
    try:
        while True:
            if way[-1][1]:
                name = way[-1][1].pop()
                try:
                    state = os.stat(name, dir_fd=here, follow_symlinks=False)
                    yield Entry(len(way) - 1, name, state, here)
                    if stat.S_ISDIR(state.st_mode):
                        here = _changed(here, name, state)
                        way.append((state, _names(here, most)))
                except OSError:
                    if strict:
                        raise
            elif len(way) > 1:
                way.pop()
                here = _changed(here, "..", way[-1][0])
            else:
                return
    finally:
        os.close(here)


def _changed(here: int, name: str, expected: os.stat_result) -> int:
    """A descriptor of that folder, above or in this one, for the one given. Raises OSError."""
    there = os.open(name, _FOLDER, dir_fd=here)
    state = os.fstat(there)
    if (state.st_dev, state.st_ino) != (expected.st_dev, expected.st_ino):
        os.close(there)
        raise OSError(errno.EAGAIN, "it was moved meanwhile", name)
    os.close(here)
    return there


def _names(folder: int, most: int) -> list[str]:
    """In reverse order, so that the first is popped first."""
    with os.scandir(folder) as entries:
        return sorted((entry.name for entry in islice(entries, most)), reverse=True)


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

"""Who has a port of this machine, and which process holds a lock, as the kernel tells it in /proc;
nothing is opened or locked for that.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_PROC = Path("/proc")
_LISTENS = {"tcp": "0A", "udp": "07"}
"""States of a socket that others can speak to, in the kernel's digits."""


class Process(Struct, frozen=True):
    """A process of this machine."""

    id: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.id})"


def holders(protocol: str, port: int) -> tuple[Process, ...]:
    """The processes that have a "tcp" or "udp" port; those of other users are seen by root only."""
    inodes = {
        f"socket:[{inode}]"
        for family in (protocol, f"{protocol}6")
        for inode in _inodes(_PROC / "net" / family, port, _LISTENS[protocol])
    }
    if not inodes:
        return ()
    return tuple(_named(process) for process in _processes() if _has(process, inodes))


def lock_holder(file: Path) -> Process | None:
    """The process that has locked a file, by flock."""
    try:
        status = file.stat()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in _lines(_PROC / "locks"):
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == device:
            return _named(int(fields[4]))
    return None


def _inodes(table: Path, port: int, state: str) -> Iterator[str]:
    for line in _lines(table)[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == state:
            yield fields[9]


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _has(process: int, links: set[str]) -> bool:
    folder = _PROC / str(process) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:  # it has ended, or is another user's
        return False
    return any(_link(folder / name) in links for name in names)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:  # it was closed meanwhile
        return ""


def _named(process: int) -> Process:
    name = "".join(_lines(_PROC / str(process) / "comm")[:1])
    return Process(process, name or "a process")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []

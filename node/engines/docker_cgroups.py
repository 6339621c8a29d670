"""What a container has used: its control group's files where they can be seen here (the engine runs
on this machine), else the engine's own figures.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from protocol.model.build import Usage

_ROOT = Path("/sys/fs/cgroup")
_PROCESSES = Path("/proc")


class Cgroup(Struct, frozen=True):
    """The folders of a container's control group; with version 2 all are the same one."""

    cpu: Path
    memory: Path
    blocks: Path
    unified: bool

    def usage(self) -> Usage:
        """Nothing where the container has ended."""
        return _usage_2(self.cpu) if self.unified else self._usage_1()

    def _usage_1(self) -> Usage:
        read, written = _blocks_1(_text(self.blocks / "blkio.throttle.io_service_bytes_recursive"))
        return Usage(
            cpu=_number(_text(self.cpu / "cpuacct.usage")) / 1e9,
            memory=_named(_text(self.memory / "memory.stat"), "total_rss"),
            read=read,
            written=written,
        )


class Cgroups:
    """Those of an engine's containers, found once. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Cgroup | None] = {}

    def of(self, container: str, process: Callable[[], int]) -> Cgroup | None:
        """The container's; None where it cannot be seen here. `process` is asked once which is its
        first one.
        """
        with self._lock:
            if container in self._found:
                return self._found[container]
        found = _cgroup(process(), container)
        with self._lock:
            return self._found.setdefault(container, found)

    def forget(self, container: str) -> None:
        """It is gone."""
        with self._lock:
            self._found.pop(container, None)


def usage_of(said: dict[str, Any]) -> Usage:
    """The engine's own figures, `GET /containers/ID/stats`."""
    memory = said.get("memory_stats", {}).get("stats", {})
    blocks = said.get("blkio_stats", {}).get("io_service_bytes_recursive") or ()
    moved = {"read": 0, "write": 0}
    for entry in blocks:
        kind = str(entry.get("op", "")).lower()
        if kind in moved:
            moved[kind] += entry["value"]
    return Usage(
        cpu=said.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9,
        memory=memory.get("total_rss", memory.get("anon", 0)),
        read=moved["read"],
        written=moved["write"],
    )


def _cgroup(process: int, container: str) -> Cgroup | None:
    """The control group of a process, where it is the container's: process ids of another machine
    or namespace mean others here.
    """
    folders = dict(_membership(_text(_PROCESSES / str(process) / "cgroup")))
    if process <= 0 or not any(container in path for path in folders.values()):
        return None
    if (_ROOT / "cgroup.controllers").exists():
        home = _ROOT / folders.get("", "").lstrip("/")
        return Cgroup(home, home, home, unified=True)
    cpu, memory, blocks = (
        _ROOT / kind / folders.get(kind, "").lstrip("/") for kind in ("cpuacct", "memory", "blkio")
    )
    return Cgroup(cpu, memory, blocks, unified=False)


def _membership(text: str) -> Iterator[tuple[str, str]]:
    """(controller, path), one after another; the controller of version 2 has no name."""
    for line in text.splitlines():
        _, kinds, path = line.split(":", 2)
        for kind in kinds.split(","):
            yield kind, path


def _usage_2(home: Path) -> Usage:
    read = written = 0
    for line in _text(home / "io.stat").splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split()[1:])
        read += _number(fields.get("rbytes", ""))
        written += _number(fields.get("wbytes", ""))
    return Usage(
        cpu=_named(_text(home / "cpu.stat"), "usage_usec") / 1e6,
        memory=_named(_text(home / "memory.stat"), "anon"),
        read=read,
        written=written,
    )


def _blocks_1(text: str) -> tuple[int, int]:
    """(read, written): the sums over all devices, `8:0 Read 4096`."""
    sums = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        match line.split():
            case [_, ("Read" | "Write") as kind, count]:
                sums[kind] += _number(count)
    return sums["Read"], sums["Write"]


def _named(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return 0


def _number(text: str) -> int:
    word = text.strip()
    return int(word) if word.isascii() and word.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

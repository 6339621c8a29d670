"""The folder of one attempt: what goes into its container, and how its progress is read.

`in/` is mounted read-only: a static busybox, the supervisor that it runs, the plan. `out/` is
mounted read-write, and the build's commands are root in there: all that is read from it is checked
(`node/files/untrusted.py`), bounded, and where it is nonsense reads as if nothing had been written.
What the supervisor writes::

    out/log       output of all steps, appended to
    out/progress  a line for each step that has begun: START, then END EXIT_CODE; replaced whole
    out/result    the image
    out/results/N files that paths of the plan name, counted from 0
    out/names     their base names, a line for each
    out/unmatched the numbers of paths that named no file, a line for each
    out/stream    what the last command has written to its standard output; where that goes to a
                  reader by in/stream, a FIFO, an empty file, which says that it has begun
    out/exit      renamed into place last: "finished", then, with a result, its base name

`outbox/` is what the container sees as /outbox; nothing in it is trusted either.

A log offset never moves back: where a command cuts the log short, the supervisor fills it up to
where that command's output began, so that what was read before stays true; what was cut and not yet
read is lost, and a line says so.
"""

import contextlib
import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from node.core.plan import (
    IN,
    OUT,
    OUTBOX,
    PLAN,
    Plan,
    PlannedCommand,
    Step,
    Verdict,
    command_shell,
    decode_plan,
    encode_plan,
    parse_exit,
    parse_names,
    parse_progress,
    parse_unmatched,
    paths_shell,
    plan_shell,
)
from node.engines.base import Mount
from node.files import untrusted

__all__ = ["BusyboxUnfit", "Plan", "PlannedCommand", "Step", "Verdict", "WorkFolder"]

_SUPERVISOR = "supervisor.sh"
_RESERVE = 64 << 10  # bytes to be freed on a full disk, for writing down what happened
_SLACK = 64 << 10  # bytes a step may add to a log at its limit: the supervisor's own lines
_SMALL = 8 << 10  # bytes of the exit record
_NAME = 1 << 10  # bytes of a file's name


class BusyboxUnfit(OSError):
    """The busybox of the settings cannot be used in any image; the text says why."""


class WorkFolder:
    """One attempt's folder. Every method may be called from any thread."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root = root.absolute()
        self.plan = plan
        self._out = self.root / "out"
        self._outbox = self.root / "outbox"
        texts = sum(len(command.failure) for command in plan.commands)
        self._log_bound = plan.log_limit + (plan.steps + 1) * _SLACK + 4 * texts

    @classmethod
    def create(cls, root: Path, plan: Plan, busybox: Path | None) -> "WorkFolder":
        """Make the folder; one that an earlier life left there is replaced.

        `busybox` is None for an engine that plays the plan itself. Raises BusyboxUnfit, OSError.
        """
        if busybox is not None:
            check_busybox(busybox)
        if root.is_dir():
            cls(root, plan).remove()
        folder = cls(root, plan)
        folder.root.mkdir(mode=0o700)
        _fill_in(folder.root / "in", plan, busybox)
        folder._out.mkdir()
        folder._out.chmod(0o777)  # the container's root may be another user; root/ is 0700
        if plan.outbox:
            folder._outbox.mkdir()
            folder._outbox.chmod(0o777)
        _write(folder._out / "log", b"", 0o666)
        _write(folder._out / "reserve", b"\n" * _RESERVE, 0o666)
        return folder

    @classmethod
    def open(cls, root: Path) -> "WorkFolder":
        """The folder of an attempt begun before. Raises OSError, ValueError where it is none."""
        return cls(root, decode_plan((root / "in" / PLAN).read_bytes()))

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What the container has to see."""
        outbox = (Mount(self._outbox, OUTBOX, read_only=False),) if self.plan.outbox else ()
        return (
            Mount(self.root / "in", IN, read_only=True),
            Mount(self._out, OUT, read_only=False),
            *outbox,
        )

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """The container's main process."""
        return (f"{IN}/busybox", "sh", f"{IN}/{_SUPERVISOR}")

    def read_log(self, offset: int, limit: int) -> bytes:
        """Output from an offset; empty where there is no more yet, or the log is no plain file."""
        room = min(limit, self._log_bound - offset)
        return self._read("log", offset, room) if offset >= 0 and room > 0 else b""

    def log_size(self) -> int:
        """Bytes that `read_log` can read."""
        try:
            with untrusted.opened(self._out) as out:
                return min(untrusted.size(out, "log"), self._log_bound)
        except OSError:
            return 0

    def steps(self) -> tuple[Step, ...]:
        """All steps of the plan, those not begun included."""
        count = self.plan.steps
        begun = parse_progress(self._read("progress", 0, 64 * count), count, self._log_bound)
        return begun + tuple(Step(index) for index in range(len(begun), count))

    def begun(self, otherwise: float) -> float:
        """When the step that runs now began, seconds since the epoch; `otherwise` where that cannot
        be seen.
        """
        try:
            with untrusted.opened(self._out) as out:
                return untrusted.changed(out, "progress")
        except OSError:
            return otherwise

    def verdict(self) -> Verdict | None:
        """The exit record, once there is one."""
        return parse_exit(self._read("exit", 0, _SMALL))

    def take_result(self, target: Path) -> int:
        """Rename the result to `target`, on the same file system; answer its size.

        To be called when the container has ended. Raises OSError where it is no plain file;
        nothing is at `target` then.
        """
        with untrusted.opened(self._out) as out:
            return untrusted.take(out, "result", target)

    def result_names(self) -> tuple[str, ...]:
        """What the files were called that the plan's paths named: any text, also of no file."""
        return parse_names(self._read("names", 0, _NAME * self.plan.file_limit))[
            : self.plan.file_limit
        ]

    def unmatched(self) -> tuple[str, ...]:
        """The plan's paths that named no file."""
        return parse_unmatched(self._read("unmatched", 0, _SMALL), self.plan.paths)

    def take_file(self, number: int, target: Path) -> int:
        """As `take_result`, of one of the files that the plan's paths named."""
        with untrusted.opened(self._out) as out, untrusted.inside(out, "results") as results:
            return untrusted.take(results, str(number), target)

    def take_stream(self, target: Path) -> int:
        """As `take_result`, of what was streamed."""
        with untrusted.opened(self._out) as out:
            return untrusted.take(out, "stream", target)

    def open_stream(self) -> int:
        """A descriptor of what is streamed to a file. Raises OSError where that has not begun, or
        is no plain file.
        """
        with untrusted.opened(self._out) as out:
            return untrusted.open_plain(out, "stream")

    def open_pipe(self) -> int:
        """A descriptor of the FIFO's reading end, which does not wait. Raises OSError."""
        return os.open(self.root / "in" / "stream", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    @contextlib.contextmanager
    def outbox(self) -> Iterator[int]:
        """A descriptor of the outbox. Raises OSError."""
        with untrusted.opened(self._outbox) as folder:
            yield folder

    def usage(self) -> int:
        """Bytes that the build has written there."""
        total = 0
        for part in (self._out, self._outbox):
            with contextlib.suppress(OSError), untrusted.opened(part) as folder:
                total += untrusted.usage(folder)
        return total

    def remove(self) -> None:
        """Delete the folder, when the container is removed. Raises OSError."""
        remove_folder(self.root)

    def _read(self, name: str, offset: int, limit: int) -> bytes:
        try:
            with untrusted.opened(self._out) as out:
                return untrusted.read(out, name, offset, limit)
        except OSError:
            return b""


def remove_folder(root: Path) -> None:
    """Delete an attempt's folder, whatever is in it. Raises OSError."""
    for part in (root / "out", root / "outbox", root / "in", root):
        try:
            with untrusted.opened(part) as folder:
                untrusted.empty(folder)
            part.rmdir()
        except FileNotFoundError:
            continue


# Filling in/


def check_busybox(path: Path) -> None:
    """Raises BusyboxUnfit unless it is an executable that needs nothing of any image."""
    try:
        with path.open("rb") as file:
            head = file.read(64 << 10)
    except OSError as error:
        raise BusyboxUnfit(f"busybox {path}: {error.strerror}; install busybox-static") from error
    if head[:4] != b"\x7fELF" or len(head) < 64:
        raise BusyboxUnfit(f"busybox {path} is not an ELF executable")
    if _names_interpreter(head):
        raise BusyboxUnfit(f"busybox {path} is linked dynamically; install busybox-static")


def _names_interpreter(head: bytes) -> bool:
    """Whether an ELF file has a program header PT_INTERP (3)."""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    width, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    places = (table + width * index for index in range(count))
    kinds = (
        struct.unpack_from(order + "I", head, place) for place in places if place + 4 <= len(head)
    )
    return (3,) in kinds


def _fill_in(folder: Path, plan: Plan, busybox: Path | None) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    _write(folder / PLAN, encode_plan(plan))
    if plan.stream:
        _make_fifo(folder / "stream")
    if busybox is None:
        return
    _provide(busybox, folder / "busybox")
    _write(folder / _SUPERVISOR, _supervisor())
    _write(folder / "plan.sh", plan_shell(plan))
    for index, command in enumerate(plan.commands):
        _write(folder / f"command.{index}", command.text, 0o755)
        _write(folder / f"command.{index}.sh", command_shell(command))
    if plan.paths:
        _write(folder / "paths.sh", paths_shell(plan))
    for name in ("pipe", "answer"):
        _make_fifo(folder / name)


def _make_fifo(path: Path) -> None:
    """It can be written to on a read-only mount too."""
    os.mkfifo(path)
    path.chmod(0o666)


def _provide(busybox: Path, target: Path) -> None:
    """Link where possible: two megabytes less per attempt, and the mount is read-only."""
    try:
        os.link(busybox.resolve(), target)
    except OSError:
        _write(target, busybox.read_bytes(), 0o755)


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.write_bytes(data)
    path.chmod(mode)  # whatever the umask is: the container's root may be another user here


@cache
def _supervisor() -> bytes:
    return Path(__file__).with_name(_SUPERVISOR).read_bytes()

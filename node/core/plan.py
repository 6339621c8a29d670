"""What is to happen in a container, how far it is, how it ended: values, and texts that carry them.

The shell texts are read by `node/files/supervisor.sh`; progress and exit record are written by it,
or by an engine that plays the plan itself. Nothing here trusts what it parses.
"""

import re
import shlex
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocol.model.recipe import IsoOutput, OutboxOutput, Output, PathsOutput, StreamOutput

IN = "/toiso/.imagepool/in"
OUT = "/toiso/.imagepool/out"
"""Where a container sees the two halves of its work folder."""
OUTBOX = "/outbox"
"""Where a container sees the folder that is its result, where that is so."""
PLAN = "plan.msgpack"
"""The plan's file, in `IN`."""
NEVER_RAN = 125
"""The exit code of a step that is recorded without having run."""

_NAME = 200  # characters of a result's name
_NUMBER = re.compile(rb"[0-9]{1,18}")
_SLASHES = re.compile("/+")


class PlannedCommand(Struct, frozen=True):
    """One command, ready to run."""

    text: bytes
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    failure: str = ""  # why it could not be prepared: it is not run, and this is its output


class Plan(Struct, frozen=True):
    """What is to happen in a container."""

    commands: tuple[PlannedCommand, ...]
    keep_going: bool  # after a failed command, or record the rest as never run
    log_limit: int  # bytes of output that are kept
    find_iso: bool  # run /toiso/iso_path.sh at the end and keep the file that it names
    log_base: int = 0  # where in the served log the container's output begins
    paths: tuple[str, ...] = ()  # paths and patterns: what they name is copied at the end
    file_limit: int = 0  # files that these may name
    outbox: bool = False  # the container sees a folder as OUTBOX
    stream: str = ""  # standard output of the last command is the result, of this name
    pipe: bool = False  # and is kept nowhere: a FIFO

    @property
    def steps(self) -> int:
        """The commands, and the search for the result where there is one."""
        return len(self.commands) + (self.find_iso or bool(self.paths))


class Step(Struct, frozen=True):
    """How far a step is. The search for the result is one more step behind the commands."""

    index: int
    start: int | None = None  # offset in the log; None: not begun
    end: int | None = None
    exit_code: int | None = None  # NEVER_RAN where it was recorded without having run


class Verdict(Struct, frozen=True):
    """The exit record: every step was gone through."""

    has_result: bool
    name: str  # the result's own, fit to be shown; empty where it has none


def with_output(plan: Plan, output: Output, file_limit: int) -> Plan:
    """The plan that ends with this result; `file_limit`: the files that it may be."""
    match output:
        case IsoOutput():
            return replace(plan, find_iso=True)
        case PathsOutput(paths=paths):
            return replace(plan, paths=paths, file_limit=file_limit)
        case OutboxOutput():
            return replace(plan, outbox=True)
        case StreamOutput(name=name, pipe=pipe):
            return replace(plan, stream=name, pipe=pipe)
    return plan


def encode_plan(plan: Plan) -> bytes:
    """The plan as its file holds it."""
    return msgspec.msgpack.encode(plan)


def decode_plan(data: bytes) -> Plan:
    """The plan in its file. Raises ValueError."""
    try:
        return msgspec.msgpack.decode(data, type=Plan)
    except msgspec.MsgspecError as error:
        raise ValueError(f"this is no plan: {error}") from error


def format_progress(steps: Sequence[Step]) -> bytes:
    """The steps that have begun, as `out/progress` holds them."""
    lines = []
    for step in steps:
        ended = "" if step.end is None else f" {step.end} {step.exit_code}"
        lines.append(f"{step.start}{ended}\n")
    return "".join(lines).encode()


def parse_progress(text: bytes, count: int, bound: int) -> tuple[Step, ...]:
    """At most `count` steps that have begun, up to the first line that makes no sense.

    `bound`: the largest offset that makes sense.
    """
    steps: list[Step] = []
    floor = 0
    for line in text.splitlines()[:count]:
        words = line.split(b" ")
        if len(words) not in (1, 3) or not all(_NUMBER.fullmatch(word) for word in words):
            break
        start, *ending = (int(word) for word in words)
        end, code = ending or (None, None)
        if not floor <= start <= (start if end is None else end) <= bound or (code or 0) > 255:
            break
        steps.append(Step(len(steps), start, end, code))
        if end is None:
            break
        floor = end
    return tuple(steps)


def format_exit(name: str | None) -> bytes:
    """The exit record, with the result's base name where there is a result."""
    return b"finished\n" if name is None else f"finished\n{name}\n".encode()


def parse_exit(text: bytes) -> Verdict | None:
    """What an exit record says; None where it is none."""
    head, separator, name = text.partition(b"\n")
    if head != b"finished" or not separator:
        return None
    shown = name.decode("utf-8", "replace").strip().rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "_" for letter in shown)[:_NAME]
    return Verdict(has_result=bool(name), name="" if shown in (".", "..") else shown)


def format_names(names: Sequence[bytes]) -> bytes:
    """The base names of the files in `out/results`, in order, as `out/names` holds them."""
    return b"".join(name.replace(b"\n", b"_") + b"\n" for name in names)


def parse_names(text: bytes) -> tuple[str, ...]:
    """The names in `out/names`: any text."""
    return tuple(name.decode("utf-8", "replace") for name in text.split(b"\n")[:-1])


def parse_unmatched(text: bytes, paths: Sequence[str]) -> tuple[str, ...]:
    """Which of the paths named no file, as `out/unmatched` says by their numbers."""
    numbers = {int(line) for line in text.splitlines() if _NUMBER.fullmatch(line)}
    return tuple(path for index, path in enumerate(paths) if index in numbers)


# What the supervisor sources


def plan_shell(plan: Plan) -> bytes:
    """What concerns all steps."""
    return (
        f"commands={len(plan.commands)} keep_going={int(plan.keep_going)}"
        f" log_limit={plan.log_limit} find_iso={int(plan.find_iso)}\n"
        f"find_files={int(bool(plan.paths))} file_limit={plan.file_limit}"
        f" outbox={int(plan.outbox)} stream={int(bool(plan.stream))} pipe={int(plan.pipe)}\n"
    ).encode()


def paths_shell(plan: Plan) -> bytes:
    """The paths and patterns as the shell's arguments, no slash behind another."""
    words = [shlex.quote(_SLASHES.sub("/", path)) for path in plan.paths]
    return ("set -- " + " ".join(words) + "\n").encode("utf-8", "replace")


def command_shell(command: PlannedCommand) -> bytes:
    """`failure`, and the command's own part of the words that start it."""
    failure = command.failure or _unfit_words(command)
    if failure:
        shown = shlex.quote(failure.replace("\0", "?"))
        return f"failure={shown}\n".encode("utf-8", "replace")
    variables = [f"{name}={value}" for name, value in command.environment.items()]
    words = [*variables, "/tmp/command", *command.arguments]
    return ('failure=\nset -- "$@" ' + " ".join(map(shlex.quote, words)) + "\n").encode()


def _unfit_words(command: PlannedCommand) -> str:
    """Why these arguments and variables cannot be given to any program; empty where they can."""
    words = [*command.arguments, *command.environment, *command.environment.values()]
    if any("\0" in word for word in words):
        return "an argument or variable holds a NUL character"
    if any(not name or "=" in name for name in command.environment):
        return "a variable's name is empty or holds a ="
    return ""

"""The build model: what is asked for, and what became of it.

A request has separate parts for what defines the result (`Recipe`) and what only guides scheduling
(`Guidance`). A `Build` is one request and what became of it; it is a value, replaced at each step
by `protocol.lifecycle.advance`, never changed.
"""

import enum
import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocol.errors import NotFound

NEVER_RAN = 125
"""Exit code of a command that never ran in a build that has stopped (design: States)."""

IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
"""Names that may reach an engine; which of them are allowed is the operator's setting."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=1 << 20)]
EnvironmentName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")]
Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._/-]{1,63}$")]
Identity = Annotated[str, Meta(pattern=r"^[0-9a-z]{1,64}$")]


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a build: a script with arguments. Exactly one of text and URL says what is
    run.
    """

    name: Name
    text: Text | None = None  # saved to /tmp/command, made executable, run
    url: Annotated[str, Meta(max_length=4096)] | None = None  # where the node fetches the text
    arguments: Annotated[tuple[Text, ...], Meta(max_length=1024)] = ()
    environment: dict[EnvironmentName, Text] = msgspec.field(default_factory=dict)
    time_limit: Annotated[float, Meta(gt=0, le=30 * 86400)] | None = None  # seconds


class ImageBase(Struct, frozen=True, tag_field="kind", tag="image", forbid_unknown_fields=True):
    """A build starts from a container image. Without a name: the base image that the node is set
    to.
    """

    name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class IsoOutput(Struct, frozen=True, tag_field="kind", tag="iso", forbid_unknown_fields=True):
    """The result is the file that `/toiso/iso_path.sh` of the image names."""


class NoOutput(Struct, frozen=True, tag_field="kind", tag="none", forbid_unknown_fields=True):
    """The build makes no file; its log is its result."""


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """What defines the result of a build."""

    commands: Annotated[tuple[Command, ...], Meta(max_length=256)] = ()
    base: ImageBase = ImageBase()
    output: IsoOutput | NoOutput = IsoOutput()
    keep_going: bool = False  # run the commands that follow a failed one


class Needs(Struct, frozen=True, forbid_unknown_fields=True):
    """What a build must have on its node, and may use there at most. None: as the node is set."""

    architecture: Annotated[str, Meta(max_length=32)] | None = None  # as `uname -m` says it
    labels: Annotated[tuple[Label, ...], Meta(max_length=64)] = ()  # the node must carry them all
    cpus: Annotated[float, Meta(gt=0, le=1024)] | None = None
    memory: Annotated[int, Meta(ge=16 << 20, le=1 << 50)] | None = None  # bytes
    disk: Annotated[int, Meta(ge=0, le=1 << 60)] | None = None  # bytes free on the node
    processes: Annotated[int, Meta(ge=2, le=1 << 22)] | None = None
    network: bool = True
    time_limit: Annotated[float, Meta(gt=0, le=30 * 86400)] | None = None  # seconds


class Guidance(Struct, frozen=True, forbid_unknown_fields=True):
    """What guides scheduling and does not change the result."""

    needs: Needs = Needs()
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0  # higher is built earlier
    labels: dict[Label, Annotated[str, Meta(max_length=256)]] = msgspec.field(default_factory=dict)
    note: Annotated[str, Meta(max_length=4096)] = ""


class BuildRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for."""

    recipe: Recipe = Recipe()
    guidance: Guidance = Guidance()


class Forward(Struct, frozen=True):
    """What a scheduler adds to a request that it gives to a node: which attempt this is, and the
    way it came.
    """

    id: Identity
    origin: Identity  # the program that placed this attempt, and will ask after it
    attempt: Annotated[int, Meta(ge=1)]
    owner: str = ""
    path: Annotated[tuple[Identity, ...], Meta(max_length=16)] = ()  # schedulers it came by
    store: str = ""  # id of the origin's store, which has this attempt on record
    key: str = ""  # idempotency key of the create, so that it outlives the origin's store


class State(enum.Enum):
    """The documented status codes."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPED = "stopped"


class Result(enum.Enum):
    """How a stopped build ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # a command failed, or the result could not be made: the user's to mend
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"  # the pool's fault, and no further attempt is made
    REFUSED = "refused"  # nobody may or can run it


class Stage(enum.Enum):
    """Where inside its state a build is; `protocol.lifecycle` has the table."""

    QUEUED = "queued"
    PLACED = "placed"
    PREPARING = "preparing"
    RUNNING = "running"
    COLLECTING = "collecting"
    STOPPED = "stopped"


class CommandStatus(Struct, frozen=True):
    """What became of one command; also of steps that the node adds, such as finding the image."""

    name: str
    start: int | None = None  # where in the attempt's log its output begins; None: not started
    end: int | None = None  # where its output ends; None: not ended
    exit_code: int | None = None
    added: bool = False  # a step of the node's own, not one of the request

    @property
    def state(self) -> State:
        """The documented status code of this command."""
        if self.exit_code is not None:
            return State.STOPPED
        return State.WAITING if self.start is None else State.RUNNING


class Artifact(Struct, frozen=True):
    """A file that a build made."""

    name: str
    size: int  # bytes
    sha256: str  # lower-case hex


class Step(Struct, frozen=True):
    """One entry of a build's history."""

    at: float  # seconds since the epoch, by the clock of the program that wrote it
    event: str
    stage: Stage  # after the event
    cause: str = ""


class NodeReference(Struct, frozen=True):
    """Which node an attempt is on."""

    id: str
    name: str


class Build(Struct, frozen=True):
    """A request and what became of it."""

    id: str
    origin: str  # id of the scheduler, or of the node that a client spoke to directly
    owner: str
    request: BuildRequest
    created: float  # seconds since the epoch
    stage: Stage = Stage.QUEUED
    result: Result | None = None  # only of a stopped build
    reason: str = ""  # why it ended so, or why it waits, in a sentence
    attempt: int = 0  # 0: never placed
    node: NodeReference | None = None
    commands: tuple[CommandStatus, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    log_size: int = 0  # bytes that the attempt's log has so far
    started: float | None = None
    stopped: float | None = None
    history: tuple[Step, ...] = ()
    revision: int = 0  # grows with each change
    key: str = ""  # idempotency key that it was made with; empty: none

    @property
    def state(self) -> State:
        """The documented status code."""
        match self.stage:
            case Stage.QUEUED | Stage.PLACED:
                return State.WAITING
            case Stage.STOPPED:
                return State.STOPPED
            case _:
                return State.RUNNING


class Position(Struct, frozen=True):
    """A place in a build's log: `attempt:offset`. Attempt 0 stands for the newest."""

    attempt: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `attempt:offset`; raises ValueError where it is neither that nor a plain offset."""
        attempt, colon, offset = text.rpartition(":")
        if not all(part.isascii() and part.isdigit() for part in (attempt or "0", offset)):
            raise ValueError(text)
        if len(text) > 40:
            raise ValueError(text)
        return cls(int(attempt or "0") if colon else 0, int(offset))


def artifact_named(artifacts: tuple[Artifact, ...], name: str) -> Artifact:
    """The artifact of this name. Raises NotFound."""
    for artifact in artifacts:
        if artifact.name == name:
            return artifact
    raise NotFound(f"the build has no artifact {name[:128]!r}", field="name")


def new_build(
    build_id: str,
    request: BuildRequest,
    *,
    origin: str,
    owner: str,
    now: float,
    attempt: int = 0,
    key: str = "",
) -> Build:
    """A build as it stands when it was accepted."""
    commands = tuple(CommandStatus(command.name) for command in request.recipe.commands)
    history = (Step(now, "accepted", Stage.QUEUED),)
    return Build(
        id=build_id,
        origin=origin,
        owner=owner,
        request=request,
        created=now,
        attempt=attempt,
        commands=commands,
        history=history,
        key=key,
    )


def made_at(build_id: str, otherwise: float) -> float:
    """When a build was made, seconds since the epoch, by the clock of the program that gave it its
    id; `otherwise` where the id is none of ours.
    """
    try:
        return int(build_id[:12], 16) / 1000 if len(build_id) == 32 else otherwise
    except ValueError:
        return otherwise


def build_id(now: float, entropy: bytes) -> str:
    """An id of 128 bits: 48 of milliseconds, so that ids sort by age, and 80 that nobody can
    guess.
    """
    milliseconds = int(now * 1000) & ((1 << 48) - 1)
    return f"{milliseconds:012x}" + entropy[:10].hex()

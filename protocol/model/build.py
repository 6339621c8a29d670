"""A build: one request and what became of it. It is a value, replaced at each step by
`protocol.model.lifecycle.advance`, never changed. What is asked for is in
`protocol/model/request.py`.
"""

import enum
from typing import Annotated

from msgspec import Meta, Struct

from protocol.errors import NotFound
from protocol.model.recipe import BuiltBase, DockerfileBase, DownloadBase, FileName, ImageBase
from protocol.model.request import BuildRequest
from protocol.wording import matching

Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
"""A number of bytes, or of something else. What other programs say is held to this and the next
ones: sums, times of day and columns of databases take no more, and NaN would pass every comparison.
"""
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Moment = Annotated[float, Meta(ge=0, le=1e11)]
"""Seconds since the epoch."""

NEVER_RAN = 125
"""Exit code of a command that never ran in a build that has stopped (design: States)."""


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
    """Where inside its state a build is; `protocol.model.lifecycle` has the table."""

    QUEUED = "queued"
    PLACED = "placed"
    PREPARING = "preparing"
    RUNNING = "running"
    COLLECTING = "collecting"
    STOPPED = "stopped"


class CommandStatus(Struct, frozen=True):
    """What became of one command; also of steps that the node adds, such as finding the image."""

    name: str
    start: Count | None = None  # where in the attempt's log its output begins; None: not started
    end: Count | None = None  # where its output ends; None: not ended
    exit_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None
    added: bool = False  # a step of the node's own, not one of the request

    @property
    def state(self) -> State:
        """The documented status code of this command."""
        if self.exit_code is not None:
            return State.STOPPED
        return State.WAITING if self.start is None else State.RUNNING


class Artifact(Struct, frozen=True):
    """A file that a build made, or, while it streams, is making."""

    name: FileName  # people save it under this name: whoever says it, it is no path
    size: Count  # bytes; of one that grows: so far
    # lower-case hex; of one that grows: empty
    sha256: Annotated[str, matching(r"^([0-9a-f]{64})?$(?!\n)", "64 hex digits, or nothing")]
    growing: bool = False
    kept: bool = True  # False: it went to the one reader that it had, and cannot be had again


class Usage(Struct, frozen=True):
    """What a build used, measured from its control group."""

    cpu: Amount = 0.0  # seconds of all processors
    memory: Count = 0  # bytes at its peak, without the page cache
    read: Count = 0  # bytes from block devices
    written: Count = (
        0  # bytes to block devices; with version 1 of control groups only synchronous ones
    )
    disk: Count = 0  # bytes of its files at the end: container layer, outbox, results


class NoticeRecord(Struct, frozen=True):
    """How far one of the request's notices is, by its place there."""

    told: int = 0  # changes of state that were delivered
    failures: int = 0  # tries in a row that failed
    gave_up: str = ""  # why no further one is made


class Step(Struct, frozen=True):
    """One entry of a build's history."""

    at: Moment  # by the clock of the program that wrote it
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
    created: Moment
    stage: Stage = Stage.QUEUED
    result: Result | None = None  # only of a stopped build
    reason: str = ""  # why it ended so, or why it waits, in a sentence
    attempt: Count = 0  # 0: never placed
    node: NodeReference | None = None
    commands: tuple[CommandStatus, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    log_size: Count = 0  # bytes that the attempt's log has so far
    started: Moment | None = None
    stopped: Moment | None = None
    history: tuple[Step, ...] = ()
    revision: Count = 0  # grows with each change
    key: str = ""  # idempotency key that it was made with; empty: none
    usage: Usage | None = None  # None: not measured yet
    pinned: bool = False  # it is kept until somebody unpins it
    retry_of: str = ""  # id of the build whose request it repeats
    notices: tuple[NoticeRecord, ...] = ()
    excused: bool = False  # of a lost attempt: that says nothing of the node it was on

    @property
    def state(self) -> State:
        """The documented status code."""
        return state_of(self.stage)


def state_of(stage: Stage) -> State:
    """The documented status code of a build in this stage."""
    match stage:
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


def image_of(build: Build) -> str | None:
    """The name, with tag or digest, of the image that the build's container is of; None: of the
    base image that the node is set to. An image made here is named by the build that made it.
    """
    match build.request.recipe.base:
        case ImageBase(name=str(name)) | DownloadBase(format="qcow2", tools=str(name)):
            return tagged(name)
        case DockerfileBase() | DownloadBase(format="rootfs"):
            return built_image(build.id)
        case BuiltBase(build=made, sha256=digest):
            return built_image(made, digest or "latest")
    return None


def built_image(build_id: str, tag: str = "latest") -> str:
    """What an image is called on an engine that a build of the pool made. The tag of one that is,
    byte by byte, an artifact of that build is the artifact's digest.
    """
    return f"imagepool/{build_id}:{tag}"


def tagged(name: str) -> str:
    """An image's name with its tag or digest."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


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
    retry_of: str = "",
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
        retry_of=retry_of,
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

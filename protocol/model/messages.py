"""What programs of the pool say to each other besides builds: reports, the roster, pages,
acknowledgements.
"""

import enum
from typing import Annotated

from msgspec import Meta, Struct

from protocol.model.build import Amount, Build, Count, Moment, Result, State, Step
from protocol.model.request import BuildRequest, Forward, Label, Secrets
from protocol.wording import matching

API_VERSION = 1
"""The version of this protocol; a program of another version is shown on the roster and given
nothing.
"""

PATH_LIMIT = 4
"""How many schedulers a forward may have come by (design: How scheduler and node work together,
4).
"""


class Forwarded(Struct, frozen=True):
    """What a scheduler posts to a node's `/create`; the node keeps it, and gives it back to a
    scheduler that has lost its store.
    """

    request: BuildRequest
    forward: Forward
    secrets: Secrets = {}  # on the way to the node only


Word = Annotated[str, Meta(max_length=1024)]
"""What stands on rosters, in logs and in records, said by anybody."""


class Report(Struct, frozen=True):
    """What a program states of itself, and of every build that the asking program placed on it."""

    id: Word
    boot: Word  # drawn at each start: another boot is another life
    name: Word
    role: Word  # "node" or "scheduler"
    version: Word
    api: int
    architecture: Word
    status: Word  # "ready" or "busy"
    priority: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
    token: Word  # opaque; hand it back to be held until something changes
    reason: Annotated[str, Meta(max_length=1 << 16)] = ""  # why busy
    slots: Count = 0
    used: Count = 0
    labels: tuple[Word, ...] = ()
    images: tuple[Word, ...] = ()  # images that need no pull
    cpus: Amount = 0
    memory: Count = 0  # bytes
    disk_free: Count = 0  # bytes
    leaving: bool = False  # it shuts down now: the last report of this boot
    below: tuple[Word, ...] = ()  # ids of all schedulers that it places builds on, at any depth
    builds: tuple[Build, ...] = ()  # those of the asking scheduler; without their requests
    wholes: dict[str, Forwarded] = {}  # of those that its store may not have on record
    more: bool = False  # it has further ended builds to report, when these are acknowledged
    clock: Moment = 0.0  # its wall clock
    kind: Word = ""  # "plain": it speaks only the documented image-creator API
    lacks: tuple[Word, ...] = ()  # what it cannot give that every other node does


class Acknowledgement(Struct, frozen=True):
    """These attempts are on record at their origin, in this store: to it the node need not report
    those that have ended again, and the requests of none.
    """

    attempts: Annotated[tuple[tuple[str, int], ...], Meta(max_length=10_000)]  # (build, attempt)
    store: str = ""


class Cancellation(Struct, frozen=True):
    """What is to be ended: with an attempt, that one only, and no later one."""

    attempt: Annotated[int, Meta(ge=1)] | None = None
    superseded: bool = False  # nobody cancelled the build: another attempt took this one's place


class Sort(enum.Enum):
    """The order of a list: by creation or by the last change; with a minus, the newest first."""

    OLDEST = "created"
    NEWEST = "-created"
    UNCHANGED = "changed"
    CHANGED = "-changed"


LabelQuery = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9._/-]{1,63}(=[^\x00]{0,256})?$(?!\n)",
        "NAME or NAME=VALUE, the name 1 to 63 letters, digits and . _ / -",
    ),
]
"""`NAME`: a build has that label; `NAME=VALUE`: with that value."""


class Joining(Struct, frozen=True):
    """A program asks to be of the pool."""

    secret: Annotated[bytes, Meta(max_length=64)]  # of the join token
    request: Annotated[bytes, Meta(max_length=4096)]  # for a certificate, in PEM
    role: Annotated[str, Meta(pattern=r"^(node|scheduler)$(?!\n)")]
    name: Annotated[str, Meta(pattern=r"^[ -~]{1,200}$(?!\n)")]  # how people call it


class Renewal(Struct, frozen=True):
    """A member asks for another certificate for its key."""

    request: Annotated[bytes, Meta(max_length=4096)]  # in PEM


class Invitation(Struct, frozen=True):
    """What brings another machine into the pool."""

    token: str
    line: str  # to paste there


class Revocation(Struct, frozen=True, forbid_unknown_fields=True):
    """A node is to be put out of the pool."""

    reason: Annotated[str, Meta(max_length=256)] = "by an admin"


class AuthorityState(Struct, frozen=True):
    """Which authorities the pool believes, by the digests of their certificates."""

    makes: str  # the one that makes certificates
    believed: tuple[str, ...]
    waits_for: tuple[str, ...] = ()  # nodes that have yet to take the step before the next one


class Admittance(Struct, frozen=True):
    """What makes a program one of the pool."""

    authorities: tuple[bytes, ...]  # certificates in PEM, whose certificates are believed
    certificate: bytes  # its own, in PEM


class BuildQuery(Struct, frozen=True):
    """Which builds to list, `limit` of them, beginning behind `cursor`. A build must be all that is
    asked for.
    """

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    cursor: Annotated[str, matching(r"^[0-9a-z.]{0,80}$(?!\n)", "a cursor that was given")] = ""
    # its beginning or end
    id: Annotated[
        str, matching(r"^[0-9a-z]{0,64}$(?!\n)", "up to 64 digits and lower-case letters")
    ] = ""
    status: State | None = None
    result: Result | None = None
    owner: Annotated[str, Meta(max_length=128)] | None = None
    labels: Annotated[tuple[LabelQuery, ...], Meta(max_length=16)] = ()
    node: Annotated[str, Meta(max_length=255)] | None = None  # id or name
    since: Moment | None = None  # created then or later; seconds since the epoch
    until: Moment | None = None  # created before that
    text: Annotated[str, Meta(max_length=256)] = ""  # part of the note, in whatever case
    sort: Sort = Sort.NEWEST


class BuildPage(Struct, frozen=True):
    """Some builds, in the order asked for, and where the next page begins; empty at the end."""

    builds: tuple[Build, ...]
    next: str = ""


class Changes(Struct, frozen=True):
    """The builds that changed since a cursor, as they are now, the longest unchanged first."""

    builds: tuple[Build, ...]
    cursor: str
    more: bool = False  # ask again at once
    gone: tuple[str, ...] = ()  # ids of those that are not there any more
    reset: bool = False  # the cursor says nothing here: this begins anew, with everything


class Refusal(Struct, frozen=True):
    """Why a node does not get a build."""

    node: str
    name: str
    reason: str


class Explanation(Struct, frozen=True):
    """Why a build waits, or what happened to it."""

    id: str
    status: State
    reason: str
    place: int | None = None  # in the queue, from 1
    estimate: float | None = None  # seconds until it is likely to begin
    refusals: tuple[Refusal, ...] = ()
    history: tuple[Step, ...] = ()


class Registration(Struct, frozen=True):
    """A node beyond the reach of mDNS makes itself known to a scheduler."""

    url: Annotated[str, Meta(min_length=8, max_length=2048)]


class Cordon(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a node is to get no new builds."""

    reason: Annotated[str, Meta(max_length=1024)] = ""


class PriorityWord(Struct, frozen=True, forbid_unknown_fields=True):
    """An admin's word on a node's priority: one that counts in place of its own, or the highest
    that its own is taken for.
    """

    priority: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None
    cap: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None


class LabelsWord(Struct, frozen=True, forbid_unknown_fields=True):
    """Labels that a node has by an admin's word, beside its own or in their place."""

    labels: Annotated[tuple[Label, ...], Meta(max_length=64)] = ()
    replace: bool = False


class RosterEntry(Struct, frozen=True):
    """One line of the roster."""

    url: str
    found: tuple[str, ...]  # "mdns", "settings", "registered", "remembered"
    # ready, busy, silent, lost, refused, quarantined, cordoned, drained (cordoned and empty);
    # "unanswered" before it answers
    state: str
    reason: str
    id: str = ""
    name: str = ""
    role: str = ""
    version: str = ""
    architecture: str = ""
    stated_priority: int | None = None
    priority: int | None = None  # the effective one, that placement goes by
    slots: int = 0
    used: int = 0
    builds: tuple[str, ...] = ()  # ids of ours that are on it
    labels: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    last_seen: float | None = None  # seconds ago
    latency: float | None = None  # seconds that an unheld poll took
    clock: float | None = None  # seconds that its clock is ahead of the scheduler's
    kind: str = ""  # "plain": it speaks only the documented image-creator API
    lacks: tuple[str, ...] = ()  # what it cannot give that every other node does
    stated_labels: tuple[str, ...] = ()  # its own; `labels` are those that placement goes by


class Roster(Struct, frozen=True):
    """Every node that this scheduler knows of."""

    scheduler: str
    nodes: tuple[RosterEntry, ...]
    waiting: int  # builds
    running: int


class Problem(Struct, frozen=True, omit_defaults=True):
    """An error as the native API tells it (RFC 9457), with the field and what was expected of
    it.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    field: str = ""
    pointer: str = ""  # JSON pointer to the field
    expected: str = ""

"""The build service: the one interface that node, scheduler and HTTP client implement, and that
every API family uses.

Every verb takes the caller and may raise any `protocol.errors.PoolError`. The contract suite,
tests/contract/, says with tests what is said here in words.
"""

import enum
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from protocol.model.build import Artifact, Build, Position
from protocol.model.messages import (
    Acknowledgement,
    BuildPage,
    BuildQuery,
    Changes,
    Explanation,
    Report,
)
from protocol.model.request import BuildRequest, Forward, Secrets


class Role(enum.Enum):
    """What a caller is to this program; `protocol/api/access.py` says what each may do."""

    NOBODY = "nobody"  # nothing says who it is
    VIEWER = "viewer"
    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"
    NODE = "node"  # a program of the pool that builds are given to
    PROGRAM = "program"  # one that gives builds: a scheduler


class Caller(Struct, frozen=True):
    """On whose behalf a verb is called."""

    owner: str = "anonymous"
    role: Role = Role.ADMIN
    program: str = ""  # id of the calling program, where it is one
    store: str = ""  # id of that program's store: what it can know of builds
    token: str = ""  # id of the token, or session, that it showed
    by: str = ""  # who asks, where that is not the owner but acts for them


LOCAL = Caller(owner="local", role=Role.ADMIN)
"""The program itself, or the person who sits at its machine."""


class ByteStream(Protocol):
    """Bytes that arrive one piece after another; at most one piece is held in memory."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces, in order. Raises Unavailable where the source breaks off before its end."""

    async def close(self) -> None:
        """Let go of the source; may be called at any time, also twice."""


class OpenLog(Struct, frozen=True):
    """A part of one attempt's log."""

    attempt: int
    start: int  # offset of the first byte
    stream: ByteStream
    length: int | None = None  # bytes of the stream; None where nobody knows yet


class OpenArtifact(Struct, frozen=True):
    """A byte range of an artifact."""

    artifact: Artifact
    start: int  # first byte
    end: int | None  # behind the last byte; None: until it has grown to its end
    stream: ByteStream


class ByteRange(Struct, frozen=True):
    """What part of an artifact is wanted: `start` to before `end`, or the last `-start` bytes."""

    start: int = 0
    end: int | None = None

    def within(self, size: int) -> tuple[int, int] | None:
        """(start, end) inside a whole of this size; None where there is nothing of it inside."""
        start = max(0, size + self.start) if self.start < 0 else self.start
        end = size if self.end is None else min(self.end, size)
        return (start, end) if start < end else None


class BuildService(Protocol):
    """Builds, as somebody who wants them sees them."""

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
    ) -> Build:
        """Accept a build; it is on disk before this returns. With `forward` it is a scheduler's
        attempt, and a repeated one answers the same build. With `key`, a client's idempotency key,
        the same owner's repeated request answers the same build, for a day.

        Raises Invalid, Denied (an image that is not allowed), Busy (no room; nothing was accepted),
        Conflict (a forward that is older than one already seen, or came by us before; a key that
        was used for another request), Unavailable (it could not be written down).
        """

    async def preview(self, caller: Caller, request: BuildRequest) -> Explanation:
        """What would become of this request, without accepting it: where it would be placed, or
        why it would wait. Raises what `submit` raises for it.
        """

    async def retry(
        self, caller: Caller, build_id: str, key: str = "", secrets: Secrets | None = None
    ) -> Build:
        """A new build of a stopped build's request. Raises Conflict where it has not stopped, or
        where it had secrets, which are not kept, and none are given.
        """

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """Keep the build, its log and artifacts until it is unpinned. Raises Unavailable where
        its node does not answer: nothing has changed then.
        """

    async def delete(self, caller: Caller, build_id: str) -> None:
        """Forget a stopped build, its log and artifacts. Raises Conflict where it has not stopped,
        or is pinned; Unavailable where its node does not answer.
        """

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """The build as it is now; with `after`, held up to `wait` seconds while its revision is
        still that one.
        """

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """A page of the builds that are all that the query asks for, in its order. Raises Conflict
        for a cursor of another order, or of another life of the program.
        """

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """End a build; one that has stopped stays as it is, and with `attempt` one whose attempt is
        another by now. The build as it is then is answered. `superseded`: only this attempt ends,
        in favour of another one; nobody cancelled the build.
        """

    async def open_log(
        self,
        caller: Caller,
        build_id: str,
        position: Position,
        *,
        limit: int | None = None,
        follow: bool = False,
    ) -> OpenLog:
        """The log from a position, `limit` bytes at most; following ends when the attempt does.

        A position in an attempt that was superseded answers the newest attempt from 0. An offset
        behind the end answers from the end.
        """

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """What the build made."""

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """An artifact, or a range of it. One that grows is followed to the end of the build, where
        the stream raises Unavailable unless that is a good one; a range of it is of what is there
        already. Raises NotFound, Unsatisfiable, Conflict (it is not kept, and has its one reader).
        """

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """What this program states of itself; with `after`, held up to `wait` seconds while that
        token is current.
        """

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """The builds that changed since the cursor; without one, all. Held up to `wait` seconds
        while none has. Of what is gone the caller is told what they might have seen.
        """

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """Why the build waits, or what happened to it."""

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """For schedulers: these attempts of mine need no longer be reported."""

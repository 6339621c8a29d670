"""`GET /api/v1/events`: everything that changes, as Server-Sent Events.

Level-triggered: whoever reads is told how things are now, not each step on the way. A slow reader
is told less often, and never less than the last; nothing is kept for it meanwhile. The cursor that
an event carries as its id is opaque; one that says nothing here any more is answered with `reset`,
and then with everything.
"""

import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Protocol

from msgspec import Meta, Struct

from protocol.api import access
from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.negotiation import SSE
from protocol.api.operation import Answer, Argument, Operation
from protocol.api.route import Route
from protocol.api.sse import EventStream
from protocol.errors import Invalid
from protocol.model.build import Build, NodeReference, Result, Stage, State
from protocol.model.messages import RosterEntry
from protocol.model.recipe import Identity

NODES_EVERY = 1.0
"""Seconds between looks at the roster while somebody reads."""
HELD = 30.0
"""Seconds between looks at builds where there is no roster and nothing changes."""
_CURSOR = re.compile(r"([0-9a-f]{1,16}(?:\.\d{1,18}){1,2})?~([0-9a-f]{1,16}\.\d{1,18})?")

Wanted = Annotated[tuple[Identity, ...], Meta(max_length=100)]

Told = tuple[str, Any]
"""An event's name and data."""


class Progress(Struct, frozen=True):
    """How far a build is."""

    commands: int  # in all, with steps of the node's own
    ended: int
    command: str  # name of the one that runs; empty: none
    log_size: int  # bytes


class BuildEvent(Struct, frozen=True):
    """A build as it is now."""

    id: str
    status: State
    stage: Stage
    result: Result | None
    reason: str
    revision: int
    owner: str
    labels: dict[str, str]
    attempt: int
    node: NodeReference | None
    progress: Progress


class NodeNews(Struct, frozen=True):
    """What changed on the roster since a cursor."""

    nodes: tuple[RosterEntry, ...]
    gone: tuple[str, ...]  # ids, or URLs of what never answered
    cursor: str
    reset: bool = False  # the cursor says nothing here: these are all


class NodeFeed(Protocol):
    """The roster as changes; the port is `extras["node_feed"]`, on schedulers."""

    def since(self, cursor: str) -> NodeNews:
        """The nodes that are otherwise than at the cursor; without one, all."""


class Cursor(Struct, frozen=True):
    """How much of builds and of nodes somebody was told."""

    builds: str = ""
    nodes: str = ""

    def __str__(self) -> str:
        return f"{self.builds}~{self.nodes}"


def event_of(build: Build) -> BuildEvent:
    """What is told of a build."""
    running = [command.name for command in build.commands if command.state is State.RUNNING]
    ended = sum(1 for command in build.commands if command.state is State.STOPPED)
    return BuildEvent(
        id=build.id,
        status=build.state,
        stage=build.stage,
        result=build.result,
        reason=build.reason,
        revision=build.revision,
        owner=build.owner,
        labels=build.request.guidance.labels,
        attempt=build.attempt,
        node=build.node,
        progress=Progress(
            len(build.commands), ended, running[0] if running else "", build.log_size
        ),
    )


class Events(Handler):
    """Everything that changes."""

    PRODUCES: ClassVar[tuple[str, ...]] = ()

    async def get(self) -> None:
        """Builds and, where the caller may see them, nodes: all of them first, or what changed
        since the Last-Event-ID; then what changes. With `build=ID` those builds only.
        """
        cursor = self._cursor()
        wanted = self._wanted()
        feed: NodeFeed | None = self.context.extras.get("node_feed")
        if wanted or self.caller.role not in access.ALLOWED[Permission.ROSTER]:
            feed = None
        stream = EventStream(self)
        await stream.begin()
        if cursor is None:
            stream.put("reset", {})
        telling = Telling(self, stream, frozenset(wanted), feed, cursor or Cursor())
        while True:
            await telling.builds(HELD if feed is None else NODES_EVERY)
            await telling.nodes()

    def _cursor(self) -> Cursor | None:
        """What the client was told; None where that is not to be read: it begins anew."""
        said = self.request.headers.get("Last-Event-ID", "")
        if not said:
            return Cursor()
        match = _CURSOR.fullmatch(said)
        return Cursor(match[1] or "", match[2] or "") if match is not None else None

    def _wanted(self) -> tuple[str, ...]:
        wanted = tuple(self.get_query_arguments("build"))
        for index, build_id in enumerate(wanted):
            if not re.fullmatch("[0-9a-z]{1,64}", build_id):
                field = f"build[{index}]"
                raise Invalid(f"{field} is none", field=field, expected="the id of a build")
        if len(wanted) > 100:
            raise Invalid("too many builds", field="build", expected="at most 100 builds")
        return wanted


class Telling:
    """What one reader has been told, and what is next."""

    def __init__(
        self,
        handler: Handler,
        stream: EventStream,
        wanted: Collection[str],
        feed: NodeFeed | None,
        cursor: Cursor,
    ) -> None:
        """`wanted`: the only builds to tell of; none: all."""
        self._service, self._caller = handler.service, handler.caller
        self._stream = stream
        self._wanted = wanted
        self._feed = feed
        self._cursor = cursor

    async def builds(self, wait: float) -> None:
        """Tell of a page of builds that changed; wait so many seconds for one."""
        news = await self._stream.until(
            self._service.changes(self._caller, cursor=self._cursor.builds, wait=wait)
        )
        if news.reset:
            self._stream.put("reset", {})
            self._cursor = Cursor()
        self._cursor = Cursor(news.cursor, self._cursor.nodes)
        told: list[Told] = [
            ("build", event_of(build)) for build in news.builds if self._is_wanted(build.id)
        ]
        told += [("build-gone", {"id": key}) for key in news.gone if self._is_wanted(key)]
        await self._tell(told)

    async def nodes(self) -> None:
        """Tell of the nodes that changed."""
        if self._feed is None:
            return
        news = self._feed.since(self._cursor.nodes)
        if news.reset:
            self._stream.put("reset", {})
            self._cursor = Cursor()
            return
        self._cursor = Cursor(self._cursor.builds, news.cursor)
        told: list[Told] = [("node", entry) for entry in news.nodes]
        told += [("node-gone", {"id": node}) for node in news.gone]
        await self._tell(told)

    async def _tell(self, told: list[Told]) -> None:
        """Only behind the last of them has everything been told that the cursor stands for."""
        for number, (event, data) in enumerate(told, 1):
            self._stream.put(event, data, str(self._cursor) if number == len(told) else "")
        await self._stream.flush()

    def _is_wanted(self, build_id: str) -> bool:
        return not self._wanted or build_id in self._wanted


ROUTES = (
    Route(
        "/api/v1/events",
        Events,
        {"GET": Permission.READ},
        operations={
            "GET": Operation(
                "Everything that changes\nEvents `build` (BuildEvent), `build-gone`, `node`,"
                " `node-gone` and `reset`: forget what you know, all of it follows.",
                {200: Answer("an event stream", BuildEvent, (SSE,))},
                (
                    Argument("build", Wanted, "ids: of these builds only, and of no nodes"),
                    Argument("Last-Event-ID", str, "id of the last event that you know", "header"),
                ),
            )
        },
    ),
)

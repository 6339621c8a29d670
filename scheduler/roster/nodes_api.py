"""The nodes of the pool as data: the roster, how a node makes itself known, and what an admin says
of one.

Errors are RFC 9457 problems, as in `protocol/api/native/builds.py`. The handlers see the pool
through the port `extras["roster"]`.
"""

from typing import Any, Protocol

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.operation import Operation, answered, done
from protocol.api.route import Route
from protocol.errors import Invalid
from protocol.model.messages import (
    Cordon,
    LabelsWord,
    PriorityWord,
    Registration,
    Roster,
    RosterEntry,
)
from protocol.ports.service import Role

NODE = r"([A-Za-z0-9][A-Za-z0-9._-]{0,254})"
"""A node's id or name in a route."""


class RosterPort(Protocol):
    """What is shown and done of the pool besides builds. Nodes are named by id or name; each verb
    raises NotFound, and those that change something Unavailable.
    """

    def roster(self) -> Roster:
        """Every node that the scheduler knows of, now."""

    def node(self, name: str) -> RosterEntry:
        """One of them."""

    def register(self, registration: Registration, member: str = "") -> None:
        """A node makes itself known; `member`: its id, where it proved that. Raises Invalid,
        Denied.
        """

    async def cordon(self, node: str, reason: str | None) -> None:
        """Keep new builds from it; None: allow them again."""

    async def drain(self, node: str, reason: str) -> None:
        """Cordon it, to be empty: it is `drained` then."""

    async def set_priority(self, node: str, word: PriorityWord | None) -> None:
        """The admin's word on its priority; None: its own counts."""

    async def set_labels(self, node: str, word: LabelsWord | None) -> None:
        """The admin's labels; None: its own count alone."""

    async def forget(self, node: str) -> None:
        """Drop it from the roster and from memory. Raises Conflict where it has builds or
        answers.
        """


class RosterHandler(Handler):
    """What sees the pool."""

    @property
    def port(self) -> RosterPort:
        """The roster of this scheduler."""
        port: RosterPort = self.context.extras["roster"]
        return port


class Nodes(RosterHandler):
    """The roster for programs."""

    def get(self) -> None:
        """The nodes."""
        self.reply(self.port.roster())

    def post(self) -> None:
        """A node beyond the reach of mDNS makes itself known."""
        member = self.caller.program if self.caller.role is Role.NODE else ""
        self.port.register(self.decoded(Registration), member)
        self.set_status(204)


class OneNode(RosterHandler):
    """A node."""

    def get(self, node: str) -> None:
        """Its line of the roster."""
        self.reply(self.port.node(node))

    async def delete(self, node: str) -> None:
        """Forget it: it is gone for good."""
        await self.port.forget(node)
        self.set_status(204)


class CordonNode(RosterHandler):
    """Taking a node out of use."""

    def setup(self, drain: bool = False) -> None:  # type: ignore[override]
        """`drain`: it is to be empty."""
        self._drain = drain

    async def post(self, node: str) -> None:
        """It gets no new builds, over restarts of the scheduler too; what runs there goes on."""
        wanted = self.decoded(Cordon) if self.received else Cordon()
        doing = self.port.drain if self._drain else self.port.cordon
        await doing(node, wanted.reason or "by an admin")
        self.set_status(204)


class UncordonNode(RosterHandler):
    """Taking it into use again."""

    async def post(self, node: str) -> None:
        """It gets builds again."""
        await self.port.cordon(node, None)
        self.set_status(204)


class NodePriority(RosterHandler):
    """An admin's word on a node's priority."""

    async def put(self, node: str) -> None:
        """It counts from now on, over restarts of the scheduler too."""
        word = self.decoded(PriorityWord)
        if (word.priority is None) == (word.cap is None):
            raise Invalid(
                "there is neither priority nor cap, or both",
                field="priority",
                expected="priority (in place of its own) or cap (the highest)",
            )
        await self.port.set_priority(node, word)
        self.set_status(204)

    async def delete(self, node: str) -> None:
        """Its own word counts again, as the settings have it."""
        await self.port.set_priority(node, None)
        self.set_status(204)


class NodeLabels(RosterHandler):
    """Labels that a node has by an admin's word."""

    async def put(self, node: str) -> None:
        """They count from now on, over restarts of the scheduler too."""
        await self.port.set_labels(node, self.decoded(LabelsWord))
        self.set_status(204)

    async def delete(self, node: str) -> None:
        """Its own count alone."""
        await self.port.set_labels(node, None)
        self.set_status(204)


_NODE = f"/api/v1/nodes/{NODE}"
_OPERATE = Permission.OPERATE


def _said(
    about: str, body: Any = None, *, optional: bool = False, refused: bool = False
) -> Operation:
    """What a route says that changes a node."""
    errors = (409, 502) if refused else (502,)
    return Operation(about, done("it is so"), body=body, body_optional=optional, errors=errors)


ROUTES = (
    Route(
        "/api/v1/nodes",
        Nodes,
        {"GET": Permission.ROSTER, "POST": Permission.JOIN},
        operations={
            "GET": Operation("Every node that the scheduler knows of", answered(Roster, "all")),
            "POST": Operation(
                "A node makes itself known", done("it is asked now"), body=Registration
            ),
        },
    ),
    Route(
        _NODE,
        OneNode,
        {"GET": Permission.ROSTER, "DELETE": _OPERATE},
        operations={
            "GET": Operation("One node", answered(RosterEntry, "its line of the roster")),
            "DELETE": _said("Forget a node that is gone for good", refused=True),
        },
    ),
    Route(
        f"{_NODE}/cordon",
        CordonNode,
        {"POST": _OPERATE},
        operations={"POST": _said("Give a node no new builds", Cordon, optional=True)},
    ),
    Route(
        f"{_NODE}/drain",
        CordonNode,
        {"POST": _OPERATE},
        {"drain": True},
        operations={
            "POST": _said(
                "Cordon a node to be empty\nIt is `drained` when nothing is on it any more.",
                Cordon,
                optional=True,
            )
        },
    ),
    Route(
        f"{_NODE}/uncordon",
        UncordonNode,
        {"POST": _OPERATE},
        operations={"POST": _said("Give a node builds again")},
    ),
    Route(
        f"{_NODE}/priority",
        NodePriority,
        {"PUT": _OPERATE, "DELETE": _OPERATE},
        operations={
            "PUT": _said("An admin's word on a node's priority", PriorityWord),
            "DELETE": _said("A node's own priority counts again"),
        },
    ),
    Route(
        f"{_NODE}/labels",
        NodeLabels,
        {"PUT": _OPERATE, "DELETE": _OPERATE},
        operations={
            "PUT": _said("Labels that a node has by an admin's word", LabelsWord),
            "DELETE": _said("A node's own labels count alone"),
        },
    ),
)

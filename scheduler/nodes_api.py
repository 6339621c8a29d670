"""The nodes of the pool as data: the roster, how a node makes itself known, cordon and uncordon.

Errors are RFC 9457 problems, as in `protocol/api/native.py`. The handlers see the pool through the
port `extras["roster"]`.
"""

from typing import Protocol

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.route import Route
from protocol.messages import Cordon, Registration, Roster

NODE = r"([A-Za-z0-9][A-Za-z0-9._-]{0,254})"
"""A node's id or name in a route."""


class RosterPort(Protocol):
    """What is shown and done of the pool besides builds."""

    def roster(self) -> Roster:
        """Every node that the scheduler knows of, now."""

    def register(self, registration: Registration) -> None:
        """A node makes itself known. Raises Invalid."""

    async def cordon(self, node: str, reason: str | None) -> None:
        """Keep new builds from a node, by id or name; None: allow them again. Raises NotFound,
        Unavailable.
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
        self.port.register(self.decoded(Registration))
        self.set_status(204)


class CordonNode(RosterHandler):
    """Taking a node out of use."""

    async def post(self, node: str) -> None:
        """It gets no new builds, over restarts of the scheduler too; what runs there goes on."""
        wanted = self.decoded(Cordon) if self.received else Cordon()
        await self.port.cordon(node, wanted.reason or "by an admin")
        self.set_status(204)


class UncordonNode(RosterHandler):
    """Taking it into use again."""

    async def post(self, node: str) -> None:
        """It gets builds again."""
        await self.port.cordon(node, None)
        self.set_status(204)


ROUTES = (
    Route("/api/v1/nodes", Nodes, {"GET": Permission.ROSTER, "POST": Permission.JOIN}),
    Route(f"/api/v1/nodes/{NODE}/cordon", CordonNode, {"POST": Permission.OPERATE}),
    Route(f"/api/v1/nodes/{NODE}/uncordon", UncordonNode, {"POST": Permission.OPERATE}),
)

"""Artifacts for other programs of the pool without TLS, for the speed of it: on the listener for
the pool, which has TLS, a ticket is given; on one of its own, which serves nothing else, the
artifact is, to whoever shows that ticket. `docs/adr/0015-transfers.md` says what holds then.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from msgspec import Struct
from tornado.httputil import HTTPServerRequest

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.content import pump
from protocol.api.route import Route
from protocol.errors import Conflict
from protocol.model.build import artifact_named
from protocol.model.transfers import Ticket, TicketRequest
from protocol.ports.service import Caller, Role
from protocol.trust.tickets import Grant, Tickets

TICKET_PATH = "/pool/v1/ticket"
TRANSFER_PATH = "/pool/v1/transfer"
TICKET_HEADER = "Imagepool-Ticket"


class Transfers(Struct, frozen=True):
    """What a program serves without TLS. It is `extras["transfers"]` of both listeners; None where
    there is nothing.
    """

    tickets: Tickets
    marks: Callable[[str, str], bytes]  # of a build's artifact; raises NotFound. Blocks
    port: int  # of the listener without TLS


class Anybody:
    """On a listener where nothing says who asks but what they show. See Callers."""

    def caller_of(self, request: HTTPServerRequest) -> Caller:
        """Nobody."""
        return Caller(owner="", role=Role.NOBODY)


class GiveTicket(Handler):
    """A ticket for an artifact."""

    async def post(self) -> None:
        """To a scheduler, for what it could have here as well."""
        transfers: Transfers | None = self.context.extras["transfers"]
        if transfers is None:
            raise Conflict(
                "artifacts go by TLS here", field="transfers", expected="GET of the artifact"
            )
        asked = self.decoded(TicketRequest)
        artifacts = await self.service.artifacts(self.caller, asked.build)
        artifact = artifact_named(artifacts, asked.name)
        if artifact.growing or not artifact.kept:
            raise Conflict("it has no digest to compare with", field="name", expected="a file")
        marks = await asyncio.to_thread(transfers.marks, asked.build, artifact.name)
        where = self.request.remote_ip or ""
        grant = Grant(self.caller, where, asked.build, artifact.name)
        self.reply(Ticket(transfers.tickets.give(grant), transfers.port, artifact, marks))


class Transfer(Handler):
    """What a ticket is for."""

    PRODUCES: ClassVar[tuple[str, ...]] = ()

    async def get(self) -> None:
        """The whole, once: what it is stands with the ticket, and nothing of it in the request."""
        transfers: Transfers = self.context.extras["transfers"]
        shown = self.request.headers.get(TICKET_HEADER, "")
        grant = transfers.tickets.take(shown, self.request.remote_ip or "")
        opened = await self.service.open_artifact(grant.caller, grant.build, grant.name)
        try:
            assert opened.end is not None  # it did not grow when the ticket was given
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Length", str(opened.end))
            await pump(self, opened.stream)
            self.finish()
        finally:
            await opened.stream.close()


TICKET_ROUTES = (Route(TICKET_PATH, GiveTicket, {"POST": Permission.PLACE}),)
"""On the listener for the pool."""
ROUTES = (Route(TRANSFER_PATH, Transfer, {"GET": Permission.FETCH}),)
"""On the listener without TLS: all that there is."""

"""Artifacts of another program of the pool without TLS, by tickets that it gives over TLS; what
comes is believed by its digest only. Where that does not work, they come by TLS as all else does.
"""

import logging
import time
from urllib.parse import urlsplit

from protocol.api.transfers import TICKET_HEADER, TICKET_PATH, TRANSFER_PATH
from protocol.errors import Busy, Conflict, NotFound, PoolError, Unavailable
from protocol.model.transfers import Ticket, TicketRequest
from protocol.ports.service import OpenArtifact
from protocol.remote.exchange import Exchange
from protocol.remote.guard import Guard
from protocol.remote.response import ResponseStream
from protocol.transfer.check import Check
from protocol.transfer.streams import CheckedStream

log = logging.getLogger(__name__)

PAUSE = 60.0
"""Seconds by TLS, where there is no way without; for good where something was changed on it."""

_SAID = 200  # characters of what is answered that are logged


class Ticketed:
    """Of one program. For use on the event loop."""

    def __init__(self, secured: Exchange, url: str, patience: float, guard: Guard | None) -> None:
        """`secured`: the program at `url` (https), by TLS; `patience`: the seconds that an answer
        may take; `guard`: which addresses may be called.
        """
        self._secured = secured
        host = urlsplit(url).hostname or ""
        self._host = f"[{host}]" if ":" in host else host
        self._patience = patience
        self._guard = guard
        self._plain: dict[int, Exchange] = {}  # by port
        self._not_before = 0.0

    async def open(self, build: str, name: str) -> OpenArtifact | None:
        """The whole artifact; its stream raises Unavailable in place of the first wrong block. None
        where it is to be had by TLS only. Raises Unavailable where the program does not answer.
        """
        if time.monotonic() < self._not_before:
            return None
        try:
            asked = TicketRequest(build, name)
            ticket: Ticket = await self._secured.post(TICKET_PATH, asked, Ticket)
        except (NotFound, Conflict, Busy):
            return None  # what there is not, is not there by TLS either
        try:
            return await self._redeemed(ticket)
        except PoolError as error:
            self._not_before = time.monotonic() + PAUSE
            said = " ".join(error.detail[:_SAID].split())  # by anybody
            log.warning("%s: artifacts come by TLS for a while: %s", self._host, said)
            return None

    async def _redeemed(self, ticket: Ticket) -> OpenArtifact:
        artifact, port = ticket.artifact, ticket.port
        check = Check(artifact.sha256, artifact.size, ticket.marks, self._changed)
        if port not in self._plain:
            url = f"http://{self._host}:{port}"
            self._plain[port] = Exchange(url, {}, self._patience, guard=self._guard)
        shown = {TICKET_HEADER: ticket.text}
        response = await self._plain[port].open(TRANSFER_PATH, {}, shown)
        if response.status != 200 or response.content_length != artifact.size:
            response.close()
            raise Unavailable(f"what comes at port {port} is no artifact of {artifact.size} bytes")
        stream = CheckedStream(ResponseStream(response, artifact.size), check)
        return OpenArtifact(artifact, 0, artifact.size, stream)

    def _changed(self) -> None:
        """In whichever thread."""
        self._not_before = float("inf")
        log.warning(
            "%s: an artifact was changed on its way, which had no TLS: from now on all have it",
            self._host,
        )

    async def close(self) -> None:
        """Close the connections without TLS."""
        for exchange in self._plain.values():
            await exchange.close()

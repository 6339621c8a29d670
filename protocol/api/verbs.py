"""What may be done with a build besides running it, under `/api/v1/builds`: seen before it is made,
repeated, pinned. These routes come before those of `protocol/api/native.py`, which has `DELETE`.
"""

from msgspec import Struct

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.native import view
from protocol.api.route import ID, Route
from protocol.checks import check_secrets
from protocol.request import Order, Secrets


class Repetition(Struct, frozen=True, forbid_unknown_fields=True):
    """What a build needs to be repeated that is not kept."""

    secrets: Secrets = {}


class Preview(Handler):
    """A dry run."""

    async def post(self) -> None:
        """What would become of this order; refused as a create would be."""
        order = self.decoded(Order)
        check_secrets(order.request, order.secrets)
        self.reply(await self.service.preview(self.caller, order.request))


class Retry(Handler):
    """The same again."""

    async def post(self, build_id: str) -> None:
        """A new build of a stopped build's request; a body may carry its secrets."""
        given = self.decoded(Repetition) if self.received else Repetition()
        build = await self.service.retry(
            self.caller, build_id, key=self.idempotency_key(), secrets=given.secrets
        )
        self.set_header("Location", self.url(f"/api/v1/builds/{build.id}"))
        self.reply(view(build), 201)


class Pin(Handler):
    """Keeping a build."""

    async def post(self, build_id: str) -> None:
        """Until it is unpinned."""
        self.reply(view(await self.service.pin(self.caller, build_id, True)))


class Unpin(Handler):
    """Keeping a build no longer than others."""

    async def post(self, build_id: str) -> None:
        """It goes when its time is over."""
        self.reply(view(await self.service.pin(self.caller, build_id, False)))


_BUILD = f"/api/v1/builds/{ID}"

ROUTES = (
    Route("/api/v1/builds/preview", Preview, {"POST": Permission.BUILD}),
    Route(f"{_BUILD}/retry", Retry, {"POST": Permission.BUILD}),
    Route(f"{_BUILD}/pin", Pin, {"POST": Permission.BUILD}),
    Route(f"{_BUILD}/unpin", Unpin, {"POST": Permission.BUILD}),
)

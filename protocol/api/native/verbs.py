"""What may be done with a build besides running it, under `/api/v1/builds`: seen before it is made,
repeated, pinned. These routes come before those of `protocol/api/native/builds.py`, which has
`DELETE`.
"""

from msgspec import Struct

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.counts import check_counts
from protocol.api.native.views import BuildView, view
from protocol.api.operation import KEY, OWNER, Answer, Operation, answered
from protocol.api.route import ID, Route
from protocol.model.checks import check_secrets
from protocol.model.messages import Explanation
from protocol.model.request import Order, Secrets


class Repetition(Struct, frozen=True, forbid_unknown_fields=True):
    """What a build needs to be repeated that is not kept."""

    secrets: Secrets = {}


class Preview(Handler):
    """A dry run."""

    async def post(self) -> None:
        """What would become of this order; refused as a create would be."""
        order = self.decoded(Order)
        check_counts(order.request, self.limits)
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
_A_BUILD = answered(BuildView, "the build")

ROUTES = (
    Route(
        "/api/v1/builds/preview",
        Preview,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation(
                "What would become of an order\nNothing is accepted; it is refused as a create is.",
                answered(Explanation, "where it would be placed, or why it would wait"),
                body=Order,
                errors=(404, 409, 503),
            )
        },
    ),
    Route(
        f"{_BUILD}/retry",
        Retry,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation(
                "Repeat a build\nA new build of a stopped build's request.",
                {201: Answer("the new build", BuildView, headers={"Location": "its URL"})},
                (KEY, OWNER),
                body=Repetition,
                body_optional=True,
                errors=(409, 503),
            )
        },
    ),
    Route(
        f"{_BUILD}/pin",
        Pin,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation("Keep a build until it is unpinned", _A_BUILD, errors=(409, 502))
        },
    ),
    Route(
        f"{_BUILD}/unpin",
        Unpin,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation("Keep a build no longer than others", _A_BUILD, errors=(409, 502))
        },
    ),
)

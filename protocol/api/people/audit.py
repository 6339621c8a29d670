"""What was done, by whom: `/api/v1/audit`."""

from typing import Annotated

from msgspec import Meta
from msgspec.structs import asdict

from protocol.api.access import Permission
from protocol.api.operation import Argument, Operation, Whole, answered
from protocol.api.people.base import PeopleHandler
from protocol.api.route import Route
from protocol.model.people import AuditPage, DeedView

_MOST = 1000  # deeds at once
_USUAL = 100


class WhatWasDone(PeopleHandler):
    """The audit log."""

    async def get(self) -> None:
        """A page of it, the newest first."""
        before = self.whole("before")
        limit = int(self.number("limit", _USUAL, low=1, high=_MOST))
        found = await self.people.audit.deeds(1 << 62 if before is None else before, limit)
        deeds = tuple(DeedView(number=number, **asdict(deed)) for number, deed in found)
        self.reply(AuditPage(deeds, deeds[-1].number if len(deeds) == limit else None))


ROUTES = (
    Route(
        "/api/v1/audit",
        WhatWasDone,
        {"GET": Permission.AUDIT},
        operations={
            "GET": Operation(
                "What was done, and what was refused\nThe newest first; read on with `before`.",
                answered(AuditPage, "a page of it"),
                (
                    Argument("before", Whole, "the `next` of the page before"),
                    Argument(
                        "limit", Annotated[int, Meta(ge=1, le=_MOST)], "how many at most; 100"
                    ),
                ),
                errors=(502,),
            )
        },
    ),
)

"""The native API under `/api/v1`: one route for each verb of the build service. Errors are RFC
9457 problems.
"""

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import asdict

from protocol.api import openapi, reader
from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.content import send_artifact
from protocol.api.counts import check_counts
from protocol.api.native import events, listing, log
from protocol.api.native.multipart import Multipart
from protocol.api.native.views import ArtifactList, BuildList, BuildView, ChangesPage, view
from protocol.api.operation import (
    AFTER,
    BYTES,
    HOLD,
    KEY,
    OWNER,
    Answer,
    Argument,
    Operation,
    answered,
    done,
)
from protocol.api.route import ID, Route
from protocol.model.build import artifact_named
from protocol.model.messages import Acknowledgement, Cancellation, Explanation, Report
from protocol.model.request import Order

CursorText = Annotated[str, Meta(pattern=r"^([0-9a-f]{1,16}(\.[0-9]{1,18}){1,2})?$(?!\n)")]
ARTIFACT = r"([A-Za-z0-9][A-Za-z0-9._-]{0,254})"


class Builds(Multipart):
    """Submit and list."""

    async def post(self) -> None:
        """Submit a build; the answer says where it is from now on."""
        order = self.order()
        check_counts(order.request, self.limits)
        build = await self.service.submit(
            self.caller, order.request, key=self.idempotency_key(), secrets=order.secrets
        )
        self.set_header("Location", self.url(f"/api/v1/builds/{build.id}"))
        self.reply(view(build), 201)

    async def get(self) -> None:
        """List builds; the Link header names the next page, and `next` its cursor."""
        asked = listing.query(
            {name: self.get_query_arguments(name, strip=False) for name in listing.ARGUMENTS}
        )
        page = await self.service.list(self.caller, asked)
        if page.next:
            self.set_header("Link", listing.link(self.url("/api/v1/builds"), asked, page.next))
        self.reply(BuildList(tuple(view(build) for build in page.builds), page.next))


class OneBuild(Handler):
    """A build."""

    async def get(self, build_id: str) -> None:
        """The build; with `after` (its revision) and `wait` (seconds) held until it changes."""
        getting = self.service.get(
            self.caller, build_id, after=self.whole("after"), wait=self.wait_seconds()
        )
        self.reply(view(await self.unless_gone(getting)))

    async def delete(self, build_id: str) -> None:
        """Forget a build that has stopped, its log and artifacts."""
        await self.service.delete(self.caller, build_id)
        self.set_status(204)


class Cancel(Handler):
    """Ending a build."""

    async def post(self, build_id: str) -> None:
        """Cancel it; one that has stopped stays as it is. A body may name the attempt."""
        wanted = self.decoded(Cancellation) if self.received else Cancellation()
        cancelling = self.service.cancel(
            self.caller, build_id, wanted.attempt, superseded=wanted.superseded
        )
        self.reply(view(await cancelling))


class Artifacts(Handler):
    """What a build made."""

    async def get(self, build_id: str) -> None:
        """Name, size and digest of each."""
        self.reply(ArtifactList(await self.service.artifacts(self.caller, build_id)))


class Download(Handler):
    """An artifact's bytes."""

    PRODUCES: ClassVar[tuple[str, ...]] = ()

    async def get(self, build_id: str, name: str) -> None:
        """The whole, or the range that the Range header says; ETag is the digest."""
        artifacts = await self.service.artifacts(self.caller, build_id)
        await send_artifact(self, build_id, artifact_named(artifacts, name), name)

    head = get


class Status(Handler):
    """This program."""

    async def get(self) -> None:
        """What it states of itself; with `after` (its token) and `wait` held until it changes."""
        after = self.get_query_argument("after", "") or None
        getting = self.service.status(self.caller, after=after, wait=self.wait_seconds())
        self.reply(await self.unless_gone(getting))


class ChangesSince(Handler):
    """What changed."""

    async def get(self) -> None:
        """The builds that changed since `cursor`; held up to `wait` seconds while none has."""
        getting = self.service.changes(
            self.caller, cursor=self.get_query_argument("cursor", ""), wait=self.wait_seconds()
        )
        changes = await self.unless_gone(getting)
        builds = tuple(view(build) for build in changes.builds)
        self.reply(ChangesPage(**{**asdict(changes), "builds": builds}))


class Explain(Handler):
    """Why a build waits, or what happened to it."""

    async def get(self, build_id: str) -> None:
        """Each node's refusal, the place in the queue, the history."""
        self.reply(await self.service.explain(self.caller, build_id))


class Acknowledgements(Handler):
    """For schedulers."""

    async def post(self) -> None:
        """These attempts need no longer be reported."""
        await self.service.acknowledge(self.caller, self.decoded(Acknowledgement))
        self.set_status(204)


_BUILD = f"/api/v1/builds/{ID}"
_A_BUILD = answered(BuildView, "the build")
_FILE = {
    "ETag": "the SHA-256 in quotes",
    "Repr-Digest": "the same as RFC 9530 has it",
    "Content-Disposition": "its name",
    "Accept-Ranges": "bytes",
}
_DOWNLOAD = Operation(
    "The bytes of an artifact\nOr the range that Range says, where If-Range is current.",
    {
        200: Answer("the whole", media_types=(BYTES,), headers=_FILE),
        206: Answer("the range", media_types=(BYTES,), headers={**_FILE, "Content-Range": "which"}),
        304: Answer("If-None-Match names it: you have it"),
    },
    errors=(416, 502),
)

ROUTES = (
    Route(
        "/api/v1/builds",
        Builds,
        {"GET": Permission.READ, "POST": Permission.BUILD},
        operations={
            "GET": Operation(
                "List builds\nA build is listed that is all that is asked for.",
                {200: Answer("a page", BuildList, headers={"Link": "of the next page"})},
                listing.arguments(),
                errors=(409,),
            ),
            "POST": Operation(
                "Submit a build",
                {201: Answer("the build", BuildView, headers={"Location": "its URL"})},
                (KEY, OWNER),
                body=Order,
                errors=(409, 503),
            ),
        },
    ),
    Route(
        _BUILD,
        OneBuild,
        {"GET": Permission.READ, "DELETE": Permission.BUILD},
        operations={
            "GET": Operation("A build", _A_BUILD, (AFTER, HOLD), errors=(502,)),
            "DELETE": Operation(
                "Forget a build\nOne that has stopped and is not pinned, its log and artifacts.",
                {204: Answer("it is forgotten")},
                errors=(409, 502),
            ),
        },
    ),
    Route(
        f"{_BUILD}/cancel",
        Cancel,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation(
                "End a build\nOne that has stopped stays as it is.",
                _A_BUILD,
                body=Cancellation,
                body_optional=True,
                errors=(502,),
            )
        },
    ),
    *log.ROUTES,
    *events.ROUTES,
    Route(
        f"{_BUILD}/artifacts",
        Artifacts,
        {"GET": Permission.READ},
        operations={"GET": Operation("What a build made", answered(ArtifactList, "each"))},
    ),
    Route(
        f"{_BUILD}/artifacts/{ARTIFACT}",
        Download,
        {"GET": Permission.READ, "HEAD": Permission.READ},
        operations={"GET": _DOWNLOAD, "HEAD": _DOWNLOAD},
    ),
    Route(
        f"{_BUILD}/explain",
        Explain,
        {"GET": Permission.READ},
        operations={
            "GET": Operation(
                "Why a build waits, or what happened to it",
                answered(Explanation, "reasons and history"),
            )
        },
    ),
    Route(
        "/api/v1/status",
        Status,
        {"GET": Permission.STATUS},
        operations={
            "GET": Operation(
                "What this program states of itself",
                answered(Report, "its report"),
                (Argument("after", str, "the token that you know"), HOLD),
            )
        },
    ),
    Route(
        "/api/v1/changes",
        ChangesSince,
        {"GET": Permission.READ},
        operations={
            "GET": Operation(
                "The builds that changed since a cursor",
                answered(ChangesPage, "each once, as it is now"),
                (Argument("cursor", CursorText, "of an earlier answer"), HOLD),
            )
        },
    ),
    Route(
        "/api/v1/acknowledgements",
        Acknowledgements,
        {"POST": Permission.PLACE},
        operations={
            "POST": Operation(
                "For schedulers: these attempts are on record",
                done("it will not tell of them again"),
                body=Acknowledgement,
            )
        },
    ),
    *openapi.ROUTES,
    *reader.ROUTES,
)

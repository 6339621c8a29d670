"""Uploads under `/api/v1/blobs`: bytes by their digest, passed on while they arrive."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.operation import BYTES, Answer, Operation, answered
from protocol.api.reading import DRAIN
from protocol.api.route import Route
from protocol.model.recipe import Digest
from protocol.ports.blobs import Blobs
from protocol.ports.service import Caller
from protocol.storage.blob_folder import Pipe

BLOBS = "/api/v1/blobs"
HUNG_UP = "the client hung up"


class Digests(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked after."""

    digests: Annotated[tuple[Digest, ...], Meta(max_length=10_000)]


class Absent(Struct, frozen=True):
    """What is not here, in order."""

    missing: tuple[str, ...]


class Kept(Struct, frozen=True):
    """What was uploaded."""

    sha256: str


class Uploading:
    """A body, or a part of one, on its way to where blobs are kept."""

    def __init__(
        self, blobs: Blobs, caller: Caller, *, sha256: str = "", size: int | None = None
    ) -> None:
        self._pipe = Pipe()
        self.put = self._pipe.put
        upload = blobs.upload(caller, self._pipe, sha256=sha256, size=size)
        self._task = asyncio.ensure_future(self._uploaded(upload))
        self._task.add_done_callback(_heeded)

    async def _uploaded(self, upload: Coroutine[Any, Any, str]) -> str:
        try:
            return await upload
        finally:
            await self._pipe.close()

    async def end(self) -> str:
        """That was all: its digest. Raises what `Blobs.upload` does."""
        await self._pipe.end()
        return await self._task

    async def break_off(self) -> None:
        """The client hung up: nothing is kept."""
        await self._pipe.break_off(HUNG_UP)


class Upload(Handler):
    """Taking bytes in."""

    def setup(self, **options: Any) -> None:
        """Nothing is under way."""
        self._uploading: Uploading | None = None
        self._breaking: asyncio.Task[None] | None = None

    def bound(self) -> int:
        """Uploads have a limit of their own."""
        return self.limits.upload_limit + DRAIN

    def prepare(self) -> None:
        """Begin to pass the body on."""
        super().prepare()
        length = self.request.headers.get("Content-Length", "")
        self._blobs: Blobs = self.context.extras["blobs"]
        self._uploading = Uploading(
            self._blobs,
            self.caller,
            sha256=self.path_args[0] if self.path_args else "",
            size=int(length) if length.isdigit() else None,
        )

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        """Called for each piece of the body; the next one waits until it returns."""
        if self._uploading is not None:
            await self._uploading.put(chunk)

    def on_connection_close(self) -> None:
        """What has arrived is dropped."""
        super().on_connection_close()
        if self._uploading is not None:
            self._breaking = asyncio.ensure_future(self._uploading.break_off())

    async def put(self, sha256: str) -> None:
        """The bytes with this digest; 200 where they were here before."""
        absent = await self._blobs.missing(self.caller, (sha256,))
        await self._kept(201 if absent else 200)

    async def post(self) -> None:
        """Whatever bytes; the answer has their digest."""
        await self._kept(201)

    async def _kept(self, status: int) -> None:
        assert self._uploading is not None
        digest = await self._uploading.end()
        self.set_header("Location", self.url(f"{BLOBS}/{digest}"))
        self.reply(Kept(digest), status)


class Missing(Handler):
    """What a client need not send."""

    async def post(self) -> None:
        """Which of these digests are not here."""
        wanted = self.decoded(Digests)
        missing = await self.context.extras["blobs"].missing(self.caller, wanted.digests)
        self.reply(Absent(tuple(sorted(missing))))


def _heeded(task: "asyncio.Task[str]") -> None:
    """Somebody looked at how it ended, also where the client hung up."""
    if not task.cancelled():
        task.exception()


_WHERE = {"Location": "its URL"}

ROUTES = (
    Route(
        f"{BLOBS}/missing",
        Missing,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation(
                "What need not be sent\nWhich of these digests are not here.",
                answered(Absent, "those that are to be uploaded"),
                body=Digests,
            )
        },
    ),
    Route(
        BLOBS,
        Upload,
        {"POST": Permission.BUILD},
        operations={
            "POST": Operation(
                "Upload bytes",
                {201: Answer("they are here", Kept, headers=_WHERE)},
                body_media_types=(BYTES,),
                body_optional=True,
                errors=(503,),
            )
        },
    ),
    Route(
        BLOBS + r"/([0-9A-Za-z]{1,128})",
        Upload,
        {"PUT": Permission.BUILD},
        valid={"blob": "[0-9a-f]{64}"},
        operations={
            "PUT": Operation(
                "Upload bytes of a known digest",
                {
                    200: Answer("they were here before", Kept, headers=_WHERE),
                    201: Answer("they are here", Kept, headers=_WHERE),
                },
                body_media_types=(BYTES,),
                errors=(503,),
            )
        },
    ),
)

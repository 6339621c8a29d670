"""The image-creator family: `POST /create`, `GET /status`, `/status/ID`, `/download/ID/NAME.iso`,
`/source`, `/test/...`.

Every node and the scheduler mount it alike. Between programs `/create` and `/status` carry msgpack
(design: Wire).
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import parse_qs

from protocol import wire
from protocol.api import access
from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.content import part_of_log, send_artifact
from protocol.api.counts import check_counts
from protocol.api.image_creator.specification import Specification, redirect_to, to_request
from protocol.api.reading import FORM
from protocol.api.route import ID, Route
from protocol.errors import Invalid, NotFound, PoolError, Unsupported
from protocol.model.build import Build, CommandStatus, State, build_id
from protocol.model.messages import Forwarded
from protocol.model.urls import check_redirect

_REHEARSALS = 1000


class Family(Handler):
    """What the family's handlers share: pages of other origins may call, errors are `{"error":
    ...}`.
    """

    CORS: ClassVar[bool] = True

    def render_error(self, status: int, error: PoolError) -> None:
        """The original's dialect, with the field and what was expected of it; programs get a
        problem.
        """
        if self.wants_msgpack():
            super().render_error(status, error)
            return
        body = {"error": error.detail, "field": error.field, "expected": error.expected}
        self.set_header("Content-Type", wire.JSON)
        self.finish(wire.encode({key: text for key, text in body.items() if text}))

    @property
    def rehearsals(self) -> OrderedDict[str, tuple[str, ...]]:
        """Builds of `/test/create`: id -> names of commands. The oldest are forgotten."""
        kept: OrderedDict[str, tuple[str, ...]] = self.settings.setdefault(
            "rehearsals", OrderedDict()
        )
        return kept

    def specification(self) -> Specification:
        """The argument `specification` of query or form, or else the body. Raises Invalid."""
        text = self.get_query_argument("specification", None, strip=False)
        if text is not None:
            return self.read(text.encode("utf-8", "surrogatepass"), Specification)
        if self.media_type().startswith("multipart/"):
            raise Unsupported(
                "forms of several parts are not read",
                field="Content-Type",
                expected=f"{wire.JSON} or {FORM}",
            )
        body = self.whole_body()
        if self.media_type() == FORM and not body.lstrip().startswith(b"{"):
            body = self._form_field(body)
        return self.read(body, Specification)

    def _form_field(self, body: bytes) -> bytes:
        try:
            fields = parse_qs(
                body.decode("latin-1"), max_num_fields=16, encoding="latin-1", errors="strict"
            )
        except ValueError as error:
            raise Invalid(
                "the form cannot be read", field="body", expected="a form with specification"
            ) from error
        if "specification" not in fields:
            raise Invalid("specification is missing", field="specification", expected="to be given")
        return fields["specification"][-1].encode("latin-1")

    def send_to(self, redirect: str, identity: str) -> None:
        """Redirect the client, with a body for those who do not follow."""
        status_url = self.url(f"/status/{identity}")
        self.set_status(302 if self.request.version == "HTTP/1.0" else 303)
        self.set_header("Location", redirect_to(redirect, status_url))
        self.set_header("Content-Type", wire.JSON)
        self.finish(wire.encode({"id": identity, "status": status_url}) + b"\n")


class Create(Family):
    """Asking for a build."""

    async def post(self) -> None:
        """Build, and redirect to the client's page; a scheduler is answered the build itself."""
        if self.media_type() == wire.MSGPACK:
            access.check(self.caller, Permission.PLACE)
            forwarded = self.decoded(Forwarded)
            build = await self.service.submit(
                self.caller, forwarded.request, forwarded.forward, secrets=forwarded.secrets
            )
            self.reply(build, 201)
            return
        specification = self.specification()
        check_redirect(specification.redirect, self.limits.redirects, "redirect")
        request = to_request(specification, self.limits.images)
        check_counts(request, self.limits, "")
        self.url("")  # a Host header that names no host is refused before anything is started
        build = await self.service.submit(self.caller, request, key=self.idempotency_key())
        self.send_to(specification.redirect, build.id)


class TestCreate(Family):
    """The same as create, but no commands are issued."""

    def get(self) -> None:
        """Check everything, and redirect to the status of a build that ended at once."""
        specification = self.specification()
        check_redirect(specification.redirect, self.limits.redirects, "redirect")
        check_counts(to_request(specification, self.limits.images), self.limits, "")
        identity = build_id(time.time(), secrets.token_bytes(10))
        self.rehearsals[identity] = tuple(command.name for command in specification.commands)
        while len(self.rehearsals) > _REHEARSALS:
            self.rehearsals.popitem(last=False)
        self.send_to(specification.redirect, identity)

    post = get


class Status(Family):
    """This program."""

    async def get(self) -> None:
        """Ready or busy, and the priority; a scheduler that asks for msgpack gets the whole
        report.
        """
        after = self.get_query_argument("after", "") or None
        getting = self.service.status(self.caller, after=after, wait=self.wait_seconds())
        report = await self.unless_gone(getting)
        if self.wants_msgpack():
            self.reply(report)
        else:
            self.reply({"status": report.status, "priority": report.priority})


class BuildStatus(Family):
    """A build."""

    async def get(self, identity: str) -> None:
        """The documented status. With `wait` (seconds) held until it changes, from the revision
        `after` if given.
        """
        if identity in self.rehearsals:
            self.reply(_rehearsed(self.rehearsals[identity]))
            return
        after, wait = self.whole("after"), self.wait_seconds()
        build = await self.service.get(self.caller, identity, after=after, wait=0)
        if wait and build.state is not State.STOPPED and after in (None, build.revision):
            build = await self.unless_gone(
                self.service.get(self.caller, identity, after=build.revision, wait=wait)
            )
        self.reply(await self._document(build))

    async def _document(self, build: Build) -> dict[str, Any]:
        document: dict[str, Any] = {
            "status": build.state.value,
            "commands": [await self._command(build, command) for command in build.commands],
        }
        if build.state is State.STOPPED and build.artifacts and build.artifacts[0].kept:
            name = build.artifacts[0].name
            document["download"] = self.url(f"/download/{build.id}/{name}")
        document["id"] = build.id
        document["revision"] = build.revision
        if build.result is not None:
            document["result"] = build.result.value
        if build.reason:
            document["reason"] = build.reason
        return document

    async def _command(self, build: Build, command: CommandStatus) -> dict[str, Any]:
        document: dict[str, Any] = {"name": command.name, "status": command.state.value}
        if command.exit_code is not None:
            document["exitcode"] = command.exit_code
        if command.start is not None:
            document["output"] = await self._output(build, command)
        elif command.exit_code is not None:
            document["output"] = f"[imagepool: this never ran: {build.reason}]\n"
        return document

    async def _output(self, build: Build, command: CommandStatus) -> str:
        """The last part of what the command wrote, `output_limit` bytes at most."""
        start = command.start or 0
        end = command.end if command.end is not None else build.log_size
        size, limit = max(0, end - start), self.limits.output_limit
        head = ""
        if size > limit:
            where = self.url(f"/api/v1/builds/{build.id}/log")
            head = f"[imagepool: the last {limit} of {size} bytes; the whole log is at {where}]\n"
        try:
            data = await part_of_log(self, build, end - min(size, limit), end)
        except PoolError as error:
            return f"[imagepool: the log is out of reach: {error.detail}]\n"
        return head + data.decode(errors="replace")


class Download(Family):
    """The result."""

    async def get(self, identity: str, filename: str) -> None:
        """The artifact, under any file name that the client likes."""
        artifacts = await self.service.artifacts(self.caller, identity)
        if not artifacts:
            build = await self.service.get(self.caller, identity)
            raise NotFound(
                f"the build is {build.state.value} and has no image: {build.reason}", field="id"
            )
        await send_artifact(self, identity, artifacts[0], filename)

    head = get


class Source(Family):
    """The source code of this program, as the original's licence has it."""

    async def get(self) -> None:
        """A zip, without keys and local settings."""
        source: Callable[[], Any] = self.context.extras["source"]
        data = await source()
        self.set_header("Content-Type", "application/zip")
        self.set_header("Content-Disposition", 'attachment; filename="imagepool-source.zip"')
        self.finish(data)


def _rehearsed(names: tuple[str, ...]) -> dict[str, Any]:
    output = "[imagepool: a test build; no command is issued]\n"
    commands = [
        {"name": name, "status": "stopped", "output": output, "exitcode": 0} for name in names
    ]
    return {"status": "stopped", "commands": commands}


_READ = {"GET": Permission.READ}
_STATUS = {"GET": Permission.STATUS}

ROUTES = (
    Route("/create", Create, {"POST": Permission.BUILD}),
    Route("/status", Status, _STATUS),
    Route(f"/status/{ID}", BuildStatus, _READ),
    Route(
        f"/download/{ID}/([^/]{{1,255}})",
        Download,
        {"GET": Permission.READ, "HEAD": Permission.READ},
    ),
    Route("/source", Source, {"GET": Permission.SOURCE}),
    Route("/test/create", TestCreate, {"GET": Permission.BUILD, "POST": Permission.BUILD}),
    Route("/test/status", Status, _STATUS),
    Route(f"/test/status/{ID}", BuildStatus, _READ),
)

"""A node that was let into the pool and lies: a real key, a certificate that the real join gave it,
and a server on whose answers a test decides. Whatever it is sent, it keeps.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from protocol import wire
from protocol.concurrency.watch import Watch
from protocol.model.build import Artifact, Build, new_build
from protocol.model.lifecycle import Event, advance
from protocol.model.messages import API_VERSION, Forwarded, Report
from protocol.program import identity
from protocol.program.identity import KEY, key_of
from protocol.program.joining import Applicant
from protocol.trust import token
from protocol.trust.certificates import NODE
from protocol.trust.membership import Memberships


class Sent(Struct, frozen=True):
    """A request that it was sent."""

    method: str
    path: str
    body: bytes


class Liar:
    """See the module. `report` is what it says of itself."""

    def __init__(self, me: str, memberships: Memberships) -> None:
        self.id = me
        self.memberships = memberships
        self.sent: list[Sent] = []
        self.served: dict[str, tuple[Artifact, bytes]] = {}  # path of an artifact -> what is there
        self.url = ""
        self.port = 0
        self.changed = Watch()
        self._said = 0
        self.report = Report(
            id=me,
            boot="b",
            name="liar",
            role="node",
            version="0",
            api=API_VERSION,
            architecture="x86_64",
            status="ready",
            priority=1 << 30,
            token="0",
            slots=1,
        )

    def says(self, **fields: Any) -> None:
        """From now on it reports this."""
        self._said += 1
        self.report = replace(self.report, token=str(self._said), **fields)
        self.changed.touch()

    def builds_sent(self) -> list[Forwarded]:
        """Those that it was given."""
        sent = [one for one in self.sent if (one.method, one.path) == ("POST", "/create")]
        return [wire.decode(one.body, Forwarded, wire.MSGPACK) for one in sent]

    def ended(self, given: Forwarded, *artifacts: Artifact) -> Build:
        """What it says of a build that it was given: that it went well, and made this."""
        forward = given.forward
        build = new_build(
            forward.id, given.request, origin=forward.origin, owner="", now=1, attempt=1
        )
        return well_ended(replace(build, attempt=forward.attempt, artifacts=artifacts))

    def asked_for(self) -> set[str]:
        """Paths that it was asked for."""
        return {one.path for one in self.sent}


def well_ended(build: Build) -> Build:
    """The build, with all that a success has."""
    for event in (Event.PREPARE, Event.RUN, Event.COLLECT, Event.SUCCEED):
        build = advance(build, event, 1)
    return replace(build, commands=tuple(replace(one, exit_code=0) for one in build.commands))


class _Everything(web.RequestHandler):
    """All routes."""

    def initialize(self, liar: Liar) -> None:
        self._liar = liar

    async def prepare(self) -> None:
        sent = Sent(str(self.request.method), self.request.path, self.request.body)
        self._liar.sent.append(sent)

    def _reply(self, value: Any) -> None:
        self.set_header("Content-Type", wire.MSGPACK)
        self.finish(wire.encode(value, wire.MSGPACK))

    async def get(self) -> None:
        liar, path = self._liar, self.request.path
        if path == "/status":
            wait = float(self.get_argument("wait", "0"))
            if self.get_argument("after", "") == liar.report.token:
                await liar.changed.wait(liar.changed.count, wait)
            self._reply(liar.report)
        elif path in liar.served:
            artifact, data = liar.served[path]
            self.set_header("ETag", f'"{artifact.sha256}"')
            self.finish(data)
        else:
            self.set_status(404)

    async def post(self) -> None:
        if self.request.path == "/create":
            given = wire.decode(self.request.body, Forwarded, wire.MSGPACK)
            forward = given.forward
            build = new_build(forward.id, given.request, origin=forward.origin, owner="", now=1)
            self._reply(advance(replace(build, attempt=forward.attempt), Event.PREPARE, 1))
        elif self.request.path == "/api/v1/blobs/missing":
            self._reply({"missing": wire.decode(self.request.body, dict, wire.MSGPACK)["digests"]})

    async def put(self) -> None:
        self._reply({"sha256": self.request.path.rpartition("/")[2]})


@asynccontextmanager
async def a_liar(folder: Path, url: str, join: str, host: str = "127.0.0.1") -> AsyncIterator[Liar]:
    """One that joined the pool of the scheduler at that URL (https) by a token, and serves at any
    port of this address.
    """
    data = folder / "liar"
    with identity.open_data(data):
        me = identity.load(data).id
        applicant = Applicant(key_of(data), NODE, "liar")
        memberships = Memberships(data, data / KEY)
        memberships.put(await applicant.join(url, token.read(join)))
        liar = Liar(me, memberships)
        server = HTTPServer(
            web.Application([("/.*", _Everything, {"liar": liar})], log_function=lambda _: None),
            ssl_options=memberships.server(),
        )
        sockets = bind_sockets(0, host)
        server.add_sockets(sockets)
        liar.port = sockets[0].getsockname()[1]
        liar.url = f"https://{host}:{liar.port}"
        try:
            yield liar
        finally:
            liar.says(leaving=True)
            server.stop()
            await server.close_all_connections()

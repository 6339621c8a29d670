"""docs/security.md, "Who may do what": every route of both programs, by every method, in every
role, for an own build and another's, asked of programs that run.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct

from node import parts as node_parts
from protocol.api import access
from protocol.api.route import ID, Route
from protocol.api.traffic_ops.handlers import VERSION
from protocol.errors import Denied, Unauthenticated
from protocol.model.people import NAME
from protocol.model.recipe import IsoOutput
from protocol.ports.service import Caller, Role
from scheduler import app as scheduler_app
from scheduler.roster.nodes_api import NODE
from tests.programs import Program, a_node, a_scheduler, ended, ready, request

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
COLUMNS = ("nobody", "viewer", "user", "operator", "admin", "node", "scheduler")
CLIENTS = ("viewer", "user", "operator", "admin")
ROUTES = {"node": node_parts.ROUTES, "scheduler": scheduler_app.ROUTES}
PLACES = {
    VERSION: "VERSION",
    ID: "ID",
    f"({NAME})": "NAME",
    r"([^/]{1,255})": "NAME",
    r"([A-Za-z0-9][A-Za-z0-9._-]{0,254})": "NAME",
    r"([0-9A-Za-z]{1,128})": "DIGEST",
    r"([0-9a-f]{16})": "DIGEST",
    r"([a-z]+\.[a-z]+)": "NAME",
}
"""Parts of paths, as the document calls them; the first that fits."""
LISTS = ("/api/v1/builds", "/api/v1/changes", "/api/v1/events")
"""What has everything that its caller may see."""
REFUSED = (401, 403)


def written(path: str) -> str:
    """A route's path as the document has it."""
    if path.startswith("/api/v1/nodes/"):
        path = path.replace(NODE, "NODE")
    for pattern, word in PLACES.items():
        path = path.replace(pattern, word)
    assert "(" not in path, path
    return path


def named(routes: tuple[Route, ...]) -> set[str]:
    """METHOD PATH of each."""
    return {f"{method} {written(route.path)}" for route in routes for method in route.permissions}


def documented() -> dict[str, tuple[str, ...]]:
    """METHOD PATH -> what each role may."""
    found: dict[str, tuple[str, ...]] = {}
    heads: tuple[str, ...] = ()
    for line in DOCUMENT.read_text().splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "route":
            heads = tuple(cells[1:])
        for name in re.findall(r"`((?:GET|HEAD|POST|PUT|DELETE) [^`]+)`", cells[0]):
            assert name not in found, name
            found[name] = tuple(cells[1:])
    assert heads == COLUMNS
    return found


def test_every_route_has_a_permission_for_each_method() -> None:
    """One that its handler serves without would be refused as 405; one of a kind that nobody has
    would be there for nobody.
    """
    for routes in ROUTES.values():
        for route in routes:
            assert route.permissions, route.path
            for method, permission in route.permissions.items():
                assert access.ALLOWED[permission], (method, route.path)
    assert set(access.ALLOWED) == set(access.Permission)


def test_the_document_has_every_route() -> None:
    """Each method of each, of both programs; and none besides."""
    assert documented().keys() == named(ROUTES["node"]) | named(ROUTES["scheduler"])


def test_what_nodes_may() -> None:
    """They have no listener for clients to be known on, so they are not asked for below."""
    table = documented()
    for routes in ROUTES.values():
        for route in routes:
            for method, permission in route.permissions.items():
                word = table[f"{method} {written(route.path)}"][COLUMNS.index("node")]
                try:
                    access.check(Caller(owner="", role=Role.NODE), permission)
                except (Denied, Unauthenticated):
                    assert word == "-", (method, route.path)
                else:
                    assert word == "yes", (method, route.path)


class Asking(Struct):
    """A program and those who ask it."""

    program: Program
    session: aiohttp.ClientSession
    headers: dict[str, dict[str, str]]  # role -> what says who asks
    own: dict[str, str] = {}  # owner -> a build

    async def build_of(self, owner: str) -> str:
        """A stopped build, with an artifact."""
        caller = Caller(owner=owner, role=Role.USER)
        wanted = request("print a", output=IsoOutput())
        build = await self.program.service.submit(caller, wanted)
        return (await ended(self.program.service, build.id)).id

    async def may(self, role: str, method: str, path: str) -> str:
        """What the program lets this role do."""
        if "ID" in path.split("/"):
            own = await self._answer(role, method, path, role)
            other = await self._answer(role, method, path, "other")
            if own in REFUSED:
                assert other in REFUSED, (role, method, path, own, other)
                return "-"
            if other != 404:
                return "all"
            assert own != 404, (role, method, path)
            return "own"
        status, body = await self._asked(role, method, path)
        if status in REFUSED:
            return "-"
        if method == "GET" and path in LISTS:
            return "all" if self.own["other"] in body else "own"
        return "yes"

    async def _answer(self, role: str, method: str, path: str, owner: str) -> int:
        build = self.own[owner]
        if method == "DELETE" and role != "nobody":
            build = await self.build_of(owner)
        status, _ = await self._asked(role, method, path.replace("ID", build))
        return status

    async def _asked(self, role: str, method: str, path: str) -> tuple[int, str]:
        path = path.replace("artifacts/NAME", "artifacts/image.iso").replace("NAME", "name.x")
        path = path.replace("VERSION", "1.3").replace("NODE", "none").replace("DIGEST", "0" * 16)
        creates = method in ("POST", "PUT") and "/builds/0" not in path
        async with self.session.request(
            method,
            self.program.url + path,
            headers={"Accept": "*/*", **self.headers[role]},
            data=b"[]" if creates else None,
            allow_redirects=False,
        ) as answer:
            assert answer.status < 500, (role, method, path, await answer.text())
            return answer.status, await self._read(answer)

    async def _read(self, answer: aiohttp.ClientResponse) -> str:
        """The body; of a stream without end, what comes until it has another's build, or pauses."""
        body = b""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(20) as patience:
                async for piece in answer.content.iter_any():
                    body += piece
                    if answer.content_type == "text/event-stream":
                        patience.reschedule(clock() + 0.7)
        except TimeoutError:
            assert body
        return body.decode(errors="replace")


def asked_for(routes: tuple[Route, ...]) -> Iterator[tuple[str, str]]:
    """(method, path), what reads first."""
    names = sorted(named(routes), key=lambda name: (not name.startswith(("GET", "HEAD")), name))
    for name in names:
        method, _, path = name.partition(" ")
        yield method, path


async def table_of(program: Program, routes: tuple[Route, ...]) -> dict[str, dict[str, str]]:
    """METHOD PATH -> role -> what it may."""
    headers: dict[str, dict[str, str]] = {
        "nobody": {},
        "scheduler": {"Imagepool-Program": "a" * 40},
    }
    for role in CLIENTS:
        text, _ = await program.parts.people.accounts.make_token(role, Role(role))
        headers[role] = {"Authorization": f"Bearer {text}"}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        asking = Asking(program, session, headers)
        for owner in (*headers, "other"):
            asking.own[owner] = await asking.build_of(owner)
        return {
            f"{method} {path}": {
                role: await asking.may(role, method, path) for role in COLUMNS if role in headers
            }
            for method, path in asked_for(routes)
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.gen_test(timeout=240)
async def test_what_is_documented_is_what_is_so(tmp_path: Path, name: str) -> None:
    """Whoever asks, for whatever."""
    settings: dict[str, Any] = {"failure_limit": 100_000}
    async with (
        a_node(tmp_path, slots=4, **settings) as node,
        a_scheduler(tmp_path, node.url, **settings) as scheduler,
    ):
        await ready(scheduler)
        program = {"node": node, "scheduler": scheduler}[name]
        found = await table_of(program, ROUTES[name])
    wanted = {
        key: {role: words[COLUMNS.index(role)] for role in COLUMNS if role != "node"}
        for key, words in documented().items()
        if key in found
    }
    assert found == wanted

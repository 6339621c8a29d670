"""Tokens, users, sessions and the audit log, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct

from protocol.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from protocol.model.people import TokenWanted, UserWanted
from protocol.ports.service import LOCAL, Role
from protocol.remote.client import HttpService
from tests.programs import Program, a_node, ended, request

pytestmark = pytest.mark.gen_test(timeout=60)

PASSWORD = "correct horse battery"


class Said(Struct):
    """What was answered."""

    status: int
    body: Any
    headers: Mapping[str, str]


async def curl(program: Program, method: str, path: str, value: Any = None, **headers: str) -> Said:
    """One request; _ in the names of headers stands for -."""
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(
            method, program.url + path, json=value, headers=given, allow_redirects=False
        ) as answer,
    ):
        body = await answer.read()
        return Said(answer.status, json.loads(body) if body else None, answer.headers)


@asynccontextmanager
async def as_bearer(program: Program, token: str) -> AsyncIterator[HttpService]:
    """The program for whoever has that token."""
    client = HttpService(program.url, token=token)
    try:
        yield client
    finally:
        await client.close()


async def an_admin(program: Program) -> str:
    """The first token."""
    text, _ = await program.parts.people.accounts.make_token("root", Role.ADMIN)
    return str(text)


async def test_a_token_from_its_making_to_its_end(tmp_path: Path) -> None:
    """Made by somebody of this machine, as long as there is none; shown once; revoked."""
    async with a_node(tmp_path) as node:
        made = await curl(node, "POST", "/api/v1/tokens", {"name": "ada", "role": "admin"})
        assert (made.status, made.body["owner"], made.body["expires"]) == (201, "ada", None)
        text = made.body["token"]
        assert (await curl(node, "GET", "/api/v1/tokens")).status == 401
        async with as_bearer(node, text) as ada:
            assert (await ada.people.whoami()).role == "admin"
            ci = await ada.people.make_token(TokenWanted("ci", "user", "web", 60))
            assert ci.expires is not None
            assert (ci.owner, round(ci.expires - ci.created)) == ("web", 60)
            listed = await curl(node, "GET", "/api/v1/tokens", Authorization=f"Bearer {text}")
            assert [token["name"] for token in listed.body["tokens"]] == ["ada", "ci"]
            for secret in (text, ci.token):
                assert secret.rpartition("-")[2] not in json.dumps(listed.body)
            async with as_bearer(node, ci.token) as robot:
                assert (await robot.people.whoami()).owner == "web"
                with pytest.raises(Denied):
                    await robot.people.tokens()
                await ada.people.revoke_token("ci")
                with pytest.raises(Unauthenticated):
                    await robot.people.whoami()
            with pytest.raises(NotFound):
                await ada.people.revoke_token("ci")
            with pytest.raises(Conflict):
                await ada.people.make_token(TokenWanted("ada", "user"))


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": "a b", "role": "user"}, "name"),
        ({"name": "a", "role": "program"}, "role"),
        ({"name": "a", "role": "node"}, "role"),
        ({"name": "a", "role": "user", "owner": ""}, "owner"),
        ({"name": "a", "role": "user", "lasts": 0}, "lasts"),
        ({"name": "a", "role": "user", "lasts": -1}, "lasts"),
        ({"name": "a", "role": "user", "x": 1}, "x"),
        ({"role": "user"}, "name"),
    ],
)
async def test_what_is_no_token(tmp_path: Path, wanted: dict[str, Any], field: str) -> None:
    """Is refused by the name of its field."""
    async with a_node(tmp_path) as node:
        said = await curl(node, "POST", "/api/v1/tokens", wanted)
        assert (said.status, said.body["field"]) == (400, field)
        assert said.body["expected"]


async def test_the_first_one_is_an_admin(tmp_path: Path) -> None:
    """Else nobody would be one: the people of this machine are, only while there is nobody."""
    async with a_node(tmp_path) as node:
        for method, path, value in (
            ("POST", "/api/v1/tokens", {"name": "ci", "role": "user"}),
            ("PUT", "/api/v1/users/ada", {"role": "operator", "password": PASSWORD}),
        ):
            said = await curl(node, method, path, value)
            assert (said.status, said.body["field"]) == (409, "role")
        assert (await curl(node, "GET", "/api/v1/tokens")).body == {"tokens": []}


async def test_a_session(tmp_path: Path) -> None:
    """A user logs in: a cookie that scripts cannot read and other sites do not send; it reads, and
    changes something only with the page's proof; it ends.
    """
    async with a_node(tmp_path) as node:
        token = await an_admin(node)
        async with as_bearer(node, token) as root:
            await root.people.put_user("ada", UserWanted("user", PASSWORD))
        began = await curl(node, "POST", "/api/v1/session", {"name": "ada", "password": PASSWORD})
        assert began.status == 200
        cookie, *flags = began.headers["Set-Cookie"].split("; ")
        assert {"HttpOnly", "Path=/", "SameSite=Strict"} <= set(flags)
        assert "Secure" not in flags
        me = await curl(node, "GET", "/api/v1/whoami", Cookie=cookie)
        assert (me.body["owner"], me.body["role"]) == ("ada", "user")
        assert me.body["csrf"] == began.body["csrf"]
        order = {"recipe": {"commands": [{"name": "a", "text": "print a"}]}}
        order["recipe"]["output"] = {"kind": "none"}
        bare = await curl(node, "POST", "/api/v1/builds", order, Cookie=cookie)
        assert (bare.status, bare.body["field"]) == (403, "X-CSRF-Token")
        proof = {"Cookie": cookie, "X_CSRF_Token": began.body["csrf"]}
        made = await curl(node, "POST", "/api/v1/builds", order, **proof)
        assert (made.status, made.body["owner"]) == (201, "ada")
        assert (await curl(node, "DELETE", "/api/v1/session", Cookie=cookie)).status == 403
        over = await curl(node, "DELETE", "/api/v1/session", **proof)
        assert over.status == 204
        assert over.headers["Set-Cookie"].startswith(cookie.partition("=")[0] + '=""')
        after = await curl(node, "GET", "/api/v1/whoami", Cookie=cookie)
        assert (after.status, after.body["role"]) == (200, "nobody")
        await ended(node.service, made.body["id"])


async def test_who_logs_in_again(tmp_path: Path) -> None:
    """Has the new session, and the one before has ended. A page of another port that has no proof
    cannot make them somebody else.
    """
    async with a_node(tmp_path) as node:
        for name in ("ada", "bob"):
            await node.parts.people.accounts.put_user(name, Role.ADMIN, PASSWORD)
        began = await curl(node, "POST", "/api/v1/session", {"name": "ada", "password": PASSWORD})
        old = {"Cookie": began.headers["Set-Cookie"].partition(";")[0]}
        asked = {"name": "bob", "password": PASSWORD}
        assert (await curl(node, "POST", "/api/v1/session", asked, **old)).status == 403
        proof = {**old, "X_CSRF_Token": began.body["csrf"]}
        again = await curl(node, "POST", "/api/v1/session", asked, **proof)
        new = {"Cookie": again.headers["Set-Cookie"].partition(";")[0]}
        assert (await curl(node, "GET", "/api/v1/whoami", **new)).body["owner"] == "bob"
        assert (await curl(node, "GET", "/api/v1/whoami", **old)).body["role"] == "nobody"


async def test_a_cookie_for_a_proxy_that_speaks_tls(tmp_path: Path) -> None:
    """Goes over TLS only; and the proxy's origin is ours."""
    async with a_node(tmp_path, public_url="https://pool.example") as node:
        await node.parts.people.accounts.put_user("ada", Role.ADMIN, PASSWORD)
        wanted = {"name": "ada", "password": PASSWORD}
        said = await curl(node, "POST", "/api/v1/session", wanted, Origin="https://pool.example")
        assert said.status == 200
        assert "Secure" in said.headers["Set-Cookie"].split("; ")


async def test_wrong_passwords(tmp_path: Path) -> None:
    """Are counted by address, whatever the name, also when they come at once; whoever has a token
    is served all the while.
    """
    async with a_node(tmp_path, failure_limit=3, failure_window=600) as node:
        token = await an_admin(node)
        await node.parts.people.accounts.put_user("ada", Role.USER, PASSWORD)
        right = {"name": "ada", "password": PASSWORD}
        for _ in range(4):  # what is right is no failure
            assert (await curl(node, "POST", "/api/v1/session", right)).status == 200
        tries = (
            curl(node, "POST", "/api/v1/session", {"name": name, "password": "x"})
            for name in ("ada", "bob", "eve", "", "mallory", "ada")
        )
        found = await asyncio.gather(*tries)
        assert sorted(said.status for said in found) == [401, 401, 401, 429, 429, 429]
        assert all(int(s.headers["Retry-After"]) > 0 for s in found if s.status == 429)
        assert len({json.dumps(s.body) for s in found if s.status == 401}) == 1
        assert (await curl(node, "POST", "/api/v1/session", right)).status == 429
        async with as_bearer(node, token) as root:
            assert (await root.people.whoami()).role == "admin"


async def test_pages_of_other_origins_change_nothing(tmp_path: Path) -> None:
    """Neither by somebody's token nor by their being anonymous; a log-in neither. Only the
    image-creator API is for such pages.
    """
    async with a_node(tmp_path, anonymous="user") as node:
        token = await an_admin(node)
        evil = {"Origin": "http://evil.example"}
        form = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        bearer = {"Authorization": f"Bearer {token}"}
        for method, path in (
            ("POST", "/api/v1/builds"),
            ("POST", "/api/v1/session"),
            ("DELETE", "/api/v1/session"),
            ("POST", "/api/v1/tokens"),
        ):
            for headers in ({**evil, **bearer}, {**form, **bearer}):
                said = await curl(node, method, path, {}, **headers)
                assert (said.status, said.body["field"]) == (403, "Origin"), (method, path)
        said = await curl(node, "POST", "/api/v1/builds", {}, **evil)
        assert said.body["field"] == "Origin"
        said = await curl(node, "POST", "/create", {}, **evil)
        assert (said.status, said.headers["Access-Control-Allow-Origin"]) == (400, "*")


async def test_users(tmp_path: Path) -> None:
    """Put, changed, listed, removed; what is no user names the field."""
    async with a_node(tmp_path) as node, as_bearer(node, await an_admin(node)) as root:
        ada = await root.people.put_user("ada@web", UserWanted("viewer", PASSWORD))
        again = await root.people.put_user("ada@web", UserWanted("operator", PASSWORD))
        assert (again.role, again.created) == ("operator", ada.created)
        assert await root.people.users() == (again,)
        with pytest.raises(Invalid) as refused:
            await root.people.put_user("bob", UserWanted("user", "short"))
        assert refused.value.field == "password"
        await root.people.remove_user("ada@web")
        with pytest.raises(NotFound):
            await root.people.remove_user("ada@web")
        assert await root.people.users() == ()


async def test_what_is_written_down(tmp_path: Path) -> None:
    """Who, by which token, from where, what, and what came of it: all that changes something, all
    that is refused, and nothing besides. No secret is in it.
    """
    async with a_node(tmp_path) as node:
        token = await an_admin(node)
        async with as_bearer(node, token) as root:
            key = (await root.people.whoami()).token
            ci = await root.people.make_token(TokenWanted("ci", "user"))
            build = await root.submit(LOCAL, request("print a"))
            await curl(
                node,
                "POST",
                f"/api/v1/builds/{build.id}/pin",
                Authorization=f"Bearer {token}",
                Imagepool_Owner="bob",
            )
            robot = {"Authorization": f"Bearer {ci.token}"}
            assert (await curl(node, "GET", "/api/v1/audit", **robot)).status == 403
            assert (await curl(node, "GET", "/api/v1/builds?x=hush")).status == 401
            await curl(node, "POST", "/api/v1/session", {"name": "eve", "password": "hush"})
            page = await root.people.audit()
            assert page.next is None
            found = [(d.who, d.token, d.owner, d.what, d.status) for d in page.deeds]
            assert found == [
                ("", "", "", "POST /api/v1/session", 401),
                ("", "", "", "GET /api/v1/builds", 401),
                ("ci", ci.id, "", "GET /api/v1/audit", 403),
                ("root", key, "bob", f"POST /api/v1/builds/{build.id}/pin", 200),
                ("root", key, "", "POST /api/v1/builds", 201),
                ("root", key, "", "POST /api/v1/tokens", 201),
            ]
            assert {deed.address for deed in page.deeds} == {"127.0.0.1"}
            first = await root.people.audit(limit=4)
            assert first.next == first.deeds[-1].number
            rest = await root.people.audit(first.next, 4)
            assert (*first.deeds, *rest.deeds) == page.deeds
        await ended(node.service, build.id)


@pytest.mark.parametrize("anonymous", ["none", "user"])
async def test_what_comes_to_nothing_has_a_bound(tmp_path: Path, anonymous: str) -> None:
    """Whoever nobody knows can ask for things that fail as often as they like: of that no more is
    kept than of what is refused, and none of it pushes out what was done.
    """
    async with a_node(tmp_path, anonymous=anonymous) as node:
        node.parts.people.audit._limit = 10
        token = await an_admin(node)
        async with as_bearer(node, token) as root:
            await root.people.make_token(TokenWanted("ci", "user"))
            for number in range(60):
                for method, path in (
                    ("POST", f"/nowhere/{number}"),
                    ("PATCH", "/status"),
                    ("POST", "/api/v1/session"),
                    ("POST", "/create"),
                ):
                    assert (await curl(node, method, path, [])).status >= 400
                if anonymous == "none":
                    assert (await curl(node, "DELETE", "/api/v1/session")).status == 204
                await root.people.audit(limit=1)  # written by then
            page = await root.people.audit(limit=1000)
        assert len(page.deeds) < 10 + 100 + 5
        assert page.deeds[-1].what == "POST /api/v1/tokens"


async def test_what_was_done_long_ago_is_forgotten(tmp_path: Path) -> None:
    """After `audit_keep`."""
    async with a_node(tmp_path, home="one") as node:
        assert (await curl(node, "POST", "/api/v1/builds", [])).status == 400
        assert (await curl(node, "GET", "/api/v1/audit")).body["deeds"]
    async with a_node(tmp_path, home="one", audit_keep=1e-9) as node:
        async with asyncio.timeout(10):
            while (await curl(node, "GET", "/api/v1/audit")).body["deeds"]:
                pass  # what it asks takes its turn beside the chore


async def test_who_is_refused_hears_it(tmp_path: Path) -> None:
    """However late the body comes that goes with what is refused: the connection stays."""
    async with a_node(tmp_path) as node:
        await an_admin(node)
        host, _, port = node.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(2):
            head = f"POST /api/v1/builds HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            writer.write(b"{}{}")
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert b" 401 " in answer.splitlines()[0]
            length = int(answer.lower().partition(b"content-length: ")[2].split()[0])
            await reader.readexactly(length)
        head = head.replace("Content-Length: 4", "Content-Length: 4\r\nExpect: 100-continue")
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b" 401 " in answer.splitlines()[0]
        writer.close()
        await writer.wait_closed()

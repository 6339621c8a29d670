"""Answers that go on: who may not have them any more gets no more of them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from protocol.api import standing
from protocol.ports.service import LOCAL, Role
from tests.people.test_people_api import PASSWORD
from tests.programs import Program, a_node, ended, request

pytestmark = pytest.mark.gen_test(timeout=15)

EVENTS = ("/api/v1/events", "/api/v1/builds/ID/log?follow=1")
"""What goes on for as long as it is read, or the build runs."""
End = Callable[[Program], Awaitable[object]]


async def _a_token(program: Program, lasts: float | None) -> dict[str, str]:
    made, _ = await program.parts.people.accounts.make_token("ci", Role.OPERATOR, lasts=lasts)
    return {"Authorization": f"Bearer {made}"}


async def _a_session(program: Program) -> dict[str, str]:
    accounts = program.parts.people.accounts
    text = await accounts.begin_session(await accounts.put_user("ada", Role.OPERATOR, PASSWORD))
    return {"Cookie": f"{accounts.cookie}={text}"}


async def _revoked(program: Program) -> None:
    await program.parts.people.accounts.revoke("ci")


async def _over(program: Program) -> None:
    """It is by itself."""


async def _removed(program: Program) -> None:
    await program.parts.people.accounts.remove_user("ada")


ENDS: dict[str, tuple[Callable[[Program], Awaitable[dict[str, str]]], End]] = {
    "a token is revoked": (lambda program: _a_token(program, None), _revoked),
    "a token's time is over": (lambda program: _a_token(program, 1.0), _over),
    "a user is removed": (_a_session, _removed),
}


@pytest.mark.parametrize("path", EVENTS)
@pytest.mark.parametrize("how", ENDS)
async def test_who_is_known_no_more(tmp_path: Path, monkeypatch, path: str, how: str) -> None:
    """The connection is cut soon, never ended as if that were all."""
    monkeypatch.setattr(standing, "AGAIN", 0.2)
    known, end = ENDS[how]
    async with a_node(tmp_path) as node:
        await node.parts.people.accounts.make_token("root", Role.ADMIN)
        build = await node.service.submit(LOCAL, request("print first\nhang"))
        url = node.url + path.replace("ID", build.id)
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=await known(node)) as answer,
        ):
            assert answer.status == 200
            assert await answer.content.readany()
            await end(node)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()
        await node.service.cancel(LOCAL, build.id)
        await ended(node.service, build.id)


async def test_who_is_still_known(tmp_path: Path, monkeypatch) -> None:
    """Reads on, however often that is looked at."""
    monkeypatch.setattr(standing, "AGAIN", 0.01)
    async with a_node(tmp_path) as node:
        headers = await _a_token(node, None)
        build = await node.service.submit(LOCAL, request("print first\nsleep 0.5\nprint last"))
        url = f"{node.url}/api/v1/builds/{build.id}/log?follow=1"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert (await answer.text()).endswith("last\n")
        await ended(node.service, build.id)

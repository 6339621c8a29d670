"""The page for who is not known, who is, and who may look without a name."""

import re
from pathlib import Path

import aiohttp
import pytest

from protocol.api.callers import csrf_token
from protocol.ports.service import Role
from scheduler.web.pages import POLICY
from tests.people.test_people_api import PASSWORD
from tests.programs import Program, a_scheduler

pytestmark = pytest.mark.gen_test(timeout=60)

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def seen(program: Program, path: str = "/", **headers: str) -> tuple[int, str]:
    """What a browser gets, which is never anything from outside."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(program.url + path, headers={**HTML, **headers}) as answer,
    ):
        text = await answer.text()
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        for place in re.findall(r'(?:src|href|action)="([^"]*)"', text):
            assert place.startswith(("/", "#")), place
            assert not place.startswith("//")
            if place.startswith("/static/"):
                async with session.get(program.url + place) as asset:
                    assert asset.status == 200
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=", text)
        return answer.status, text


async def test_who_is_not_known(tmp_path: Path) -> None:
    """Gets the form, and not a word of the pool; programs get what they always get."""
    async with a_scheduler(tmp_path, name="control") as pool:
        await pool.parts.people.accounts.make_token("root", Role.ADMIN)
        for path in ("/", "/nodes", "/login"):
            status, text = await seen(pool, path)
            assert status == (200 if path == "/login" else 401)
            assert 'id="log-in"' in text
            assert 'type="password"' in text
            assert "control" not in text
        async with aiohttp.ClientSession() as session, session.get(pool.url) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert (await answer.json())["field"] == "Authorization"


async def test_who_logged_in(tmp_path: Path) -> None:
    """Sees the pool, their name, and a way out that proves that the page asks."""
    async with a_scheduler(tmp_path, name="control") as pool:
        accounts = pool.parts.people.accounts
        user = await accounts.put_user("ada@web", Role.VIEWER, PASSWORD)
        cookie = await accounts.begin_session(user)
        status, text = await seen(pool, Cookie=f"{accounts.cookie}={cookie}")
        assert status == 200
        assert "control" in text
        assert "<bdi>ada@web</bdi>" in text
        assert f'data-csrf="{csrf_token(cookie)}"' in text
        assert cookie not in text
        await accounts.end_session(cookie)
        assert (await seen(pool, Cookie=f"{accounts.cookie}={cookie}"))[0] == 401


async def test_who_may_look_without_a_name(tmp_path: Path) -> None:
    """Is shown the way in where there is somebody to be, and else not."""
    async with a_scheduler(tmp_path, anonymous="viewer") as pool:
        status, text = await seen(pool)
        assert (status, "/login" in text) == (200, False)
        await pool.parts.people.accounts.put_user("ada", Role.ADMIN, PASSWORD)
        status, text = await seen(pool)
        assert (status, "/login" in text) == (200, True)
        assert "log-out" not in text


async def test_under_a_path_of_a_proxy(tmp_path: Path) -> None:
    """Everything is asked for below it."""
    async with a_scheduler(tmp_path, public_url="http://127.0.0.1/pool") as pool:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{pool.url}/login", headers=HTML) as answer,
        ):
            text = await answer.text()
        assert 'data-base="/pool"' in text
        assert all(
            place.startswith("/pool/") for place in re.findall(r'(?:src|href)="(.*?)"', text)
        )

"""Tokens, users, and what they did."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Conflict, Denied, Invalid, NotFound
from protocol.ports.service import Role
from protocol.trust.accounts import SESSION, SESSIONS, Accounts

pytestmark = pytest.mark.gen_test


class Clock:
    """Seconds since the epoch, as a test wants them."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def accounts(folder: Path, clock: Clock | None = None) -> AsyncIterator[Accounts]:
    """Those of that folder."""
    opened = Accounts(folder, clock or Clock())
    try:
        yield opened
    finally:
        await opened.close()


async def test_a_token(tmp_path: Path) -> None:
    """It is known after a restart, and its secret stands nowhere."""
    async with accounts(tmp_path) as one:
        assert one.empty
        text, made = await one.make_token("ci", Role.USER)
        assert (made.name, made.owner, made.expires) == ("ci", "ci", None)
        assert not one.empty
    async with accounts(tmp_path) as one:
        assert one.token(text) == made
        assert one.tokens() == (made,)
    secret = text.rpartition("-")[2].encode()
    for path in tmp_path.iterdir():
        assert secret not in path.read_bytes()


async def test_what_is_no_token(tmp_path: Path) -> None:
    """Whatever is wrong with it, the words are the same."""
    async with accounts(tmp_path) as one:
        text, _ = await one.make_token("ci", Role.USER)
        other, _ = await one.make_token("other", Role.ADMIN)
        mixed = text.rpartition("-")[0] + "-" + other.rpartition("-")[2]
        words = set()
        for wrong in ("", "x", text[:-1], text + "a", text[:-1] + "é", mixed, "imagepool-a-b"):
            with pytest.raises(Denied) as caught:
                one.token(wrong)
            words.add(caught.value.detail)
        assert len(words) == 1


async def test_its_end(tmp_path: Path) -> None:
    """By time, or by name or id, over restarts; then the name is free again. One whose time is over
    stays in the list: it does not make a program one that nobody has a token of.
    """
    clock = Clock()
    async with accounts(tmp_path, clock) as one:
        short, _ = await one.make_token("short", Role.USER, lasts=60)
        named, _ = await one.make_token("named", Role.USER)
        by_id, made = await one.make_token("by-id", Role.USER)
        clock.now += 61
        await one.revoke("named")
        await one.revoke(made.id)
        assert [token.name for token in one.tokens()] == ["short"]
        assert not one.empty
        with pytest.raises(NotFound):
            await one.revoke("named")
    async with accounts(tmp_path, clock) as one:
        for text in (short, named, by_id):
            with pytest.raises(Denied):
                one.token(text)
        await one.make_token("named", Role.USER)
        again, _ = await one.make_token("short", Role.USER)
        assert one.token(again).name == "short"
        assert [token.name for token in one.tokens()] == ["named", "short"]
        with pytest.raises(Denied):
            one.token(short)


@pytest.mark.parametrize(
    ("name", "role", "owner"),
    [
        ("", Role.USER, ""),
        ("a b", Role.USER, ""),
        ("x" * 129, Role.USER, ""),
        ("a", Role.PROGRAM, ""),
        ("a", Role.USER, "\n"),
    ],
)
async def test_what_is_not_made(tmp_path: Path, name: str, role: Role, owner: str) -> None:
    """Nothing is kept of it."""
    async with accounts(tmp_path) as one:
        with pytest.raises(Invalid):
            await one.make_token(name, role, owner)
        await one.make_token("taken", Role.USER)
        with pytest.raises(Conflict):
            await one.make_token("taken", Role.USER)
        assert len(one.tokens()) == 1


async def test_a_user(tmp_path: Path) -> None:
    """Is known by name and password; the password stands nowhere."""
    password = "correct horse battery"
    async with accounts(tmp_path) as one:
        await one.put_user("ada", Role.OPERATOR, password)
        assert not one.empty
    async with accounts(tmp_path) as one:
        assert (await one.check_password("ada", password)).role is Role.OPERATOR
        for name, wrong in (("ada", "wrong"), ("bob", password), ("ada", "")):
            with pytest.raises(Denied, match=re.escape("the name or the password is wrong")):
                await one.check_password(name, wrong)
        with pytest.raises(Invalid):
            await one.put_user("ada", Role.ADMIN, "short")
        assert [user.role for user in one.users()] == [Role.OPERATOR]
    for path in tmp_path.iterdir():
        assert password.encode() not in path.read_bytes()


async def test_sessions(tmp_path: Path) -> None:
    """They end by time, by their own word, and with the password that began them; they are no
    tokens that anybody lists.
    """
    clock = Clock()
    async with accounts(tmp_path, clock) as one:
        user = await one.put_user("ada", Role.USER, "correct horse battery")
        texts = [await one.begin_session(user) for _ in range(2)]
        assert [one.token(text).owner for text in texts] == ["ada", "ada"]
        assert one.tokens() == ()
        await one.end_session(texts[0])
        with pytest.raises(Denied):
            one.token(texts[0])
        user = await one.put_user("ada", Role.USER, "another horse battery")
        with pytest.raises(Denied):
            one.token(texts[1])
        late = await one.begin_session(user)
        clock.now += SESSION + 1
        with pytest.raises(Denied):
            one.token(late)
        await one.forget_sessions()
        assert not one._tokens
        late = await one.begin_session(user)
        await one.remove_user("ada")
        with pytest.raises(Denied):
            one.token(late)


@pytest.mark.gen_test(timeout=60)
async def test_many_passwords_at_once(tmp_path: Path) -> None:
    """Only so many wait to be looked at: each costs much."""
    async with accounts(tmp_path) as one:
        tries = [one.check_password("ada", "x" * 12) for _ in range(24)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(error).__name__ for error in found) == ["Busy"] * 4 + ["Denied"] * 20


async def test_a_log_in_that_a_change_overtakes(tmp_path: Path, monkeypatch) -> None:
    """Who gave a password that was right when it came is nobody if it is not when it was checked;
    and no session outlives the change, whenever it began.
    """
    async with accounts(tmp_path) as one:
        ada = await one.put_user("ada", Role.ADMIN, "correct horse battery")
        go, verify = threading.Event(), one._passwords._verify

        def slowly(*given: Any) -> bool:
            return go.wait(10) and verify(*given)

        monkeypatch.setattr(one._passwords, "_verify", slowly)
        checking = asyncio.create_task(one.check_password("ada", "correct horse battery"))
        await asyncio.sleep(0)
        await one.put_user("ada", Role.ADMIN, "another horse battery")
        go.set()
        with pytest.raises(Denied):
            await checking
        with pytest.raises(Denied):
            await one.begin_session(ada)
        ada = await one.check_password("ada", "another horse battery")
        begun = await asyncio.gather(
            one.begin_session(ada), one.remove_user("ada"), return_exceptions=True
        )
        assert [kept for kept in one._tokens.values() if kept.token.session] == []
        assert isinstance(begun[0], str | Denied)


async def test_the_sessions_of_one_user(tmp_path: Path) -> None:
    """Have a bound: the oldest end."""
    async with accounts(tmp_path) as one:
        ada = await one.put_user("ada", Role.USER, "correct horse battery")
        begun = [await one.begin_session(ada) for _ in range(SESSIONS + 1)]
        with pytest.raises(Denied):
            one.token(begun[0])
        assert {one.token(text).owner for text in begun[1:]} == {"ada"}


async def test_two_tokens_of_one_name_at_once(tmp_path: Path) -> None:
    """One is made, and is good; the other is refused."""
    async with accounts(tmp_path) as one:
        made = await asyncio.gather(
            one.make_token("ci", Role.USER),
            one.make_token("ci", Role.ADMIN),
            return_exceptions=True,
        )
        ((text, token),) = [each for each in made if isinstance(each, tuple)]
        assert one.token(text) == token
        assert one.tokens() == (token,)
        assert [type(each) for each in made if isinstance(each, Exception)] == [Conflict]


async def test_cookies_of_programs_on_one_machine(tmp_path: Path) -> None:
    """Have names of their own, the same after a restart."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with accounts(tmp_path / "a") as one, accounts(tmp_path / "b") as other:
        named = one.cookie
        assert named != other.cookie
    async with accounts(tmp_path / "a") as one:
        assert one.cookie == named

"""Tokens, users, and what they did."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.errors import Conflict, Denied, Invalid, NotFound
from protocol.ports.service import Role
from protocol.trust.accounts import SESSION, Accounts, Deed

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
    """By time, or by name or id, over restarts; then the name is free again."""
    clock = Clock()
    async with accounts(tmp_path, clock) as one:
        short, _ = await one.make_token("short", Role.USER, lasts=60)
        named, _ = await one.make_token("named", Role.USER)
        by_id, made = await one.make_token("by-id", Role.USER)
        clock.now += 61
        await one.revoke("named")
        await one.revoke(made.id)
        await one.forget_over()
        assert one.tokens() == ()
        with pytest.raises(NotFound):
            await one.revoke("named")
    async with accounts(tmp_path, clock) as one:
        for text in (short, named, by_id):
            with pytest.raises(Denied):
                one.token(text)
        await one.make_token("named", Role.USER)


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
        await one.put_user("ada", Role.USER, "another horse battery")
        with pytest.raises(Denied):
            one.token(texts[1])
        late = await one.begin_session(user)
        clock.now += SESSION + 1
        with pytest.raises(Denied):
            one.token(late)
        late = await one.begin_session(user)
        await one.remove_user("ada")
        with pytest.raises(Denied):
            one.token(late)


async def test_deeds(tmp_path: Path) -> None:
    """What was done is read from the newest on, and can be changed by nobody."""
    async with accounts(tmp_path) as one:
        for number in range(5):
            await one.note(Deed(1e9 + number, "ada", "", "::1", "POST /create", 200 + number))
    async with accounts(tmp_path) as one:
        newest = await one.deeds(1 << 62, 3)
        assert [deed.status for _, deed in newest] == [204, 203, 202]
        rest = await one.deeds(newest[-1][0], 3)
        assert [deed.status for _, deed in rest] == [201, 200]
        await one.forget_deeds(1e9 + 4)
        assert [deed.status for _, deed in await one.deeds(1 << 62, 9)] == [204]
        with pytest.raises(Exception, match="append-only"):
            await one._database.write(lambda c: c.execute("UPDATE audit SET at = 0"))

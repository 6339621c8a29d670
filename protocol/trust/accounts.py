"""Who may call: tokens and users of one program, in a file of its own.

Of a token only a digest is kept: it has 128 random bits, so that trying finds none. Passwords are
people's, and kept by argon2id.
"""

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

import msgspec
from msgspec import Struct

from protocol import wire
from protocol.errors import Conflict, Denied, Invalid, NotFound
from protocol.model.people import PASSWORD_LEAST, PASSWORD_LIMIT, OwnerName
from protocol.ports.service import Role
from protocol.storage.database import Database
from protocol.trust.passwords import Passwords

T = TypeVar("T", bound=Struct)

FILE = "access.db"
"""In a program's data folder."""
PREFIX = "imagepool-"
"""What every token of a client begins with, so that people and scanners know one."""
SESSION = 12 * 3600.0
"""Seconds for which somebody who gave a password is known by a cookie."""
SESSIONS = 50
"""So many of one user there are at once."""

MIGRATIONS = (
    """
    CREATE TABLE tokens (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE users (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    """,
)

_TEXT = re.compile(PREFIX + r"([a-z2-7]{8})-([a-z2-7]{26})")
_ANYWHERE = re.compile(PREFIX + r"([a-z2-7]{8})-[a-z2-7]{26}")
_ROLES = (Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN)


class Token(Struct, frozen=True):
    """What is kept of a token."""

    id: str
    name: OwnerName
    role: Role
    owner: OwnerName  # whose builds its bearer sees, and makes
    created: float  # seconds since the epoch
    expires: float | None = None  # None: never
    session: bool = False  # it is the cookie of somebody who gave a password


class User(Struct, frozen=True):
    """Somebody with a password; the name is the owner of their builds."""

    name: OwnerName
    role: Role
    created: float


class _Kept(Struct, frozen=True):
    token: Token
    digest: str


class _KeptUser(Struct, frozen=True):
    user: User
    password: str  # as argon2id has it


class Accounts:
    """The tokens and users of one program. For use on one event loop."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        """Raises Conflict, Unavailable."""
        self._clock = clock
        self._database = Database(folder / FILE, MIGRATIONS)
        self._tokens = {kept.token.id: kept for kept in self._database.read(_tokens)}
        self._users = {kept.user.name: kept for kept in self._database.read(_users)}
        self._passwords = Passwords()
        self._making = asyncio.Lock()  # a token: of two that want one name, one gets it

    @property
    def empty(self) -> bool:
        """Whether there is nobody to tell apart: no token, no user. One that is over counts: time
        alone opens no door.
        """
        return not self._users and not self.tokens()

    def check_first(self, role: Role) -> None:
        """Raises Conflict where the first one is to be no admin: as long as there is nobody, the
        people of this machine are, and then there would be none.
        """
        if self.empty and role is not Role.ADMIN:
            raise Conflict(
                f"there is no admin yet, and a {role.value} could make none",
                field="role",
                expected="admin, for the first one",
            )

    @property
    def cookie(self) -> str:
        """The name of this program's cookie: browsers tell hosts apart, not ports."""
        return f"imagepool-{self._database.id[:8]}"

    # Tokens

    def tokens(self) -> tuple[Token, ...]:
        """All of them, also those that are over, sessions apart; the oldest first."""
        found = [kept.token for kept in self._tokens.values() if not kept.token.session]
        return tuple(sorted(found, key=lambda token: token.created))

    async def make_token(
        self, name: str, role: Role, owner: str = "", lasts: float | None = None
    ) -> tuple[str, Token]:
        """(the token's text, which nobody can tell afterwards; what is kept of it), on disk.
        `owner`: the token's name where it is empty. Raises Conflict where the name is taken,
        Invalid, Unavailable.
        """
        if role not in _ROLES:
            raise Invalid(f"{role.value} is no client's role", field="role", expected="a client's")
        async with self._making:
            named = [token for token in self.tokens() if token.name == name]
            if not all(map(self._is_over, named)):
                raise Conflict(
                    f"there is a token {name[:64]!r}", field="name", expected="another name"
                )
            made = await self._make(name, role, owner or name, lasts, session=False)
            for token in named:
                await self._end(token.id)
        return made

    async def _make(
        self, name: str, role: Role, owner: str, lasts: float | None, *, session: bool
    ) -> tuple[str, Token]:
        now = self._clock()
        key, secret = _drawn(5), _drawn(16)
        expires = None if lasts is None else now + lasts
        token = _checked(Token(key, name, role, owner, now, expires, session))
        kept = _Kept(token, _digest(secret))
        packed = msgspec.msgpack.encode(kept)
        await self._database.write(lambda c: c.execute(_PUT_TOKEN, (key, packed)))
        self._tokens[key] = kept
        return f"{PREFIX}{key}-{secret}", token

    def token(self, text: str) -> Token:
        """The token whose text this is. Raises Denied, for whatever reason in the same words."""
        match = _TEXT.fullmatch(text)
        key, secret = match.groups() if match else ("", "")
        kept = self._tokens.get(key)
        same = compare_digest(kept.digest if kept else _digest(""), _digest(secret))
        if kept is None or not same or self._is_over(kept.token):
            raise Denied("the token is not, or not any more, one of this program")
        return kept.token

    async def revoke(self, name: str) -> None:
        """End a token, by name or id. Raises NotFound, Unavailable."""
        for kept in tuple(self._tokens.values()):
            if name in (kept.token.id, kept.token.name) and not kept.token.session:
                await self._end(kept.token.id)
                return
        raise NotFound(f"there is no token {name[:64]!r}", field="token")

    async def _end(self, key: str) -> None:
        await self._database.write(lambda c: c.execute("DELETE FROM tokens WHERE id = ?", (key,)))
        self._tokens.pop(key, None)

    async def forget_sessions(self) -> None:
        """Drop those that are over. Raises Unavailable."""
        for kept in tuple(self._tokens.values()):
            if kept.token.session and self._is_over(kept.token):
                await self._end(kept.token.id)

    def _is_over(self, token: Token) -> bool:
        return token.expires is not None and token.expires <= self._clock()

    # Users

    def users(self) -> tuple[User, ...]:
        """All of them, by name."""
        return tuple(self._users[name].user for name in sorted(self._users))

    async def put_user(self, name: str, role: Role, password: str) -> User:
        """Make a user, or give one another role and password; all its sessions end. Raises Invalid,
        Unavailable.
        """
        if role not in _ROLES:
            raise Invalid(f"{role.value} is no client's role", field="role", expected="a client's")
        if not PASSWORD_LEAST <= len(password) <= PASSWORD_LIMIT:
            raise Invalid(
                f"the password has {len(password)} characters",
                field="password",
                expected=f"{PASSWORD_LEAST} to {PASSWORD_LIMIT} characters",
            )
        known = self._users.get(name)
        user = _checked(User(name, role, known.user.created if known else self._clock()))
        kept = _KeptUser(user, await self._passwords.hashed(password))
        packed = msgspec.msgpack.encode(kept)
        await self._database.write(lambda c: c.execute(_PUT_USER, (name, packed)))
        self._users[name] = kept
        await self._end_sessions(name)
        return user

    async def remove_user(self, name: str) -> None:
        """Raises NotFound, Unavailable."""
        if name not in self._users:
            raise NotFound(f"there is no user {name[:64]!r}", field="user")
        await self._database.write(lambda c: c.execute("DELETE FROM users WHERE name = ?", (name,)))
        del self._users[name]
        await self._end_sessions(name)

    async def _end_sessions(self, name: str) -> None:
        for key in self._sessions(name):
            await self._end(key)

    async def check_password(self, name: str, password: str) -> User:
        """The user who gave the right password. It takes as long for a name that nobody has. Raises
        Denied, and Busy where too many are being checked.
        """
        kept = self._users.get(name)
        hashed = kept.password if kept is not None else None
        if not await self._passwords.fits(hashed, password[:PASSWORD_LIMIT]):
            raise Denied("the name or the password is wrong")
        if kept is None or self._users.get(name) is not kept:  # or it was changed meanwhile
            raise Denied("the name or the password is wrong")
        return kept.user

    async def begin_session(self, user: User) -> str:
        """The text of the cookie by which they are known for a while; the oldest of very many ends.
        Raises Unavailable, and Denied where they were changed or removed since they gave their
        password.
        """
        self._check_current(user)
        made, token = await self._make(user.name, user.role, user.name, SESSION, session=True)
        try:
            self._check_current(user)
        except Denied:
            await self._end(token.id)
            raise
        for old in self._sessions(user.name)[:-SESSIONS]:
            await self._end(old)
        return made

    def _check_current(self, user: User) -> None:
        kept = self._users.get(user.name)
        if kept is None or kept.user is not user:
            raise Denied("the name or the password is wrong")

    def _sessions(self, name: str) -> list[str]:
        """Ids, the oldest first."""
        tokens = (kept.token for kept in self._tokens.values())
        found = [token for token in tokens if token.session and token.owner == name]
        return [token.id for token in sorted(found, key=lambda token: token.created)]

    async def end_session(self, text: str) -> None:
        """Raises Denied, Unavailable."""
        token = self.token(text)
        if token.session:
            await self._end(token.id)

    async def close(self) -> None:
        """Write what was given, and close the file."""
        await self._database.close()


def without_tokens(text: str) -> str:
    """The text, with no more of a token in it than its id: people paste one where its name
    belongs.
    """
    return _ANYWHERE.sub(PREFIX + r"\1-(hidden)", text)


def _checked(value: T) -> T:
    """The value, if its fields are as their types say. Raises Invalid."""
    return wire.convert(msgspec.to_builtins(value), type(value))


def _digest(secret: str) -> str:
    return hashlib.sha256(b"imagepool token\n" + secret.encode()).hexdigest()


def _drawn(count: int) -> str:
    """So many random bytes, in letters and digits that nobody confuses."""
    return base64.b32encode(secrets.token_bytes(count)).decode().lower().rstrip("=")


_PUT_TOKEN = """
    INSERT INTO tokens VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value
"""
_PUT_USER = """
    INSERT INTO users VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


def _tokens(connection: Connection) -> list[_Kept]:
    rows = connection.execute("SELECT value FROM tokens").fetchall()
    return [msgspec.msgpack.decode(row[0], type=_Kept) for row in rows]


def _users(connection: Connection) -> list[_KeptUser]:
    rows = connection.execute("SELECT value FROM users").fetchall()
    return [msgspec.msgpack.decode(row[0], type=_KeptUser) for row in rows]

"""What clients and programs say to each other of tokens, users, and what was done."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

NAME = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
"""What owners, users and tokens are called, as a pattern."""

OwnerName = Annotated[str, Meta(pattern=rf"^{NAME}$(?!\n)")]
"""Whose builds are whose."""
ClientRole = Literal["viewer", "user", "operator", "admin"]
Lasting = Annotated[float, Meta(gt=0, le=10 * 365 * 86400)]
PASSWORD_LEAST, PASSWORD_LIMIT = 12, 1024
"""Characters of a password."""
Password = Annotated[str, Meta(min_length=PASSWORD_LEAST, max_length=PASSWORD_LIMIT)]


class TokenWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """A token as it is asked for."""

    name: OwnerName
    role: ClientRole
    owner: OwnerName | None = None  # whose builds its bearer sees and makes; None: the name
    lasts: Lasting | None = None  # seconds; None: until it is revoked


class TokenView(Struct, frozen=True):
    """A token as it is shown."""

    id: str
    name: str
    role: ClientRole
    owner: str
    created: float  # seconds since the epoch
    expires: float | None = None  # None: never


class TokenMade(TokenView, frozen=True, kw_only=True):
    """A new token, with the text that is told this once."""

    token: str


class TokenList(Struct, frozen=True):
    """Every token, the oldest first."""

    tokens: tuple[TokenView, ...]


class UserWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody is to be who has a password."""

    role: ClientRole
    password: Password


class UserView(Struct, frozen=True):
    """Somebody with a password."""

    name: str
    role: ClientRole
    created: float  # seconds since the epoch


class UserList(Struct, frozen=True):
    """Every user, by name."""

    users: tuple[UserView, ...]


class LogIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Who somebody says to be."""

    name: Annotated[str, Meta(max_length=128)]
    password: Annotated[str, Meta(max_length=PASSWORD_LIMIT)]


class WhoAmI(Struct, frozen=True):
    """Who asks, as the program sees it."""

    owner: str  # whose builds these are; empty: nobody's
    role: str
    by: str = ""  # who asks, where that is not the owner
    token: str = ""  # id of the token or session
    csrf: str = ""  # what X-CSRF-Token must say, where a cookie tells who asks


class DeedView(Struct, frozen=True):
    """What somebody did, or was refused."""

    number: int  # of this line of the log
    at: float  # seconds since the epoch
    who: str
    owner: str  # on whose behalf, where that is somebody else
    token: str  # id; empty: none
    address: str
    what: str  # method and path
    status: int


class AuditPage(Struct, frozen=True):
    """Some of what was done, the newest first."""

    deeds: tuple[DeedView, ...]
    next: int | None = None  # give it as `before` for what was done earlier; None: that is all

"""Logging in: a name and a password for a cookie, in every family that has it."""

import contextlib

from tornado.httputil import HTTPServerRequest

from protocol.api.base import Handler
from protocol.api.people_port import PeoplePort
from protocol.errors import Denied, Unauthenticated
from protocol.ports.service import Caller
from protocol.trust.accounts import SESSION, User


async def log_in(
    handler: Handler, people: PeoplePort, name: str, password: str, *, cookie: str
) -> str:
    """Begin a session, put its cookie into the answer, and end the one before. Returns the cookie's
    text. Who asked is from then on who logged in.

    Raises Unauthenticated, TooOften, Busy, Unavailable.
    """
    user = await _checked(people, handler.request, name, password)
    accounts = people.accounts
    text = await accounts.begin_session(user)
    before = handler.request.cookies.get(cookie)
    if before is not None:
        with contextlib.suppress(Denied):  # it ended already, or was none
            await accounts.end_session(before.value)
    secure = handler.request.protocol == "https" or handler.limits.public_url.startswith("https:")
    handler.set_cookie(
        cookie,
        text,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=secure,
        max_age=int(SESSION),
    )
    handler.caller = Caller(owner=user.name, role=user.role, token=accounts.token(text).id)
    return text


async def _checked(
    people: PeoplePort, request: HTTPServerRequest, name: str, password: str
) -> User:
    """Who has this name and password. Each try counts as a failure until it is known to be none:
    many at once are not more than were allowed one after the other.
    """
    address = people.callers.address_of(request)
    people.failures.count(address)
    try:
        user = await people.accounts.check_password(name, password)
    except Denied as error:
        raise Unauthenticated(error.detail, field="password", expected="that of a user") from error
    people.failures.forgive(address)
    return user

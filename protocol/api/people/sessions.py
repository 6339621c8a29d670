"""Who somebody is, and how a browser learns to be somebody: `/api/v1/whoami`, `/api/v1/session`."""

import contextlib

from protocol.api.access import Permission
from protocol.api.callers import csrf_token
from protocol.api.operation import OWNER, Answer, Operation, answered, done
from protocol.api.password import checked
from protocol.api.people.base import PeopleHandler
from protocol.api.route import Route
from protocol.errors import Denied
from protocol.model.people import LogIn, WhoAmI
from protocol.ports.service import Caller
from protocol.trust.accounts import SESSION


class Self(PeopleHandler):
    """Who asks."""

    def get(self) -> None:
        """As this program sees it."""
        caller = self.caller
        session = self.people.callers.session_of(self.request)
        known = session is not None and session[1].id == caller.token
        csrf = csrf_token(session[0]) if session is not None and known else ""
        role = caller.role.value
        self.reply(WhoAmI(caller.owner or caller.program, role, caller.by, caller.token, csrf))


class Session(PeopleHandler):
    """A browser's knowing who sits before it."""

    async def post(self) -> None:
        """Begin: a cookie for whoever gives the right password. The one before is over."""
        given = self.decoded(LogIn)
        before = self.people.callers.session_of(self.request)
        user = await checked(self.people, self.request, given.name, given.password)
        accounts = self.people.accounts
        text = await accounts.begin_session(user)
        if before is not None:
            with contextlib.suppress(Denied):  # it ended meanwhile
                await accounts.end_session(before[0])
        secure = self.request.protocol == "https" or self.limits.public_url.startswith("https:")
        self.set_cookie(
            accounts.cookie,
            text,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=secure,
            max_age=int(SESSION),
        )
        token = accounts.token(text).id
        self.caller = Caller(owner=user.name, role=user.role, token=token)  # who did it
        self.reply(WhoAmI(user.name, user.role.value, token=token, csrf=csrf_token(text)))

    async def delete(self) -> None:
        """End: the cookie proves nothing any more. For who has none it is so already."""
        session = self.people.callers.session_of(self.request)
        if session is not None:
            await self.people.accounts.end_session(session[0])
        self.clear_cookie(self.people.accounts.cookie, path="/", samesite="Strict")
        self.set_status(204)


_OPEN = Permission.STATUS

ROUTES = (
    Route(
        "/api/v1/whoami",
        Self,
        {"GET": _OPEN},
        operations={
            "GET": Operation("Who you are here", answered(WhoAmI, "you"), arguments=(OWNER,))
        },
    ),
    Route(
        "/api/v1/session",
        Session,
        {"POST": _OPEN, "DELETE": _OPEN},
        operations={
            "POST": Operation(
                "Log in\nFor browsers: who you are is known by a cookie for some hours.",
                {200: Answer("you", WhoAmI, headers={"Set-Cookie": "what proves it"})},
                body=LogIn,
                errors=(502, 503),
            ),
            "DELETE": Operation("Log out", done("the cookie proves nothing now"), errors=(502,)),
        },
    ),
)

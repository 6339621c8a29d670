"""Who somebody is, and how a browser learns to be somebody: `/api/v1/whoami`, `/api/v1/session`."""

from protocol.api.access import Permission
from protocol.api.callers import csrf_token
from protocol.api.log_in import log_in
from protocol.api.operation import OWNER, Answer, Operation, answered, done
from protocol.api.people.base import PeopleHandler
from protocol.api.route import Route
from protocol.model.people import LogIn, WhoAmI


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
        cookie = self.people.accounts.cookie
        text = await log_in(self, self.people, given.name, given.password, cookie=cookie)
        you = self.caller
        self.reply(WhoAmI(you.owner, you.role.value, token=you.token, csrf=csrf_token(text)))

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

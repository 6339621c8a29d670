"""Tokens under `/api/v1/tokens`."""

import msgspec

from protocol import wire
from protocol.api.access import Permission
from protocol.api.operation import Answer, Operation, answered, done
from protocol.api.people.base import PeopleHandler
from protocol.api.route import Route
from protocol.model.people import NAME, TokenList, TokenMade, TokenView, TokenWanted
from protocol.ports.service import Role
from protocol.trust.accounts import Token


def view(token: Token) -> TokenView:
    """A token as it is shown."""
    return wire.convert(msgspec.to_builtins(token), TokenView)


class Tokens(PeopleHandler):
    """All of them."""

    def get(self) -> None:
        """Without what proves anything."""
        self.reply(TokenList(tuple(view(token) for token in self.people.accounts.tokens())))

    async def post(self) -> None:
        """A new one."""
        wanted = self.decoded(TokenWanted)
        role = Role(wanted.role)
        accounts = self.people.accounts
        accounts.check_first(role)
        text, token = await accounts.make_token(wanted.name, role, wanted.owner or "", wanted.lasts)
        self.reply(TokenMade(**msgspec.structs.asdict(view(token)), token=text), 201)


class OneToken(PeopleHandler):
    """One of them."""

    async def delete(self, token: str) -> None:
        """It proves nothing from now on."""
        await self.people.accounts.revoke(token)
        self.set_status(204)


_ADMIT = Permission.ADMIT

ROUTES = (
    Route(
        "/api/v1/tokens",
        Tokens,
        {"GET": _ADMIT, "POST": _ADMIT},
        operations={
            "GET": Operation("Every token, without its text", answered(TokenList, "all")),
            "POST": Operation(
                "Make a token\nIts text is told here, and never again.",
                {201: Answer("the token", TokenMade)},
                body=TokenWanted,
                errors=(409, 502),
            ),
        },
    ),
    Route(
        f"/api/v1/tokens/({NAME})",
        OneToken,
        {"DELETE": _ADMIT},
        operations={
            "DELETE": Operation(
                "Revoke a token, by name or id", done("it proves nothing now"), errors=(502,)
            )
        },
    ),
)

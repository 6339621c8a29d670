"""People with passwords under `/api/v1/users`."""

import msgspec

from protocol import wire
from protocol.api.access import Permission
from protocol.api.operation import Operation, answered, done
from protocol.api.people.base import PeopleHandler
from protocol.api.route import Route
from protocol.model.people import NAME, UserList, UserView, UserWanted
from protocol.ports.service import Role
from protocol.trust.accounts import User


def view(user: User) -> UserView:
    """A user as they are shown."""
    return wire.convert(msgspec.to_builtins(user), UserView)


class Users(PeopleHandler):
    """All of them."""

    def get(self) -> None:
        """By name."""
        self.reply(UserList(tuple(view(user) for user in self.people.accounts.users())))


class OneUser(PeopleHandler):
    """One of them."""

    async def put(self, name: str) -> None:
        """They are there from now on, with this role and password; their sessions end."""
        wanted = self.decoded(UserWanted)
        role = Role(wanted.role)
        accounts = self.people.accounts
        accounts.check_first(role)
        self.reply(view(await accounts.put_user(name, role, wanted.password)))

    async def delete(self, name: str) -> None:
        """They are not any more; their sessions end. Their builds stay."""
        await self.people.accounts.remove_user(name)
        self.set_status(204)


_ADMIT = Permission.ADMIT

ROUTES = (
    Route(
        "/api/v1/users",
        Users,
        {"GET": _ADMIT},
        operations={"GET": Operation("Everybody with a password", answered(UserList, "all"))},
    ),
    Route(
        f"/api/v1/users/({NAME})",
        OneUser,
        {"PUT": _ADMIT, "DELETE": _ADMIT},
        operations={
            "PUT": Operation(
                "Make a user, or change one\nEvery session of theirs ends.",
                answered(UserView, "as they are now"),
                body=UserWanted,
                errors=(409, 502, 503),
            ),
            "DELETE": Operation(
                "Remove a user\nEvery session of theirs ends; their builds stay.",
                done("they are gone"),
                errors=(502,),
            ),
        },
    ),
)

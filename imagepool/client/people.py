"""Tokens, users and what was done, as a Python program sees them."""

from imagepool.client.asking import Asking
from protocol.model.people import (
    AuditPage,
    ClientRole,
    TokenMade,
    TokenView,
    TokenWanted,
    UserView,
    UserWanted,
    WhoAmI,
)


class AskingPeople(Asking):
    """What `AsyncClient` has of these; all but `whoami` are for admins. Each raises Denied and
    Unauthenticated beside what every method does.
    """

    async def whoami(self) -> WhoAmI:
        """Who we are to the pool."""
        return await self._scheduler(lambda pool: pool.people.whoami())

    async def tokens(self) -> tuple[TokenView, ...]:
        """Every token, the oldest first."""
        return await self._scheduler(lambda pool: pool.people.tokens())

    async def make_token(
        self,
        name: str,
        role: ClientRole,
        *,
        owner: str | None = None,
        lasts: float | None = None,
    ) -> TokenMade:
        """A new token; its text, `token`, is told this once. `owner`: whose builds its bearer sees
        and makes, else the name. `lasts`: seconds, else until it is revoked.
        """
        wanted = TokenWanted(name, role, owner, lasts)
        service = await self._connected()
        return await service.people.make_token(wanted)

    async def revoke_token(self, name: str) -> None:
        """End a token, by name or id."""
        service = await self._connected()
        await service.people.revoke_token(name)

    async def users(self) -> tuple[UserView, ...]:
        """Everybody with a password."""
        return await self._scheduler(lambda pool: pool.people.users())

    async def put_user(self, name: str, role: ClientRole, password: str) -> UserView:
        """Make a user, or give one another role and password."""
        await self._check_known("a password")
        return await self._scheduler(
            lambda pool: pool.people.put_user(name, UserWanted(role, password))
        )

    async def remove_user(self, name: str) -> None:
        """They can log in no more; their builds stay."""
        service = await self._connected()
        await service.people.remove_user(name)

    async def audit(self, *, before: int | None = None, limit: int = 100) -> AuditPage:
        """What was done, and what was refused, the newest first; `before`: the `next` of the page
        before.
        """
        return await self._scheduler(lambda pool: pool.people.audit(before, limit))

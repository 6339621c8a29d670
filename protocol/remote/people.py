"""Tokens, users and what was done, of a program over HTTP."""

from urllib.parse import quote

from protocol.model.people import (
    AuditPage,
    TokenList,
    TokenMade,
    TokenView,
    TokenWanted,
    UserList,
    UserView,
    UserWanted,
    WhoAmI,
)
from protocol.remote.exchange import Exchange

_PLAIN = "@+"  # what stands for itself in a path


class RemotePeople:
    """Those of the program at the other end. Each verb raises Denied, Unauthenticated, Unavailable,
    and what is said of it.
    """

    def __init__(self, http: Exchange) -> None:
        self._http = http

    async def whoami(self) -> WhoAmI:
        """Who we are there."""
        return await self._http.get("/api/v1/whoami", WhoAmI, {})

    async def tokens(self) -> tuple[TokenView, ...]:
        """All of them, the oldest first."""
        return (await self._http.get("/api/v1/tokens", TokenList, {})).tokens

    async def make_token(self, wanted: TokenWanted) -> TokenMade:
        """A new one, with its text. Raises Conflict, Invalid."""
        made: TokenMade = await self._http.post("/api/v1/tokens", wanted, TokenMade)
        return made

    async def revoke_token(self, name: str) -> None:
        """End one, by name or id. Raises NotFound."""
        await self._http.delete(f"/api/v1/tokens/{quote(name, safe=_PLAIN)}")

    async def users(self) -> tuple[UserView, ...]:
        """All of them, by name."""
        return (await self._http.get("/api/v1/users", UserList, {})).users

    async def put_user(self, name: str, wanted: UserWanted) -> UserView:
        """Make one, or change one. Raises Conflict, Invalid."""
        path = f"/api/v1/users/{quote(name, safe=_PLAIN)}"
        return await self._http.put(path, wanted, UserView)

    async def remove_user(self, name: str) -> None:
        """Raises NotFound."""
        await self._http.delete(f"/api/v1/users/{quote(name, safe=_PLAIN)}")

    async def audit(self, before: int | None = None, limit: int = 100) -> AuditPage:
        """What was done, the newest first."""
        query = {"limit": str(limit)} | ({} if before is None else {"before": str(before)})
        return await self._http.get("/api/v1/audit", AuditPage, query)

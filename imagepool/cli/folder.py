"""Who may call a program that does not run, as its data folder has it."""

import contextlib
import getpass
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from msgspec.structs import asdict

from protocol import wire
from protocol.api.people import tokens, users
from protocol.errors import Conflict, NotFound
from protocol.model.people import (
    ClientRole,
    TokenMade,
    TokenView,
    TokenWanted,
    UserView,
    UserWanted,
)
from protocol.ports.service import Role
from protocol.program import identity
from protocol.program.settings import data_folder, host_and_port, load
from protocol.trust.accounts import Accounts
from protocol.trust.audit import Audit, Deed


class People(Protocol):
    """What the commands do; `AsyncClient` has it too."""

    async def tokens(self) -> tuple[TokenView, ...]:
        """Every token."""

    async def make_token(
        self, name: str, role: ClientRole, *, owner: str | None = None, lasts: float | None = None
    ) -> TokenMade:
        """A new one."""

    async def revoke_token(self, name: str) -> None:
        """End one."""

    async def users(self) -> tuple[UserView, ...]:
        """Every user."""

    async def put_user(self, name: str, role: ClientRole, password: str) -> UserView:
        """Make or change one."""

    async def remove_user(self, name: str) -> None:
        """End one."""


class FolderPeople:
    """Those of a data folder; as the API does it."""

    def __init__(self, folder: Path, accounts: Accounts, audit: Audit) -> None:
        self.folder = folder
        self._accounts = accounts
        self._audit = audit

    async def tokens(self) -> tuple[TokenView, ...]:
        """See People."""
        return tuple(tokens.view(token) for token in self._accounts.tokens())

    async def make_token(
        self, name: str, role: ClientRole, *, owner: str | None = None, lasts: float | None = None
    ) -> TokenMade:
        """See People."""
        wanted = _checked(TokenWanted(name, role, owner, lasts))
        self._accounts.check_first(Role(wanted.role))
        text, token = await self._accounts.make_token(
            wanted.name, Role(wanted.role), wanted.owner or "", wanted.lasts
        )
        self._note(f"token create {name}")
        return TokenMade(**asdict(tokens.view(token)), token=text)

    async def revoke_token(self, name: str) -> None:
        """See People."""
        await self._accounts.revoke(name)
        self._note(f"token revoke {name}")

    async def users(self) -> tuple[UserView, ...]:
        """See People."""
        return tuple(users.view(user) for user in self._accounts.users())

    async def put_user(self, name: str, role: ClientRole, password: str) -> UserView:
        """See People."""
        wanted = _checked(UserWanted(role, password))
        self._accounts.check_first(Role(wanted.role))
        made = await self._accounts.put_user(name, Role(wanted.role), wanted.password)
        self._note(f"user add {name}")
        return users.view(made)

    async def remove_user(self, name: str) -> None:
        """See People."""
        await self._accounts.remove_user(name)
        self._note(f"user remove {name}")

    def _note(self, what: str) -> None:
        who = f"{getpass.getuser()} of this machine"
        self._audit.note(Deed(time.time(), who, "", "", f"imagepool {what}", 200))


def opened(
    program: str, data: Path | None, config: Path | None, *, makes: bool
) -> AbstractAsyncContextManager[FolderPeople] | str:
    """Who may call the program of this machine, locked against its start; or the URL where it
    runs. `makes`: its folder is made where it was never started. Raises Invalid, Conflict,
    Unavailable, and NotFound where there is no folder.
    """
    settings = _settings(program, config)
    own = data or data_folder(settings, program)
    folders = [own] if data else [own, data_folder(settings, "up") / program]
    folders = [folder for folder in folders if folder.exists()] or [own]
    if not makes and not folders[0].exists():
        raise NotFound(
            f"no program was ever started with the data folder {folders[0]}",
            field="data",
            expected="the data folder of one, or --url",
        )
    locks: list[IO[bytes]] = []
    with contextlib.ExitStack() as ending:
        for folder in folders:
            try:
                locks.append(ending.enter_context(identity.open_data(folder)))
            except Conflict:
                return _url(settings.listen)
        ending.pop_all()
    for spare in locks[1:]:
        spare.close()
    return _people(folders[0], locks[0])


@asynccontextmanager
async def _people(folder: Path, lock: IO[bytes]) -> AsyncIterator[FolderPeople]:
    with lock:
        accounts = Accounts(folder, time.time)
        audit = Audit(folder, time.time)
        try:
            yield FolderPeople(folder, accounts, audit)
        finally:
            await audit.close()
            await accounts.close()


def _settings(program: str, config: Path | None) -> Any:
    from node.config import NodeSettings
    from scheduler.config import SchedulerSettings

    kind: Any = {"node": NodeSettings, "scheduler": SchedulerSettings}[program]
    return load(kind, program, file=config)


def _url(listen: str) -> str:
    """How somebody on this machine says it."""
    host, port = host_and_port(listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _checked(value: Any) -> Any:
    """The value, if its fields are as their types say. Raises Invalid."""
    import msgspec

    return wire.convert(msgspec.to_builtins(value), type(value))

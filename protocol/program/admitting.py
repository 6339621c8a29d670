"""Who may call a program, by what its settings say: its people, and whom it is to be reached by."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from protocol.api.callers import ClientCallers, Rules
from protocol.api.failures import Failures
from protocol.errors import Invalid, PoolError
from protocol.program.settings import ProgramSettings, host_and_port, is_loopback
from protocol.trust.accounts import Accounts
from protocol.trust.audit import Audit

log = logging.getLogger(__name__)

_HOUSE = 600.0  # seconds between looks for what is over


class People:
    """Those who may call, and what they did; see `PeoplePort`."""

    def __init__(self, folder: Path, settings: ProgramSettings, clock: Callable[[], float]) -> None:
        """`folder`: the program's own. Raises Conflict, Unavailable."""
        self.accounts = Accounts(folder, clock)
        self.audit = Audit(folder, clock)
        self.failures = Failures(settings.failure_limit, settings.failure_window)
        rules = Rules(settings.anonymous, settings.unproven, behind=bool(settings.public_url))
        self.callers = ClientCallers(self.accounts, rules, self.failures)
        self._folder = folder
        self._settings = settings
        self._clock = clock

    def check_reach(self) -> None:
        """Raises Invalid where others than the people of this machine could reach the program, and
        nobody said who of them may.
        """
        check_reach(self._settings, self._folder, nobody=self.accounts.empty)

    async def keep_house(self) -> None:
        """Forget what is over, for as long as the program lives."""
        while True:
            try:
                await self.accounts.forget_sessions()
                await self.audit.forget(self._clock() - self._settings.audit_keep)
            except PoolError as error:
                log.warning("what is over could not be forgotten: %s", error.detail)
            await asyncio.sleep(_HOUSE)

    async def close(self) -> None:
        """Write what was given, and close the files."""
        await self.audit.close()
        await self.accounts.close()


def check_reach(settings: ProgramSettings, folder: Path, *, nobody: bool) -> None:
    """See `People.check_reach`; `nobody`: there is no token and no user in the data folder."""
    host, _ = host_and_port(settings.listen)
    if is_loopback(host) or not nobody or settings.anonymous != "none":
        return
    make = f"imagepool token create NAME --role admin --data {folder}"
    raise Invalid(
        f"{settings.listen} can be reached by others, and nobody has a token",
        field="listen",
        expected=f"a token first ({make}), or --anonymous user (everybody may build who"
        " reaches this address), or --listen 127.0.0.1:PORT",
    )


def pool_address(settings: ProgramSettings, *, member: bool = False) -> str:
    """Where the listener for the pool is; empty: there is none. Where nothing is set it is beside
    that for clients, one port higher, if others reach that, or, for a `member`, everywhere.
    """
    if settings.pool_listen:
        return settings.pool_listen
    host, port = host_and_port(settings.listen)
    if is_loopback(host) and not member:
        return ""
    host = "0.0.0.0" if is_loopback(host) else host
    return f"[{host}]:{_beside(port)}" if ":" in host else f"{host}:{_beside(port)}"


def transfer_address(settings: ProgramSettings, listen: str) -> str:
    """Where artifacts are given without TLS, to members of the pool; `listen`: the setting. Raises
    Invalid.
    """
    if listen:
        return listen
    host, port = host_and_port(pool_address(settings, member=True), "pool_listen")
    return f"[{host}]:{_beside(port)}" if ":" in host else f"{host}:{_beside(port)}"


def _beside(port: int) -> int:
    return min(port + 1, 65535) if port else 0

"""The pools that this node is a member of: how it becomes one by a join token, and stays one."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.config import NodeSettings
from protocol.model.networks import LOOPBACK, reach
from protocol.program.beacon import Beacon, urls
from protocol.program.identity import KEY, key_of
from protocol.program.joining import Applicant, keep_asking, keep_joined
from protocol.remote.connecting import Secured
from protocol.remote.guard import Guard
from protocol.trust import certificates, token
from protocol.trust.certificates import NODE, SCHEDULER, server_name
from protocol.trust.membership import Memberships

log = logging.getLogger(__name__)


class Belonging:
    """Of one node. For use on the event loop."""

    def __init__(self, settings: NodeSettings, folder: Path, name: str) -> None:
        """`folder`: the data folder. Raises Invalid for what is no join token."""
        self.memberships = Memberships(folder, folder / KEY)
        self._token = token.read(settings.join) if settings.join else None
        here = () if settings.unproven == "none" else (LOOPBACK,)
        allowed = reach((*settings.scheduler_networks, *here), "scheduler_networks")
        self._guard = Guard(allowed, own=frozenset)  # a scheduler may be on this machine
        self._applicant = Applicant(key_of(folder), NODE, name, self._guard_of)
        self._named = tuple(url for url in settings.schedulers if url.startswith("https:"))
        self._every = settings.renew_every
        self._heard: dict[str, tuple[str, tuple[str, ...]]] = {}  # scheduler -> (pool, its URLs)
        self._anybody = asyncio.Event()  # another scheduler was heard of

    @property
    def listens(self) -> bool:
        """Whether there is, or is to be, somebody who calls this node as a member."""
        return bool(self.memberships) or self._token is not None

    @property
    def pool(self) -> str:
        """The id of a pool that it is in; empty: none."""
        return next(iter(self.memberships.all()), "")

    def _guard_of(self, url: str) -> Guard | None:
        """Whoever settings name is called wherever that is; of others anybody may have told us."""
        return None if url in self._named else self._guard

    async def close(self) -> None:
        """Look up no names any more."""
        await self._guard.close()

    def found(self, beacon: Beacon) -> None:
        """mDNS heard of a program."""
        if beacon.role.startswith("scheduler") and beacon.pool_port:
            self._heard[beacon.id] = (beacon.pool_id, urls(beacon, member=True))
            self._anybody.set()

    def gone(self, program: str) -> None:
        """mDNS heard a goodbye."""
        self._heard.pop(program, None)

    def secured(self, url: str) -> Secured | None:
        """How a scheduler at a URL that settings name is to prove who it is; None where it need
        not.
        """
        if urlsplit(url).scheme != "https" or not self.pool:
            return None
        pool = self.pool
        return Secured(partial(self.memberships.client, pool), server_name(SCHEDULER, pool))

    def chores(self, joined: Callable[[str, str], None]) -> tuple[Coroutine[Any, Any, None], ...]:
        """What is to run for as long as the node serves. `joined` is told the pool's id and the
        URL where it was joined.
        """
        renewing = tuple(self._renew(pool) for pool in self.memberships.all())
        return (*renewing, self._join(joined)) if self._is_new() else renewing

    def _is_new(self) -> bool:
        """Whether the token is for a pool that we are not in."""
        if self._token is None:
            return False
        known = [one for member in self.memberships.all().values() for one in member.authorities]
        return all(certificates.digest(one) != self._token.authority for one in known)

    async def _join(self, joined: Callable[[str, str], None]) -> None:
        assert self._token is not None
        url, membership = await keep_asking(
            self._applicant, self.memberships, self._token, self._anywhere, self._anybody
        )
        joined(membership.pool, url)
        await self._renew(membership.pool)

    def _anywhere(self) -> tuple[str, ...]:
        heard = (url for _, places in self._heard.values() for url in places)
        return tuple(dict.fromkeys((*self._named, *heard)))

    async def _renew(self, pool: str) -> None:
        def places() -> tuple[str, ...]:
            heard = (urls for known, urls in self._heard.values() if known == pool)
            return tuple(dict.fromkeys((*self._named, *(url for urls in heard for url in urls))))

        await keep_joined(self._applicant, self.memberships, pool, places, self._every)

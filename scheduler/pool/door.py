"""The pool's door as others see it: what a join token leads to, what an admin says of members, and
the authority's being replaced step by step.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from protocol.errors import Conflict, PoolError
from protocol.model.messages import Admittance, AuthorityState, Invitation, Joining, Renewal
from protocol.ports.service import Caller
from protocol.program.identity import KEY, key_of
from protocol.trust import certificates
from protocol.trust.certificates import SCHEDULER, Party
from protocol.trust.membership import Membership, Memberships
from scheduler.config import SchedulerSettings
from scheduler.core.known import ADMITTED, KnownNode
from scheduler.pool.admission import Admission
from scheduler.pool.authority import Authority
from scheduler.pool.known import Known
from scheduler.pool.proof import Pass

log = logging.getLogger(__name__)


class Membered:
    """The pool that this scheduler keeps, and its own place in it."""

    def __init__(
        self, folder: Path, settings: SchedulerSettings, clock: Callable[[], float]
    ) -> None:
        """Blocking. `folder`: the data folder. Raises Conflict, Invalid."""
        self.authority = Authority(folder, settings.certificate_life, clock)
        self.memberships = Memberships(folder, folder / KEY)
        self._request = certificates.ask(key_of(folder))
        self.renew()

    def renew(self) -> None:
        """Another certificate for ourselves, and the authorities of now."""
        self.memberships.put(self.authority.admit(self._request, SCHEDULER))

    @property
    def own(self) -> Pass:
        """What programs are called with."""
        return Pass(self.memberships, self.authority.pool)


class Door:
    """See `DoorPort` in `scheduler/roster/door_api.py`. For use on the event loop."""

    def __init__(
        self,
        membered: Membered,
        known: Known,
        settings: SchedulerSettings,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is told the id of a program that was let in or put out."""
        self.admission = Admission(membered.authority, known, settings.admission)
        self._membered = membered
        self._authority = membered.authority
        self._known = known
        self._changed = changed
        self._every = settings.renew_every
        self._life = settings.certificate_life
        self._clock = clock
        self.line = "imagepool node --join"

    def authorities(self) -> tuple[bytes, ...]:
        """See DoorPort."""
        return tuple(certificates.pem(one) for one in self._authority.certificates)

    async def join(self, asked: Joining, address: str) -> Admittance:
        """See DoorPort."""
        membership = await self.admission.join(asked, address)
        program = certificates.fingerprint(certificates.asked(asked.request))
        await self._told(program)
        self._changed(program)
        log.info("%s (%s) joined from %s", asked.name, program, address)
        return _admittance(membership)

    async def renew(self, caller: Caller, asked: Renewal) -> Admittance:
        """See DoorPort."""
        role = certificates.NODE if caller.role.value == certificates.NODE else SCHEDULER
        party = Party(caller.program, role, self._authority.pool)
        membership = await self.admission.renew(party, asked.request)
        await self._told(party.id)
        self._take_step()
        return _admittance(membership)

    async def _told(self, program: str) -> None:
        """It has what we believe now."""
        known = self._known.of(program)
        now = (self._authority.generations, self._authority.makes)
        if known is not None and (known.believes, known.made_by) != now:
            await self._known.put(replace(known, believes=now[0], made_by=now[1]))

    def invitation(self) -> Invitation:
        """See DoorPort."""
        token = str(self._authority.token)
        return Invitation(token, f"{self.line} {token}")

    def new_token(self) -> Invitation:
        """See DoorPort."""
        self._authority.new_token()
        return self.invitation()

    async def admit(self, node: str) -> None:
        """See DoorPort."""
        self._changed((await self.admission.admit(node)).id)

    async def revoke(self, node: str, reason: str) -> None:
        """See DoorPort."""
        self._changed((await self.admission.revoke(node, reason)).id)

    # The authority

    def authority(self) -> AuthorityState:
        """See DoorPort."""
        believed = tuple(certificates.digest(one) for one in self._authority.certificates)
        waits = tuple(node.name for node in self._waits_for())
        return AuthorityState(believed[0], believed, waits)

    def replace_authority(self, step: str) -> AuthorityState:
        """See DoorPort."""
        if step == "begin":
            self._authority.begin_replacing()
            self._membered.renew()
            self._take_step()
        elif len(self._authority.generations) > 1:
            self._next_step()
        else:
            raise Conflict("the authority is not being replaced", expected="to begin that first")
        return self.authority()

    def _waits_for(self) -> tuple[KnownNode, ...]:
        """Members that have yet to hear of what the next step rests on. Who was away for as long as
        a certificate lives is none any more, and keeps no authority in use for ever.
        """
        generations, makes = self._authority.generations, self._authority.makes
        if len(generations) < 2:
            return ()
        since = self._clock() - self._life
        everybody = (node for node in self._known.all() if node.seen >= since)
        members = (node for node in everybody if node.admission == ADMITTED)
        newest = generations[-1]
        if makes != newest:
            return tuple(node for node in members if newest not in node.believes)
        return tuple(node for node in members if node.made_by != newest)

    def _take_step(self) -> None:
        """Those steps that everybody is ready for."""
        while len(self._authority.generations) > 1 and not self._waits_for():
            self._next_step()

    def _next_step(self) -> None:
        if self._authority.makes != self._authority.generations[-1]:
            self._authority.use_newest()
            log.info("the pool's new authority makes certificates from now on")
        else:
            self._authority.end_replacing()
            log.info("the pool's old authority is believed no more")
        self._membered.renew()

    async def keep(self) -> None:
        """Renew our own certificate for as long as we serve."""
        while True:
            await asyncio.sleep(self._every)
            try:
                self._membered.renew()
                self._take_step()
            except (PoolError, OSError) as error:
                log.warning("our own certificate could not be renewed: %s", error)


def _admittance(membership: Membership) -> Admittance:
    return Admittance(
        tuple(certificates.pem(one) for one in membership.authorities),
        certificates.pem(membership.certificate),
    )

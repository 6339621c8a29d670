"""Who is let into the pool, and who is put out of it.

A program that knows the join token is in at once, or with `admission = "approve"` when an admin has
said so; it asks again until then. What was decided of a program stands with what is remembered of
it, in the store.
"""

import time

from msgspec.structs import replace

from protocol.errors import Busy, Conflict, Denied, NotFound
from protocol.model.messages import Joining
from protocol.trust import certificates
from protocol.trust.certificates import NODE, Party
from protocol.trust.membership import Membership
from scheduler.core.known import ADMITTED, REVOKED, WAITING, KnownNode
from scheduler.pool.authority import Authority
from scheduler.pool.known import Known

APPROVE = "approve"
"""The setting with which a right token is not enough."""
_AGAIN = 5  # seconds after which who waits for a yes asks again


class Admission:
    """The door of one pool. For use on the event loop."""

    def __init__(self, authority: Authority, known: Known, rule: str) -> None:
        """`rule`: "token" or "approve"."""
        self.authority = authority
        self._known = known
        self._rule = rule

    def is_revoked(self, program: str) -> bool:
        """Whether it was put out of the pool."""
        known = self._known.of(program)
        return known is not None and known.admission == REVOKED

    async def join(self, asked: Joining, address: str) -> Membership:
        """The membership of who asks for one, `address` being where from. It is remembered when
        this returns.

        Raises Denied (not the pool's token; it was put out; it wants to be more than a node), Busy
        (an admin has not said yes), Invalid, Unavailable.
        """
        self.authority.check(asked.secret)
        if asked.role != NODE:  # who has the token could give orders to every node
            raise Denied("a join token admits nodes", field="role", expected=NODE)
        program = certificates.fingerprint(certificates.asked(asked.request))
        known = self._known.of(program)
        if known is not None and known.admission == REVOKED:
            raise Denied("this program was put out of the pool", field="id")
        if known is None or known.admission not in (ADMITTED, WAITING):
            state = WAITING if self._rule == APPROVE else ADMITTED
            known = replace(
                known or KnownNode(program, asked.name, asked.role, (), (), time.time()),
                admission=state,
                admission_reason=f"joined from {address}",
            )
            await self._known.put(known)
        if known.admission == WAITING:
            raise Busy(
                "an admin has to let this program in: imagepool admit " + program[:16],
                retry_after=_AGAIN,
            )
        return self.authority.admit(asked.request, asked.role)

    async def renew(self, party: Party, request: bytes) -> Membership:
        """A new certificate for a member, and what it is to believe. Raises Denied, Invalid."""
        if certificates.fingerprint(certificates.asked(request)) != party.id:
            raise Denied("a certificate is renewed for one's own key", field="request")
        if self.is_revoked(party.id):
            raise Denied("this program was put out of the pool", field="id")
        known = self._known.of(party.id)
        if known is not None and known.admission == WAITING:
            raise Denied("an admin has to let this program in", field="id")
        return self.authority.admit(request, party.role)

    async def admit(self, name: str) -> KnownNode:
        """An admin's yes, by id, its beginning, or name. Raises NotFound, Conflict, Unavailable."""
        node = self._named(name)
        if not node.admission:
            raise Conflict(f"{node.name} has not asked to join", expected="one that waits")
        return await self._known.change(node.id, admission=ADMITTED, admission_reason="by an admin")

    async def revoke(self, name: str, reason: str) -> KnownNode:
        """Put a program out of the pool. Raises NotFound, Unavailable."""
        node = self._named(name)
        return await self._known.change(node.id, admission=REVOKED, admission_reason=reason)

    def _named(self, name: str) -> KnownNode:
        """Nodes call themselves what they like: a whole id is that node's, and for all else there
        must be one node only that can be meant.
        """
        if (known := self._known.of(name)) is not None:
            return known
        least = 8  # digits of an id that tell it
        found = [
            node
            for node in self._known.all()
            if node.name == name or (len(name) >= least and node.id.startswith(name))
        ]
        if len(found) != 1:
            raise NotFound(
                f"{len(found) or 'no'} nodes are called {name[:64]!r}",
                field="node",
                expected="an id",
            )
        return found[0]

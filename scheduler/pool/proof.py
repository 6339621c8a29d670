"""What a program that may be a node has to prove before it is asked anything, and whether it did.

A member of the pool is called by TLS, under the name that its certificate must have. Without that
are called only those whom the operator lets off: programs on this machine, or anywhere.
"""

from functools import partial
from urllib.parse import urlsplit

from msgspec import Struct

from protocol.errors import Unproven
from protocol.model.messages import Report
from protocol.model.networks import LOOPBACK, Reach, reach
from protocol.program.settings import is_loopback
from protocol.remote.connecting import Secured
from protocol.trust.certificates import NODE, server_name
from protocol.trust.membership import Memberships
from scheduler.config import SchedulerSettings
from scheduler.core.known import ADMITTED, REVOKED, WAITING
from scheduler.pool.known import Known

_WAITS = "it waits for an admin to let it in"


def node_reach(settings: SchedulerSettings) -> Reach:
    """The addresses at which nodes are called that others named. Raises Invalid."""
    here = () if settings.unproven == "none" else (LOOPBACK,)
    return reach((*settings.node_networks, *here), "node_networks")


class Pass(Struct, frozen=True):
    """The pool that this scheduler keeps."""

    memberships: Memberships
    pool: str  # its id


class Proof:
    """For one pool. `own`: None where it has no listener for its members."""

    def __init__(self, unproven: str, own: Pass | None, known: Known) -> None:
        """`unproven`: "none", "loopback" or "anywhere"."""
        self._unproven = unproven
        self._own = own
        self._known = known

    @property
    def is_kept(self) -> bool:
        """Whether there is a pool whose members prove that they are."""
        return self._own is not None

    def secured(self, url: str, program: str) -> Secured | None:
        """How to make sure that this program answers at a URL, any node where it is empty; None
        where that need not be. Raises Unproven where it may not be called.
        """
        known = self._known.of(program)
        admission = known.admission if known is not None else ""
        if admission == REVOKED:
            assert known is not None
            raise Unproven(f"it was put out of the pool: {known.admission_reason}")
        parts = urlsplit(url)
        if parts.scheme == "https":
            if admission == WAITING:  # it may have a certificate of an earlier time
                raise Unproven(_WAITS)
            if self._own is None:
                raise Unproven("it wants to be called as a member, and this pool has none")
            own = self._own
            return Secured(
                partial(own.memberships.client, own.pool), server_name(program or NODE, own.pool)
            )
        if admission == ADMITTED:
            raise Unproven(f"it is a member, and {url} is no place where it proves that")
        if self._lets_off(parts.hostname or ""):
            return None
        if admission == WAITING:
            raise Unproven(_WAITS)
        raise Unproven("it cannot prove who it is: it has not joined (imagepool invite)")

    def check(self, url: str, program: str, report: Report) -> bool:
        """Whether what answered has proved to be what it says; False where it has to be asked again
        under its own name. Raises Unproven.
        """
        if urlsplit(url).scheme == "https":
            if program and program != report.id:
                raise Unproven(f"it proved to be {program[:16]}, and says it is {report.id[:16]}")
            return bool(program)
        self.secured(url, report.id)
        return True

    def _lets_off(self, host: str) -> bool:
        here = self._unproven == "loopback" and is_loopback(host)
        return here or self._unproven == "anywhere"

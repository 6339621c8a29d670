"""A node as the scheduler remembers it over its restarts."""

from msgspec import Struct
from msgspec.structs import replace

WAITING, ADMITTED, REVOKED = "waiting", "admitted", "revoked"
"""Where a program stands that asked to join the pool."""


class KnownNode(Struct, frozen=True):
    """A node, or a scheduler below us, that answered once."""

    id: str
    name: str
    role: str  # "node" or "scheduler"
    urls: tuple[str, ...]  # where it answered
    found: tuple[str, ...]  # "mdns", "settings", "registered"
    seen: float  # seconds since the epoch: when it last answered, not always the newest
    cordoned: str | None = None  # why it gets no new builds; None: it does
    kind: str = ""  # as in a report
    draining: bool = False  # it is cordoned to be empty
    priority: int | None = None  # the admin's word, in place of its own; None: its own counts
    priority_cap: int | None = None  # the highest that its own is taken for; None: no such
    labels: tuple[str, ...] = ()  # the admin's
    own_labels: bool = True  # its own count beside the admin's
    admission: str = ""  # waiting, admitted, revoked; empty: it has not asked to join
    admission_reason: str = ""  # by what
    believes: tuple[int, ...] = ()  # generations of the authority that it was told of last
    made_by: int = 0  # the one of them that made its certificate

    @property
    def kept(self) -> bool:
        """Whether an admin said something of it that must outlive its address."""
        plain = KnownNode(self.id, self.name, self.role, self.urls, self.found, self.seen)
        return self != replace(plain, kind=self.kind)

    def labelled(self, stated: tuple[str, ...]) -> tuple[str, ...]:
        """The labels that it counts as having; `stated`: its own."""
        if self.own_labels and not self.labels:
            return stated
        return tuple(sorted({*self.labels, *(stated if self.own_labels else ())}))

"""A node as the scheduler remembers it over its restarts."""

from msgspec import Struct


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

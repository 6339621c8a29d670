"""The scheduler's settings, each with its unit. `config/scheduler.toml` shows the same, and a
test compares the two.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.program.settings import ProgramSettings

Seconds = Annotated[float, Meta(gt=0)]


class SchedulerSettings(ProgramSettings, frozen=True):
    """What an operator can set on a scheduler, beyond what all programs have."""

    listen: str = "127.0.0.1:8080"  # HOST:PORT to serve on; port 0 picks one
    nodes: tuple[str, ...] = ()  # URLs of nodes that mDNS does not reach
    node_networks: tuple[str, ...] = ("private",)  # words and networks: where other nodes may be
    plain_nodes: tuple[str, ...] = ()  # URLs of servers that speak the image-creator API only
    plain_poll: Seconds = 1.0  # seconds between polls of such a server
    plain_slots: Annotated[int, Meta(ge=1)] = 4  # builds on one, where it still says it is ready
    admission: Literal["token", "approve"] = "token"  # approve: an admin says yes to each node
    certificate_life: Seconds = 30 * 86400.0  # seconds that a member's certificate is good for
    advertise_as_node: bool = False  # other schedulers may place builds here
    hold: Seconds = 5.0  # seconds that a node may hold a poll while nothing changes
    patience: Seconds = 3.0  # seconds that an answer may take beyond that
    retry: Seconds = 1.0  # seconds between polls of a node that does not answer
    silent_after: Seconds = 9.0  # seconds without an answer until a node is silent
    lost_after: Seconds = 30.0  # seconds without an answer until its builds are placed elsewhere
    forget_after: Seconds = 86400.0  # seconds that an address that does not answer is tried
    stranger_limit: Annotated[int, Meta(ge=1)] = 1024  # addresses tried that never answered
    attempts: Annotated[int, Meta(ge=1)] = 3  # in all, where nodes fail a build
    waiting_limit: Annotated[int, Meta(ge=0)] = 10_000  # builds that may wait
    keep: Seconds = 7 * 86400.0  # seconds that ended builds are kept
    key_keep: Seconds = 86400.0  # seconds that a repeated Idempotency-Key gives the same build
    store: str = ""  # URL of the store of builds; empty: an SQLite file in the data folder
    recover_least: Seconds = 3.0  # seconds for finding nodes, where the store was lost
    recover_most: Seconds = 10.0  # seconds that nodes have to tell what they keep, where it was
    quarantine_after: Annotated[int, Meta(ge=1)] = 2  # failures of a node in a row
    quarantine: Seconds = 10.0  # seconds that it then gets nothing; twice as long each time
    quarantine_limit: Seconds = 3600.0  # seconds that it gets nothing at most
    priority_cap: int | None = None  # the highest priority that a node's own word is taken for
    priorities: dict[str, int] = msgspec.field(default_factory=dict)  # node name or id -> priority

"""Whose fault it is that an attempt came to nothing by an error, and what follows from that: one
table. docs/operations.md has it in words, and a test compares the two.

The first row that an error fits counts. To add one: a line here, above those that it is a kind of.
"""

import enum

from node.engines.errors import EngineError, ImageFailed, ImageUnknown, PullFailed
from node.inputs.fetch import FetchFailed
from protocol.errors import PoolError
from protocol.model.lifecycle import Event


class Fault(enum.Enum):
    """Whose it is."""

    BUILD = "build"  # its user's to mend: it fails, and is not tried again
    OUTSIDE = "outside"  # of what it needs from elsewhere: tried again, not held against the node
    NODE = "node"  # of the machine or its engine: tried again, and held against the node


TABLE: tuple[tuple[type[Exception], Fault], ...] = (
    (ImageUnknown, Fault.BUILD),
    (ImageFailed, Fault.BUILD),
    (FetchFailed, Fault.BUILD),
    (PullFailed, Fault.OUTSIDE),  # the registry may be away, or our way to it
    (EngineError, Fault.NODE),
    (PoolError, Fault.NODE),  # what the node was given is not there any more
    (OSError, Fault.NODE),
)


def fault_of(error: Exception) -> Fault | None:
    """Whose fault it is; None: there is no row for it, which is a bug of the node."""
    return next((fault for kind, fault in TABLE if isinstance(error, kind)), None)


def event_after(fault: Fault | None) -> Event:
    """The event that ends the attempt."""
    return Event.FAIL if fault is Fault.BUILD else Event.GIVE_UP


def in_words(error: Exception, fault: Fault | None) -> str:
    """The reason, as its user reads it."""
    if fault is None:
        return f"the node failed: {type(error).__name__}"
    if isinstance(error, OSError):  # its text has paths of this machine in it
        return f"its node failed: {error.strerror or type(error).__name__}"
    own = isinstance(error, EngineError | FetchFailed)  # their texts are made to be shown
    return str(error) if own else f"{type(error).__name__}: {error}"

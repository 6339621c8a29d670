"""What programs of a pool say to each other of artifacts that go from one to the other without TLS:
a ticket is asked for and given over it.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocol.model.build import Artifact


class TicketRequest(Struct, frozen=True):
    """Which artifact is wanted."""

    build: Annotated[str, Meta(max_length=64)]
    name: Annotated[str, Meta(max_length=255)]


class Ticket(Struct, frozen=True):
    """What gives one artifact to one program, once."""

    text: str
    port: Annotated[int, Meta(ge=1, le=65535)]  # where it is to be shown, on the same machine
    artifact: Artifact  # what it is for
    marks: bytes  # what to compare with what comes; see `protocol/transfer/check.py`

    def __repr__(self) -> str:
        return f"Ticket(..., {self.port}, {self.artifact})"

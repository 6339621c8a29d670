"""What watching a build tells, one after another."""

from typing import TypeAlias

from msgspec import Struct

from protocol.model.build import Build


class Changed(Struct, frozen=True):
    """The build as it is now."""

    build: Build


class LogPiece(Struct, frozen=True):
    """The next bytes of its log. A new attempt's log begins anew, at offset 0."""

    attempt: int
    offset: int  # of the first byte
    data: bytes


Event: TypeAlias = Changed | LogPiece

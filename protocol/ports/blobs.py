"""Bytes that a build needs and that are not in its request: uploads of clients, and artifacts of
earlier builds on their way to another node. They go by their SHA-256 and nothing else.

Node and scheduler keep them alike, in a folder; a scheduler gives a node what it has not, before it
forwards the build.
"""

from collections.abc import Collection
from typing import Protocol

from protocol.ports.service import ByteStream, Caller


class Blobs(Protocol):
    """What a program keeps of such bytes, as its clients and the scheduler above see it."""

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """Which of these are not here. Those that are stay for the time that an upload is kept."""

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """Keep what the stream gives, whole or not at all; its digest. With `sha256` and `size` it
        must have these.

        Raises Invalid (it has not), TooLarge, Busy (no room), Unavailable (the stream broke off).
        """

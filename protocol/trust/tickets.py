"""Tickets: each gives one artifact, once, soon, to the program that it was given to. They go where
others listen, so that nothing but these bounds makes them worth less than what they give.
"""

import hashlib
import secrets
from collections.abc import Callable

from msgspec import Struct

from protocol.errors import Busy, Denied
from protocol.ports.service import Caller

BYTES = 32
"""Random ones, of a ticket."""
MOST = 10_000
"""Tickets that wait to be used."""


class Grant(Struct, frozen=True):
    """What a ticket is for."""

    caller: Caller  # who asked, by its certificate
    address: str  # where it asked from
    build: str
    name: str  # of the artifact


class Tickets:
    """Of one program, in memory only. For use on the event loop."""

    def __init__(self, life: float, clock: Callable[[], float]) -> None:
        """`life`: seconds that one is good for; `clock`: seconds since any moment."""
        self._life = life
        self._clock = clock
        self._given: dict[str, tuple[float, Grant]] = {}  # digest -> until when, what for

    def give(self, grant: Grant) -> str:
        """A ticket's text; only its digest is kept. Raises Busy."""
        self._forget()
        if len(self._given) >= MOST:
            raise Busy("too many tickets were given and not used", retry_after=1)
        text = secrets.token_hex(BYTES)
        self._given[_digest(text)] = (self._clock() + self._life, grant)
        return text

    def take(self, text: str, address: str) -> Grant:
        """What a ticket is for that is shown from there; it is used up, whoever showed it. Raises
        Denied, in the same words for all that is wrong.
        """
        self._forget()
        found = self._given.pop(_digest(text), None)
        if found is None or found[1].address != address:
            raise Denied("that ticket is good for nothing: it was used, is over, or was never")
        return found[1]

    def _forget(self) -> None:
        """Drop what is over; those given first are over first."""
        now = self._clock()
        while self._given:
            first = next(iter(self._given))
            if self._given[first][0] > now:
                return
            del self._given[first]


def _digest(text: str) -> str:
    """What is kept of a ticket, and found again by: who tries others learns from the time that the
    look-up takes about digests, of which he cannot choose the beginning.
    """
    return hashlib.sha256(b"imagepool ticket\n" + text.encode()).hexdigest()

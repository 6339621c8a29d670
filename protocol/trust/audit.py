"""What was done in a program, by whom, and what was refused: a log that is only added to, in a file
of its own. It forgets by age and, of what came to nothing, by number: whoever is refused can make
as much of that as they like, and none of it is to cost the disk, or push out what was done.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from sqlite3 import Connection

import msgspec
from msgspec import Struct

from protocol.errors import PoolError
from protocol.storage.database import Database

log = logging.getLogger(__name__)

FILE = "audit.db"
"""In a program's data folder."""
REFUSED = 10_000
"""So many of what came to nothing are kept."""
_WAITING = 10_000  # deeds that wait to be written
_WHAT = 300  # characters of method and path
_WHO = 128  # characters of a name
_EVERY = 100  # writes between looks for what is too many

MIGRATIONS = (
    """
    CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL,
                        refused INTEGER NOT NULL, value BLOB NOT NULL);
    CREATE INDEX audit_at ON audit (at);
    CREATE INDEX audit_refused ON audit (refused, number);
    CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    """,
)


class Deed(Struct, frozen=True):
    """What somebody did, or was not allowed to do."""

    at: float  # seconds since the epoch
    who: str  # the owner's name, or a program's id; empty: nobody knows
    token: str  # id of the token or session; empty: none
    address: str  # where it was asked from
    what: str  # method and path
    status: int  # of the answer
    owner: str = ""  # on whose behalf, where that is somebody else

    @property
    def refused(self) -> bool:
        """Whether it was not allowed."""
        return self.status in (401, 403, 429)

    @property
    def vain(self) -> bool:
        """Whether nothing came of it."""
        return 400 <= self.status < 500 or self.status == 503


class Audit:
    """The log of one program. For use on one event loop."""

    def __init__(self, folder: Path, clock: Callable[[], float], refused: int = REFUSED) -> None:
        """`refused`: so many of what came to nothing are kept. Raises Conflict, Unavailable."""
        self.clock = clock
        self._limit = refused
        self._database = Database(folder / FILE, MIGRATIONS)
        self._waiting: deque[Deed] = deque(maxlen=_WAITING)
        self._writing: asyncio.Task[None] | None = None
        self._since = 0  # deeds written since a look for what is too many

    def note(self, deed: Deed) -> None:
        """Write it down: soon, all that come together at once."""
        if len(self._waiting) == _WAITING:
            log.warning("the audit log lags: %s is not in it", self._waiting[0])
        kept = msgspec.structs.replace(
            deed, what=deed.what[:_WHAT], who=deed.who[:_WHO], owner=deed.owner[:_WHO]
        )
        self._waiting.append(kept)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while self._waiting:
            deeds = tuple(self._waiting)
            self._waiting.clear()
            self._since += len(deeds)
            limit = self._limit if self._since >= _EVERY else None
            try:
                await self._database.write(partial(_put, deeds, limit))
            except PoolError as error:
                log.warning("%d deeds are not in the audit log: %s", len(deeds), error.detail)
            else:
                self._since = 0 if limit is not None else self._since

    async def written(self) -> None:
        """Return when all that was noted is on disk."""
        if self._writing is not None:
            await self._writing

    async def deeds(self, before: int, limit: int) -> tuple[tuple[int, Deed], ...]:
        """(number, deed), the newest first, with smaller numbers than `before`."""
        await self.written()
        rows = await self._database.write(
            lambda c: c.execute(
                "SELECT number, value FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?",
                (before, limit),
            ).fetchall()
        )
        return tuple((number, msgspec.msgpack.decode(row, type=Deed)) for number, row in rows)

    async def forget(self, before: float) -> None:
        """Drop what was done before that moment. Raises Unavailable."""
        await self._database.write(lambda c: c.execute("DELETE FROM audit WHERE at < ?", (before,)))

    async def close(self) -> None:
        """Write what was given, and close the file."""
        await self.written()
        await self._database.close()


def _put(deeds: tuple[Deed, ...], limit: int | None, connection: Connection) -> None:
    rows = [(deed.at, deed.vain, msgspec.msgpack.encode(deed)) for deed in deeds]
    connection.executemany("INSERT INTO audit (at, refused, value) VALUES (?, ?, ?)", rows)
    if limit is not None:
        connection.execute(_TOO_MANY, (limit,))


_TOO_MANY = """
    DELETE FROM audit WHERE refused AND number <= (
        SELECT number FROM audit WHERE refused ORDER BY number DESC LIMIT 1 OFFSET ?
    )
"""

"""What a node keeps on disk of its builds: enough to go on with them after it was killed, and to
answer late or repeated forwards.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from sqlite3 import Connection

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocol.model.lifecycle import Event
from protocol.model.record import Record
from protocol.model.request import BuildRequest
from protocol.storage.database import Database
from protocol.storage.database_file import apart, joined

FILE = "node.db"

MIGRATIONS = (
    """
    CREATE TABLE builds (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE requests (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE images (name TEXT PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID;
    """,
)


class Stop(Struct, frozen=True):
    """That and why the attempt was ended from outside: decided before its container is killed."""

    event: Event
    cause: str


class Kept(Struct, frozen=True):
    """A build as the node keeps it."""

    record: Record
    machine: str = ""  # boot id of the machine when the attempt began
    begun: float = 0.0  # seconds of that boot
    stop: Stop | None = None
    pinned: bool = False


class Records:
    """The node's builds on disk, and when images that it pulled were last used."""

    def __init__(self, folder: Path, on_full: Callable[[], None]) -> None:
        """`on_full` makes room for what must be written on a full disk. Raises Conflict."""
        self._database = Database(folder / FILE, MIGRATIONS, on_full=on_full)

    def load(self) -> tuple[Kept, ...]:
        """All that is kept, oldest first."""
        return self._database.read(_all)

    async def save(self, kept: Kept) -> None:
        """On disk when this returns. Raises Unavailable."""
        await self._database.write(lambda connection: _put(connection, kept))

    async def forget(self, ids: Iterable[str]) -> None:
        """Drop builds."""
        rows = [(key,) for key in ids]
        await self._database.write(lambda connection: _delete(connection, rows))

    async def used_image(self, name: str, at: float) -> None:
        """A build used an image that this node pulled; `at`: seconds since the epoch."""
        await self._database.write(
            lambda c: c.execute("INSERT OR REPLACE INTO images VALUES (?, ?)", (name, at))
        )

    async def images(self) -> dict[str, float]:
        """Images that this node pulled -> when a build used them last."""
        return await self._database.write(
            lambda c: dict(c.execute("SELECT name, used FROM images").fetchall())
        )

    async def forget_image(self, name: str) -> None:
        """It was removed from the engine."""
        await self._database.write(
            lambda c: c.execute("DELETE FROM images WHERE name = ?", (name,))
        )

    async def check(self) -> None:
        """Raises Unavailable where nothing can be written."""
        await self._database.write(lambda c: c.execute("DELETE FROM images WHERE name = ''"))

    async def erase(self) -> None:
        """No file has any more what was deleted before. Raises Conflict, Unavailable."""
        await self._database.erase()

    async def close(self) -> None:
        """Write what was given, and close the file."""
        await self._database.close()


def _put(connection: Connection, kept: Kept) -> None:
    build = kept.record.build
    slim = replace(kept, record=replace(kept.record, build=replace(build, request=BuildRequest())))
    value = msgspec.msgpack.encode(slim)
    connection.execute(
        "INSERT INTO builds VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
        (build.id, apart(value) if kept.record.secrets else value),
    )
    if kept.record.revision <= 1:
        connection.execute(
            "INSERT OR REPLACE INTO requests VALUES (?, ?)",
            (build.id, msgspec.msgpack.encode(build.request)),
        )


def _delete(connection: Connection, rows: list[tuple[str]]) -> None:
    connection.executemany("DELETE FROM builds WHERE id = ?", rows)
    connection.executemany("DELETE FROM requests WHERE id = ?", rows)


def _all(connection: Connection) -> tuple[Kept, ...]:
    found = connection.execute(
        "SELECT builds.value, requests.value FROM builds JOIN requests USING (id) ORDER BY id"
    )
    return tuple(_kept(value, request) for value, request in found)


def _kept(value: bytes, request: bytes) -> Kept:
    kept = msgspec.msgpack.decode(joined(value), type=Kept)
    whole = msgspec.msgpack.decode(request, type=BuildRequest)
    build = replace(kept.record.build, request=whole)
    return replace(kept, record=replace(kept.record, build=build))

"""The default store: one SQLite file.

A build's request, large and never changed, has a table of its own, so that a step of the build does
not write it again. The columns beside `value` are for people who look into the file; what counts is
in `value`, and the revision. The values are msgpack of our own structs: a new field needs a
default, and nothing else.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import Conflict, Invalid
from protocol.model.record import Record
from protocol.model.request import BuildRequest
from protocol.storage.database import Database
from protocol.storage.database_file import apart, joined
from scheduler.core.known import KnownNode
from scheduler.core.plain import PlainAttempt
from scheduler.stores.base import Stale

T = TypeVar("T")

FILE = "scheduler.db"
"""Its name in the data folder."""

# Rows have numbers: a new one goes to the end of its table, and a value of some size fits into one
# page. With the id as key of both tables, a new build writes 1.6 times as many pages.
MIGRATIONS = (
    """
    CREATE TABLE builds (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL,
        stage TEXT NOT NULL, owner TEXT NOT NULL, priority INTEGER NOT NULL,
        attempt INTEGER NOT NULL, node TEXT, created REAL NOT NULL, stopped REAL,
        value BLOB NOT NULL
    );
    CREATE TABLE requests (number INTEGER PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE nodes (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE settled (store TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE probe (id INTEGER PRIMARY KEY, count INTEGER NOT NULL);
    INSERT INTO probe VALUES (0, 0);
    """,
    """
    CREATE TABLE plain_attempts (
        build TEXT NOT NULL, attempt INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (build, attempt)
    ) WITHOUT ROWID;
    """,
)

_INSERT = """
    INSERT INTO builds VALUES (NULL, :id, :revision, :stage, :owner, :priority, :attempt, :node,
        :created, :stopped, :value)
    ON CONFLICT DO NOTHING
"""
_REQUEST = "INSERT OR REPLACE INTO requests VALUES (last_insert_rowid(), :request)"
_UPDATE = """
    UPDATE builds SET revision = :revision, stage = :stage, owner = :owner, priority = :priority,
        attempt = :attempt, node = :node, created = :created, stopped = :stopped, value = :value
    WHERE id = :id AND revision = :revision - 1
"""
_FORGET = (
    "DELETE FROM requests WHERE number = (SELECT number FROM builds WHERE id = ?)",
    "DELETE FROM builds WHERE id = ?",
    "DELETE FROM plain_attempts WHERE build = ?",
)
_RECORDS = """
    SELECT id, builds.value, requests.value FROM builds LEFT JOIN requests USING (number)
    ORDER BY id
"""

Row = dict[str, str | int | float | bytes | None]
"""Name of a column -> its value; and the request."""


_ELSEWHERE = BuildRequest()
"""Stands in a value for the request, which is in its own table."""


class SqliteStore:
    """A `Store` in one file."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it; blocking. Raises Conflict where it is no store of ours or
        damaged, Unavailable.
        """
        self._path = path
        self._database = Database(path, MIGRATIONS)
        self.id = self._database.id
        self.fresh = not self._database.read(
            lambda c: c.execute("SELECT 1 FROM settled WHERE store = ?", (self.id,)).fetchone()
        )

    def records(self) -> tuple[Record, ...]:
        """As `Store`."""
        return self._database.read(
            lambda c: tuple(self._record(*row) for row in c.execute(_RECORDS))
        )

    async def put(self, records: Sequence[Record]) -> None:
        """As `Store`."""
        # Here, not on the writer thread: a value that cannot be written then concerns nobody else.
        rows = [_row(record) for record in records]
        await self._database.write(partial(_put, rows))

    async def forget(self, ids: Sequence[str]) -> None:
        """As `Store`."""
        await self._database.write(partial(_forget, [(key,) for key in ids]))

    def nodes(self) -> tuple[KnownNode, ...]:
        """As `Store`."""
        return self._database.read(
            lambda c: tuple(
                self._decoded(value, KnownNode, f"node {key}")
                for key, value in c.execute("SELECT id, value FROM nodes ORDER BY id")
            )
        )

    async def put_node(self, node: KnownNode) -> None:
        """As `Store`."""
        row = (node.id, _encoded(node, f"node {node.id}"))
        await self._execute("INSERT OR REPLACE INTO nodes VALUES (?, ?)", row)

    async def forget_node(self, id: str) -> None:
        """As `Store`."""
        await self._execute("DELETE FROM nodes WHERE id = ?", (id,))

    def plain_attempts(self) -> tuple[PlainAttempt, ...]:
        """As `Store`."""
        query = "SELECT build, attempt, value FROM plain_attempts ORDER BY build, attempt"
        return self._database.read(
            lambda c: tuple(
                self._decoded(value, PlainAttempt, f"attempt {number} of build {key} elsewhere")
                for key, number, value in c.execute(query)
            )
        )

    async def put_plain(self, attempt: PlainAttempt) -> None:
        """As `Store`."""
        value = _encoded(attempt, f"an attempt of build {attempt.build}")
        await self._execute(
            "INSERT OR REPLACE INTO plain_attempts VALUES (?, ?, ?)", (*attempt.key, value)
        )

    async def forget_plain(self, key: tuple[str, int]) -> None:
        """As `Store`."""
        await self._execute("DELETE FROM plain_attempts WHERE build = ? AND attempt = ?", key)

    async def settle(self) -> None:
        """As `Store`. A copy has another id, and is fresh again."""
        await self._execute("INSERT OR IGNORE INTO settled VALUES (?)", (self.id,))
        self.fresh = False

    async def check(self) -> None:
        """As `Store`."""
        await self._execute("UPDATE probe SET count = count + 1")

    async def erase(self) -> None:
        """As `Store`."""
        await self._database.erase()

    async def close(self) -> None:
        """As `Store`."""
        await self._database.close()

    async def _execute(self, statement: str, values: tuple[str | int | bytes, ...] = ()) -> None:
        def change(connection: Connection) -> None:
            connection.execute(statement, values)

        await self._database.write(change)

    def _record(self, key: str, value: bytes, request: bytes | None) -> Record:
        if request is None:
            raise Conflict(f"{self._path} is damaged: build {key} has no request")
        whole = self._decoded(request, BuildRequest, f"the request of build {key}")
        record = self._decoded(joined(value), Record, f"build {key}")
        return replace(record, build=replace(record.build, request=whole))

    def _decoded(self, value: bytes, kind: type[T], what: str) -> T:
        try:
            return msgspec.msgpack.decode(value, type=kind)
        except msgspec.MsgspecError as error:
            raise Conflict(f"{self._path} is damaged: {what}: {error}") from error


def _row(record: Record) -> Row:
    build, what = record.build, f"build {record.build.id}"
    value = _encoded(replace(record, build=replace(build, request=_ELSEWHERE)), what)
    row: Row = {
        "id": build.id,
        "revision": record.revision,
        "stage": build.stage.value,
        "owner": build.owner,
        "priority": build.request.guidance.priority,
        "attempt": build.attempt,
        "node": build.node.id if build.node is not None else None,
        "created": build.created,
        "stopped": build.stopped,
        "value": apart(value) if record.secrets else value,
    }
    if record.revision == 1:
        row["request"] = _encoded(build.request, what)
    return row


def _put(rows: list[Row], connection: Connection) -> None:
    for row in rows:
        new = row["revision"] == 1
        if connection.execute(_INSERT if new else _UPDATE, row).rowcount != 1:
            raise Stale(str(row["id"]))
        if new:
            connection.execute(_REQUEST, row)


def _forget(keys: list[tuple[str]], connection: Connection) -> None:
    for statement in _FORGET:
        connection.executemany(statement, keys)


def _encoded(value: Struct, what: str) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (UnicodeEncodeError, OverflowError) as error:  # half characters, huge numbers
        raise Invalid(f"{what[:128]!r} cannot be written down: {error}") from error

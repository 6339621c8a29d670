"""The SQLite files of this project: how one is opened, made, brought to the newest format and
copied, and how nothing that was deleted stays in them. What is read and written is elsewhere:
`protocol/storage/database.py`.
"""

import contextlib
import os
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from protocol.errors import Conflict, Unavailable

_APPLICATION = 0x696D6770  # "imgp" in a file's head, so that we know our own
_PATIENCE = 5.0  # seconds that a statement waits for another process's lock
_PAGE = 1024  # bytes of a page of the file: a small write syncs little (`make bench`)
_WAL_LONG = 8 << 20  # bytes of the log after which it is taken into the file, which takes a moment
_WAL_KEPT = 64 << 20  # bytes that the log beside the file keeps on disk after a large write


def opened(
    path: Path, migrations: Sequence[str], synchronous: bool
) -> tuple[sqlite3.Connection, bool]:
    """The connection, and whether the file was made now."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(
        path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        made = not _is_ours(connection, path)
        # Temporary files stay in memory: where the disk is full, they could not be written.
        connection.execute("PRAGMA temp_store = MEMORY")
        # What is deleted is overwritten: secrets are, when their build has stopped.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous else 'OFF'}")
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_LONG // _PAGE}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
        _migrate(connection, path, migrations, made)
        if made and synchronous:
            _synced(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection, made


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """False where the file is empty. Raises Conflict where it is somebody else's."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != _APPLICATION and (application or tables):
        raise Conflict(f"{path} is a database of another program")
    return bool(application)


def _migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[str], made: bool
) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise Conflict(
            f"{path} was made by a newer version of this program: it has format {version}, "
            f"and this version knows no higher one than {len(migrations)}"
        )
    if made:
        _run_script(
            connection,
            f"PRAGMA application_id = {_APPLICATION}; CREATE TABLE meta (id TEXT NOT NULL);"
            f"INSERT INTO meta VALUES ('{secrets.token_hex(16)}')",
        )
    for number, script in enumerate(migrations[version:], version + 1):
        _run_script(connection, f"{script}; PRAGMA user_version = {number}")


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {script}; COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _synced(path: Path) -> None:
    """Have the file or folder on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def apart(value: bytes) -> bytes:
    """The value, no byte of which is 0 at its beginning, such that all of it lies in pages that
    hold nothing else. Those are overwritten as a whole when it is replaced or deleted; of what lies
    among the rows of a page, SQLite leaves copies when it moves rows to another.
    """
    return bytes(_PAGE) + value


def joined(value: bytes) -> bytes:
    """The value, whether it was `apart` or not."""
    return value.lstrip(b"\0")


def emptied(connection: sqlite3.Connection) -> None:
    """Take the log into the file and cut it to nothing: what was overwritten stays in the log
    otherwise. Nobody is waited for who reads it now; then it is left.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {round(_PATIENCE * 1000)}")


def backup(source: Path, target: Path) -> None:
    """A consistent copy of the file, also while a program writes to it; blocking. The copy has an
    id of its own: it knows less than its source will, and must not be taken for it.

    Raises Conflict where the target exists or the source is no such file, Unavailable.
    """
    if target.exists():
        raise Conflict(f"{target} exists already", field="target")
    with translated(target):
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(descriptor)  # its mode is 0600
    copy = Path(name)
    try:
        _copied(source, copy)
        with translated(target):
            _synced(copy)
            _published(copy, target)
            _synced(target.parent)
    finally:
        copy.unlink(missing_ok=True)


def _copied(source: Path, copy: Path) -> None:
    with translated(source):
        uri = f"{source.absolute().as_uri()}?mode=rw"  # not made where it is not there
        origin = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)
        with contextlib.closing(origin):
            if not _is_ours(origin, source):
                raise Conflict(f"{source} has nothing in it")
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as other:
                origin.backup(other)
                other.execute("UPDATE meta SET id = ?", (secrets.token_hex(16),))
                # One file, nothing beside it: what is still in a log would not be copied.
                other.execute("PRAGMA journal_mode = DELETE")


def _published(copy: Path, target: Path) -> None:
    """Give the copy its name. Raises Conflict where somebody else took it meanwhile."""
    try:
        os.link(copy, target)
    except FileExistsError as error:
        raise Conflict(f"{target} exists already", field="target") from error
    except OSError:  # a file system without links
        copy.rename(target)


def code(error: BaseException) -> int | None:
    """SQLite's primary result code; None where it is none of SQLite's errors."""
    extended: int | None = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors to ours."""
    try:
        yield
    except sqlite3.Error as error:
        if code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Conflict(f"{path} is damaged, or no database: {error}") from error
        raise Unavailable(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be used: {error.strerror}") from error

"""One SQLite file that a program keeps what it must not forget in.

All writes run on one thread. Those that wait at the same time share one transaction and one sync of
the disk (group commit), so that a write is on disk when it is answered and many callers cost little
more than one. WAL, so that a backup reads a consistent state while the program writes.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from protocol.errors import PoolError, Unavailable
from protocol.storage.database_file import backup as backup
from protocol.storage.database_file import code, emptied, opened, translated

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]

log = logging.getLogger(__name__)

_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""Failures that more free space may mend (a quota shows as an I/O error)."""
_FAILED = _NO_ROOM | {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""Failures of the file or the machine, whoever's statement meets them. All others are the
caller's.
"""


class Database:
    """One open file. `write` and `close` are for one event loop."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        synchronous: bool = True,
        on_full: Callable[[], None] | None = None,
    ) -> None:
        """Opens the file, or makes it; blocking. `migrations`: SQL scripts, without transactions of
        their own; number N brings a file from format N - 1 to N. `synchronous`: False keeps nothing
        over a power cut. `on_full` is called on the writer thread before a write that failed for
        want of room is tried again.

        Raises Conflict where the file is corrupt, is none of ours or was made by a newer version,
        Unavailable where it cannot be opened.
        """
        self.path = path
        self._on_full = on_full
        with translated(path):
            self._connection, self.made = opened(path, migrations, synchronous)
        self._in_use = threading.Lock()  # so that no reader sees what is not committed
        self.id: str = self.read(lambda c: c.execute("SELECT id FROM meta").fetchone()[0])
        """Random; made with the file. A backup has another one."""
        self._waiting: list[_Write] = []  # given in this turn of the event loop
        self._given: SimpleQueue[list[_Write]] = SimpleQueue()  # an empty list: the end
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=path.name, daemon=True)
        self._thread.start()

    def read(self, query: Change[T]) -> T:
        """What this query answers; blocking, for the time before the event loop runs. Raises
        Conflict where the file is corrupt, Unavailable.
        """
        with self._in_use, translated(self.path):
            return query(self._connection)

    async def write(self, change: Change[T]) -> T:
        """What this change answers, when it is on disk. It runs on the writer thread, inside a
        transaction, and perhaps more than once, what it did before being undone: it does nothing
        but statements, and lets errors of SQLite pass. What else it raises is raised here, and only
        its own effects are undone. A write is made even where its caller is cancelled.

        Raises Unavailable where the file cannot be written; nothing of the change is then in it.
        """
        if self._closed:
            raise Unavailable(f"{self.path.name} is closed")
        loop = asyncio.get_running_loop()
        write = _Write(change, loop.create_future())
        # All that is given in one turn of the loop goes to the thread at once: a thread that is
        # woken by the first would commit it alone, and its statements would fight the loop for
        # the interpreter meanwhile.
        if not self._waiting:
            loop.call_soon(self._give)
        self._waiting.append(write)
        answer: T = await write.answer
        return answer

    async def erase(self) -> None:
        """What was overwritten or deleted before is in no file any more; where another process
        reads the file now, only the next call does it. Raises Conflict where the file is corrupt,
        Unavailable.
        """
        await asyncio.to_thread(self._erase)

    async def close(self) -> None:
        """Write what was given, and close the file."""
        if not self._closed:
            self._closed = True
            self._give()
            self._given.put([])
        await asyncio.to_thread(self._thread.join)

    def _give(self) -> None:
        if self._waiting:
            self._given.put(self._waiting)
            self._waiting = []

    def _erase(self) -> None:
        with self._in_use, translated(self.path):
            if not self._closed:  # then it is done, or about to be
                emptied(self._connection)

    # On the writer thread

    def _run(self) -> None:
        ended = False
        while not ended:
            group: list[_Write] = []
            while not ended and not (group and self._given.empty()):
                given = self._given.get()
                group += given
                ended = not given
            if group:
                with self._in_use:
                    self._commit(group)
                _answer(group)
        with self._in_use:
            with contextlib.suppress(sqlite3.Error):  # a reader may be in the way: it stays as is
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def _commit(self, group: "list[_Write]") -> None:
        """Write all of them, or note why not."""
        try:
            try:
                self._transact(group)
            except sqlite3.Error as error:
                if code(error) not in _NO_ROOM:
                    raise
                self._make_room()
                self._transact(group)
        except BaseException as error:  # whatever it is: they wait for an answer, others will
            for write in group:
                write.error = _refusal(self.path, error)

    def _transact(self, group: "list[_Write]") -> None:
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            if not self._all_run(group):
                execute("ROLLBACK")
                execute("BEGIN IMMEDIATE")
                for write in group:
                    self._run_apart(write)
            execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                execute("ROLLBACK")

    def _all_run(self, group: "list[_Write]") -> bool:
        """False where one raised: then which of the effects are whose is not known. Savepoints
        would tell, and would double the statements of every write.
        """
        try:
            for write in group:
                write.run(self._connection)
        except Exception as error:
            if self._failed(error):
                raise
            return False
        return True

    def _run_apart(self, write: "_Write") -> None:
        """Only its own effects are undone where it raises."""
        self._connection.execute("SAVEPOINT one")
        try:
            write.run(self._connection)
        except Exception as error:
            if self._failed(error):
                raise
            self._connection.execute("ROLLBACK TO one")
            write.error = error
        self._connection.execute("RELEASE one")

    def _failed(self, error: Exception) -> bool:
        """Whether it is the file that failed, and with it the whole transaction."""
        return code(error) in _FAILED or not self._connection.in_transaction

    def _make_room(self) -> None:
        if self._on_full is not None:
            try:
                self._on_full()
            except Exception:
                log.exception("no room could be made")


async def keep_erasing(erase: Callable[[], Awaitable[None]], every: float) -> None:
    """Erase what was deleted, for as long as a program lives; `every`: seconds."""
    while True:
        await asyncio.sleep(every)
        try:
            await erase()
        except PoolError as error:
            log.warning("what was deleted is still in a file: %s", error.detail)


class _Write:
    """A change, and what became of it."""

    __slots__ = ("answer", "change", "error", "result")

    def __init__(self, change: Change[Any], answer: asyncio.Future[Any]) -> None:
        self.change = change
        self.answer = answer
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self.error = None
        try:
            self.result = self.change(connection)
        except StopIteration as error:  # which no future takes
            raise RuntimeError("the change raised StopIteration") from error

    def done(self) -> None:
        """On the event loop: tell its caller."""
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)


def _answer(group: list[_Write]) -> None:
    def tell() -> None:
        for write in group:
            write.done()

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        group[0].answer.get_loop().call_soon_threadsafe(tell)


def _refusal(path: Path, error: BaseException) -> Unavailable:
    refusal = Unavailable(f"{path} cannot be written: {error}")
    refusal.__cause__ = error
    return refusal

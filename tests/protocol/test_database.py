"""One SQLite file: what was answered is on disk, one caller's error is its own, a full disk is
survived.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.errors import Conflict, Unavailable
from protocol.storage.database import Database, backup, keep_erasing

pytestmark = pytest.mark.gen_test(timeout=30)

FIRST = "CREATE TABLE words (word TEXT PRIMARY KEY)"
SECOND = "ALTER TABLE words ADD COLUMN size INTEGER NOT NULL DEFAULT 0"

WRITER = f"""
import asyncio, itertools, sys
from pathlib import Path
from protocol.storage.database import Database

async def main():
    database = Database(Path(sys.argv[1]), ["{FIRST}"])

    async def write(name):
        for number in itertools.count():
            word = f"{{name}}-{{number}}"
            await database.write(lambda c: c.execute("INSERT INTO words VALUES (?)", (word,)) and 0)
            print(word, flush=True)

    await asyncio.gather(*(write(name) for name in range(8)))

asyncio.run(main())
"""


@asynccontextmanager
async def a_database(path: Path, *migrations: str, **options: object) -> AsyncIterator[Database]:
    """Open while the context lasts."""
    database = Database(path, migrations or (FIRST,), **options)
    try:
        yield database
    finally:
        await database.close()


async def put(database: Database, *words: str) -> None:
    """Write words down, all at once."""
    rows = [(word,) for word in words]
    await database.write(lambda c: c.executemany("INSERT INTO words (word) VALUES (?)", rows) and 0)


def words(database: Database) -> set[str]:
    """What is written down."""
    return database.read(lambda c: {word for (word,) in c.execute("SELECT word FROM words")})


# Opening


async def test_a_new_file_is_private_and_has_an_id_of_its_own(tmp_path) -> None:
    """Only its owner may read it, and it is known from all others."""
    async with a_database(tmp_path / "a") as one, a_database(tmp_path / "b") as other:
        assert one.made
        assert other.made
        assert len(one.id) == len(other.id) == 32
        assert one.id != other.id
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


async def test_it_is_the_same_when_it_is_opened_again(tmp_path) -> None:
    """With its id and all that was written."""
    async with a_database(tmp_path / "a") as database:
        made = database.id
        await put(database, "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    async with a_database(tmp_path / "a") as database:
        assert database.id == made
        assert not database.made
        assert words(database) == {"kept"}


async def test_a_file_whose_making_was_cut_off_is_made(tmp_path) -> None:
    """An empty file knows nothing."""
    (tmp_path / "a").touch()
    async with a_database(tmp_path / "a") as database:
        assert database.made


async def test_an_older_file_is_brought_to_the_newest_format(tmp_path) -> None:
    """By the migrations that it has not seen, each once."""
    async with a_database(tmp_path / "a") as database:
        await put(database, "old")
    for _ in range(2):
        async with a_database(tmp_path / "a", FIRST, SECOND) as database:
            assert not database.made
            assert database.read(lambda c: c.execute("SELECT * FROM words").fetchall()) == [
                ("old", 0)
            ]


async def test_a_migration_is_done_wholly_or_not_at_all(tmp_path) -> None:
    """What failed in the middle is begun anew."""
    broken = f"{SECOND}; CREATE TABLE words (word TEXT)"
    async with a_database(tmp_path / "a"):
        pass
    with pytest.raises(Unavailable, match="words already exists"):
        Database(tmp_path / "a", (FIRST, broken))
    async with a_database(tmp_path / "a", FIRST, SECOND) as database:
        assert words(database) == set()


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path) -> None:
    """An older program would not understand it."""
    async with a_database(tmp_path / "a", FIRST, SECOND):
        pass
    with pytest.raises(Conflict, match=r"newer version.*format 2.*higher one than 1"):
        Database(tmp_path / "a", (FIRST,))


async def test_a_file_of_another_program_is_left_alone(tmp_path) -> None:
    """A database, and none of ours."""
    with contextlib.closing(sqlite3.connect(tmp_path / "a")) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(Conflict, match="another program"):
        Database(tmp_path / "a", (FIRST,))
    assert (tmp_path / "a").read_bytes() == before


async def test_what_is_no_database_is_refused_by_name(tmp_path) -> None:
    """Never taken for an empty one."""
    (tmp_path / "a").write_bytes(b"no database at all\n" * 1000)
    with pytest.raises(Conflict, match=f"{tmp_path}/a is damaged"):
        Database(tmp_path / "a", (FIRST,))


async def test_damage_inside_is_told_by_name(tmp_path) -> None:
    """At the latest when it is read."""
    async with a_database(tmp_path / "a") as database:
        await put(database, *(f"{number:0200}" for number in range(500)))
    with (tmp_path / "a").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 40 * 4096)
    with pytest.raises(Conflict, match=f"{tmp_path}/a is damaged"):
        words(Database(tmp_path / "a", (FIRST,)))


async def test_where_there_is_no_folder_it_cannot_be_opened(tmp_path) -> None:
    """A folder is not made: it may be a mount that is missing."""
    with pytest.raises(Unavailable, match="No such file"):
        Database(tmp_path / "none" / "a", (FIRST,))


# Writing


async def test_a_write_is_seen_by_others_when_it_is_answered(tmp_path) -> None:
    """And its answer is that of the change."""
    async with a_database(tmp_path / "a") as database:
        await put(database, "one", "two")
        count = await database.write(
            lambda c: c.execute("SELECT count(*) FROM words").fetchone()[0]
        )
        assert count == 2
        with contextlib.closing(sqlite3.connect(tmp_path / "a")) as other:
            assert other.execute("SELECT count(*) FROM words").fetchone() == (2,)


async def test_those_that_wait_share_a_transaction(tmp_path) -> None:
    """A sync of the disk is for many."""
    async with a_database(tmp_path / "a") as database:
        commits = []
        await database.write(
            lambda c: c.set_trace_callback(lambda sql: sql == "COMMIT" and commits.append(sql))
        )
        commits.clear()
        await asyncio.gather(*(put(database, f"{number}") for number in range(100)))
        assert len(words(database)) == 100
    assert len(commits) == 1


@pytest.mark.parametrize("error", [KeyError("mine"), StopIteration(), UnicodeError()])
async def test_an_error_is_its_callers_alone(tmp_path, error) -> None:
    """With all that its change did before, and nothing that others did in the same transaction."""

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('undone')")
        raise error

    async with a_database(tmp_path / "a") as database:
        answers = await asyncio.gather(
            put(database, "before"),
            database.write(change),
            put(database, "before"),
            put(database, "after"),
            return_exceptions=True,
        )
        assert answers[0] is answers[3] is None
        expected = RuntimeError if isinstance(error, StopIteration) else type(error)
        assert isinstance(answers[1], expected)
        assert isinstance(answers[2], sqlite3.IntegrityError)
        with pytest.raises(expected):
            await database.write(change)
        assert words(database) == {"before", "after"}


async def test_a_write_of_a_caller_that_is_gone_is_made(tmp_path) -> None:
    """Whoever was cancelled does not know whether it was written; others go on."""
    async with a_database(tmp_path / "a") as database:
        tasks = [asyncio.ensure_future(put(database, f"{number}")) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert tasks[1].cancelled()
        assert words(database) == {"0", "1", "2"}


async def test_closing_writes_what_was_given(tmp_path) -> None:
    """Nothing can be given any more after that; it may be closed twice."""
    database = Database(tmp_path / "a", (FIRST,))
    tasks = [asyncio.ensure_future(put(database, f"{number}")) for number in range(3)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*tasks)
    with pytest.raises(Unavailable, match="closed"):
        await put(database, "late")
    await database.close()
    async with a_database(tmp_path / "a") as database:
        assert words(database) == {"0", "1", "2"}


# A full disk


@pytest.mark.parametrize(
    "large",
    [
        "INSERT INTO words VALUES (zeroblob(100000))",
        "INSERT INTO words SELECT column1 || hex(zeroblob(3000)) FROM (VALUES (1), (2), (3), (4))",
    ],
    ids=["ends the transaction", "leaves it open"],
)
async def test_a_full_disk_refuses_the_write_and_leaves_the_file_as_it_was(tmp_path, large) -> None:
    """Every caller is told why; what is small enough can still be written later."""
    async with a_database(tmp_path / "a") as database:
        await put(database, "before")
        await database.write(_grow_no_more)
        answers = await asyncio.gather(
            put(database, "small"),
            database.write(lambda c: c.execute(large) and 0),
            return_exceptions=True,
        )
        for answer in answers:
            assert isinstance(answer, Unavailable)
            assert str(answer) == f"{tmp_path}/a cannot be written: database or disk is full"
        assert words(database) == {"before"}
        await put(database, "small")
        assert words(database) == {"before", "small"}


async def test_room_is_made_once_and_the_write_tried_again(tmp_path) -> None:
    """The callers see nothing of it."""
    calls = []

    def make_room() -> None:
        calls.append("called")
        database._connection.execute("PRAGMA max_page_count = 1000000")

    async with a_database(tmp_path / "a", on_full=make_room) as database:
        await database.write(_grow_no_more)
        await asyncio.gather(put(database, "small"), put(database, "x" * 100_000))
        assert words(database) == {"small", "x" * 100_000}
    assert calls == ["called"]


@pytest.mark.parametrize("helps", [True, False])
async def test_an_error_of_the_disk_at_the_commit(tmp_path, helps) -> None:
    """Here of the log beside the file, which grows no further."""
    path = tmp_path / "a"
    calls = []
    with contextlib.ExitStack() as limited:

        def make_room() -> None:
            calls.append("called")
            if helps:
                limited.close()

        async with a_database(path, on_full=make_room) as database:
            await put(database, "before")
            limited.enter_context(_no_file_larger_than(path.with_name("a-wal").stat().st_size))
            write = put(database, "x" * 20_000, "y")
            if helps:
                await write
            else:
                with pytest.raises(Unavailable, match="disk I/O error"):
                    await write
            limited.close()
            assert len(words(database)) == (3 if helps else 1)
            await put(database, "after")
    assert calls == ["called"]
    async with a_database(path) as database:
        assert len(words(database)) == (4 if helps else 2)


async def test_damage_that_a_write_meets_is_told_to_all_that_wait(tmp_path) -> None:
    """As the file's failure, which is nobody's own."""
    async with a_database(tmp_path / "a") as database:
        await put(database, *(f"{number:0200}" for number in range(500)))
    with (tmp_path / "a").open("r+b") as file:
        file.seek(6 * 4096)
        file.write(b"\xff" * 30 * 4096)
    async with a_database(tmp_path / "a") as database:
        answers = await asyncio.gather(
            put(database, "one"),
            database.write(lambda c: c.execute("SELECT sum(length(word)) FROM words").fetchall()),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
        assert "malformed" in str(answers[0])


async def test_a_file_that_another_program_holds_cannot_be_written(tmp_path, monkeypatch) -> None:
    """The others that wait are told too, and later writes succeed."""
    monkeypatch.setattr("protocol.storage.database_file._PATIENCE", 0.0)
    async with a_database(tmp_path / "a") as database:
        with contextlib.closing(sqlite3.connect(tmp_path / "a", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"):
                await put(database, "one")
        await put(database, "two")
        assert words(database) == {"two"}


# What is left after kill -9, and backups


async def test_what_was_answered_outlives_kill_9(tmp_path) -> None:
    """Whenever it comes."""
    for turn in range(3):
        path = tmp_path / f"{turn}"
        async with _writing(path) as (process, answered):
            while len(answered) < 50 * (turn + 1):
                answered.add(await _line(process))
            process.send_signal(signal.SIGKILL)
            rest = await process.stdout.read()
            answered.update(line for line in rest.decode().split("\n")[:-1])
        async with a_database(path) as database:
            assert answered <= words(database)
            assert not database.made


async def test_what_is_deleted_is_erased(tmp_path) -> None:
    """From the file, its free pages and the log beside it; all else is there."""
    async with a_database(tmp_path / "a") as database:
        await put(database, "kept", "secret" * 10, "secret" * 500)
        await database.write(lambda c: c.execute("DELETE FROM words WHERE word != 'kept'") and 0)
        assert b"secret" in (tmp_path / "a-wal").read_bytes()
        await database.erase()
        for path in tmp_path.iterdir():
            assert b"secret" not in path.read_bytes(), path
        assert words(database) == {"kept"}
        await put(database, "after")
    await database.erase()


async def test_a_reader_puts_erasing_off(tmp_path) -> None:
    """Nobody waits for it, and later it is done."""
    async with a_database(tmp_path / "a") as database:
        await put(database, "secret")
        with contextlib.closing(sqlite3.connect(tmp_path / "a", isolation_level=None)) as other:
            other.execute("BEGIN")
            assert other.execute("SELECT word FROM words").fetchall() == [("secret",)]
            await database.write(lambda c: c.execute("DELETE FROM words") and 0)
            async with asyncio.timeout(2):
                await database.erase()
            assert b"secret" in (tmp_path / "a-wal").read_bytes()
            other.execute("COMMIT")
        erasing = asyncio.create_task(keep_erasing(database.erase, 0.01))
        async with asyncio.timeout(5):
            for _ in iter(lambda: b"secret" in (tmp_path / "a-wal").read_bytes(), False):
                await asyncio.sleep(0.01)
        erasing.cancel()


async def test_erasing_goes_on_when_it_could_not_be_done(caplog) -> None:
    """Which is said."""
    answers = [Unavailable("no room"), None, None]
    over = asyncio.Event()

    async def erase() -> None:
        if not answers:
            over.set()
        elif (answer := answers.pop()) is not None:
            raise answer

    erasing = asyncio.create_task(keep_erasing(erase, 0.001))
    await over.wait()
    erasing.cancel()
    assert [record.message for record in caplog.records] == [
        "what was deleted is still in a file: no room"
    ]
    caplog.clear()


async def test_a_backup_is_consistent_and_has_an_id_of_its_own(tmp_path) -> None:
    """Also while another process writes; it is one private file."""
    target = tmp_path / "copies" / "b"
    target.parent.mkdir()
    async with _writing(tmp_path / "a") as (process, answered):
        while len(answered) < 50:
            answered.add(await _line(process))
        await asyncio.to_thread(backup, tmp_path / "a", target)
        await process.stdout.readline()  # it goes on
        assert process.returncode is None
        process.send_signal(signal.SIGKILL)
        await process.stdout.read()
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.read_bytes()[18:20] == b"\1\1"  # without WAL: it can be read where it lies
    async with a_database(tmp_path / "a") as source, a_database(target) as copy:
        assert answered <= words(copy) <= words(source)
        assert copy.id != source.id
        assert not copy.made
        check = copy.read(lambda c: c.execute("PRAGMA integrity_check").fetchall())
        assert check == [("ok",)]


async def test_a_backup_replaces_nothing(tmp_path) -> None:
    """The file that is there may be the better one."""
    async with a_database(tmp_path / "a"):
        (tmp_path / "b").write_text("precious")
        with pytest.raises(Conflict, match="exists"):
            backup(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, Unavailable, "unable to open"),
        (b"", Conflict, "nothing in it"),
        (b"no database\n" * 1000, Conflict, "damaged"),
    ],
)
async def test_a_backup_of_nothing_is_refused(tmp_path, content, error, message) -> None:
    """And leaves nothing behind."""
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    before = list(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        backup(tmp_path / "a", tmp_path / "b")
    assert list(tmp_path.iterdir()) == before


def _grow_no_more(connection: sqlite3.Connection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


@contextlib.contextmanager
def _no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk; the signal for it is ignored by Python."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@asynccontextmanager
async def _writing(path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, set[str]]]:
    """A process that writes words down and prints what was answered; and a set for them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(path)),
        stdout=PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield process, set()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    """What it printed next; it has not ended."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.endswith("\n"), "it has ended"
    return line.strip()

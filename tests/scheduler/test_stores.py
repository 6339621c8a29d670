"""The contract of the scheduler's store: one suite, run against every kind; and what the SQLite
file adds to it.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from protocol.errors import Conflict, Invalid, Unavailable
from protocol.model.build import Artifact, NodeReference, Stage, Step, new_build
from protocol.model.recipe import Command, Recipe
from protocol.model.record import Record
from protocol.model.request import BuildRequest, Forward, Guidance
from protocol.storage.database import backup
from scheduler.core.known import KnownNode
from scheduler.core.plain import Phase, PlainAttempt
from scheduler.stores import open_store
from scheduler.stores.base import Stale, Store
from scheduler.stores.memory import MemoryStore
from scheduler.stores.sqlite import FILE, MIGRATIONS, SqliteStore

pytestmark = pytest.mark.gen_test(timeout=30)

KINDS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: open_store("", folder),
    "memory": lambda folder: open_store("memory:", folder),
}


@asynccontextmanager
async def opened(folder: Path, kind: str = "sqlite") -> AsyncIterator[Store]:
    """The store in this folder, while the context lasts."""
    store = KINDS[kind](folder)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of store."""
    return request.param


def a_record(key: str = "a", text: str = "#!/bin/sh\n", **more: object) -> Record:
    """A new build, not written yet."""
    request = BuildRequest(
        Recipe((Command("one", text=text),)), Guidance(priority=3, labels={"team": "images"})
    )
    build = new_build(key, request, origin="o", owner="alice", now=100.5, key="again")
    return Record(build, revision=1, **more)


def advanced(record: Record, node: str = "n") -> Record:
    """The same, one step further."""
    build = replace(
        record.build,
        stage=Stage.PLACED,
        attempt=1,
        node=NodeReference(node, "name"),
        history=(*record.build.history, Step(101.0, "place", Stage.PLACED)),
    )
    return replace(record, build=build, revision=record.revision + 1)


def a_node(key: str = "n", **more: object) -> KnownNode:
    """A node that answered."""
    node = KnownNode(key, "name", "node", ("http://a:8090",), ("mdns", "settings"), 100.5)
    return replace(node, **more)


# The contract


async def test_a_new_store_knows_nothing(tmp_path, kind) -> None:
    """And says so."""
    async with opened(tmp_path, kind) as store:
        assert store.fresh
        assert len(store.id) == 32
        assert not list(store.records())
        assert not list(store.nodes())


async def test_records_are_given_back_as_they_were_put(tmp_path, kind) -> None:
    """Wholly, with the request, the newest revision, oldest first."""
    forward = Forward("b", "o", 2, owner="bob", path=("p",), store="s", key="k")
    first, second = a_record("a"), a_record("b", forward=forward, store="s", acknowledged=True)
    async with opened(tmp_path, kind) as store:
        await store.put((second, first))
        await store.put((advanced(first),))
        assert list(store.records()) == [advanced(first), second]


@pytest.mark.parametrize("revision", [0, 1, 2, 4])
async def test_only_the_next_revision_is_taken(tmp_path, kind, revision) -> None:
    """Who decided on an older value must read again; the error names the build."""
    async with opened(tmp_path, kind) as store:
        held = advanced(a_record())
        await store.put((a_record(),))
        await store.put((held,))
        with pytest.raises(Stale, match="build a ") as caught:
            await store.put((replace(held, revision=revision),))
        assert caught.value.build_id == "a"
        assert isinstance(caught.value, Conflict)
        await store.put((replace(held, revision=3),))


@pytest.mark.parametrize("revision", [0, 2])
async def test_what_is_not_held_is_made_by_its_first_revision(tmp_path, kind, revision) -> None:
    """Any other means that it was forgotten meanwhile."""
    async with opened(tmp_path, kind) as store:
        with pytest.raises(Stale):
            await store.put((replace(a_record(), revision=revision),))
        assert not list(store.records())


async def test_all_are_put_or_none(tmp_path, kind) -> None:
    """One that is stale keeps the others out, wherever it stands."""
    async with opened(tmp_path, kind) as store:
        held = a_record("held")
        await store.put((held,))
        for batch in (
            (a_record("a"), advanced(held), held),
            (held, a_record("a"), advanced(held)),
            (a_record("a"), advanced(held), advanced(held)),
            (a_record("a"), a_record("a")),
        ):
            with pytest.raises(Stale):
                await store.put(batch)
            assert list(store.records()) == [held]


async def test_several_revisions_of_a_build_may_come_at_once(tmp_path, kind) -> None:
    """In their order."""
    first = a_record()
    async with opened(tmp_path, kind) as store:
        await store.put((first, advanced(first), advanced(advanced(first))))
        assert [record.revision for record in store.records()] == [3]
        await store.put(())


async def test_of_two_that_write_at_the_same_time_one_wins(tmp_path, kind) -> None:
    """The other is told, and those beside it notice nothing."""
    async with opened(tmp_path, kind) as store:
        await store.put((a_record(),))
        answers = await asyncio.gather(
            *(store.put((advanced(a_record(), node),)) for node in ("one", "two", "three")),
            *(store.put((a_record(f"{number}"),)) for number in range(10)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [type(None), Stale, Stale] + 10 * [
            type(None)
        ]
        held = {record.build.id: record for record in store.records()}
        assert held["a"].build.node == NodeReference("one", "name")
        assert len(held) == 11


async def test_what_is_forgotten_is_gone(tmp_path, kind) -> None:
    """And may be put again; others stay."""
    async with opened(tmp_path, kind) as store:
        await store.put((a_record("a"), a_record("b"), a_record("c")))
        await store.forget(("a", "c", "never there"))
        await store.forget(())
        assert [record.build.id for record in store.records()] == ["b"]
        with pytest.raises(Stale):
            await store.put((advanced(a_record("a")),))
        again = a_record("a", text="another")
        await store.put((again,))
        assert list(store.records()) == [again, a_record("b")]


async def test_what_is_erased_is_in_no_file(tmp_path, kind) -> None:
    """Whatever was put in its place, or nothing; what is kept is as it was, with its secrets."""
    kept = a_record("c", secrets={"password": "correct-horse"})
    async with opened(tmp_path, kind) as store:
        first, second = [a_record(key, secrets={"x": "swordfish" * 9}) for key in ("a", "b")]
        await store.put((first, second, kept))
        await store.put((replace(advanced(first), secrets={}),))
        await store.forget(("b",))
        await store.erase()
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"swordfish" not in held
        assert list(store.records()) == [replace(advanced(first), secrets={}), kept]
    with pytest.raises(Unavailable):
        await store.put((a_record("d"),))


async def test_nodes_are_remembered_until_they_are_forgotten(tmp_path, kind) -> None:
    """The newest word on each."""
    async with opened(tmp_path, kind) as store:
        await store.put_node(a_node("one"))
        await store.put_node(a_node("two", role="scheduler"))
        await store.put_node(a_node("one", seen=200.0, cordoned="new disk"))
        assert sorted(store.nodes(), key=lambda node: node.id) == [
            a_node("one", seen=200.0, cordoned="new disk"),
            a_node("two", role="scheduler"),
        ]
        await store.forget_node("one")
        await store.forget_node("one")
        assert list(store.nodes()) == [a_node("two", role="scheduler")]


async def test_attempts_on_plain_nodes_are_kept_until_they_or_their_build_are_forgotten(
    tmp_path, kind
) -> None:
    """Each under its build and number, the newest value; forgetting twice is no error."""
    artifact = Artifact("image.iso", 7, "0" * 64)
    one = PlainAttempt("a", 1, "n", ("build", "iso"), 100.5)
    two = PlainAttempt("a", 2, "m", (), 101.5, Phase.DONE, "/status/7", "/x.iso", artifact, 3, "d")
    async with opened(tmp_path, kind) as store:
        assert not list(store.plain_attempts())
        await store.put((a_record("a"), a_record("b")))
        for attempt in (two, one, replace(one, build="b"), replace(one, build="c")):
            await store.put_plain(attempt)
        await store.put_plain(replace(one, phase=Phase.LIVE, status="/status/6"))
        changed = replace(one, phase=Phase.LIVE, status="/status/6")
        others = [replace(one, build="b"), replace(one, build="c")]
        assert list(store.plain_attempts()) == [changed, two, *others]
        await store.forget_plain(("a", 1))
        await store.forget_plain(("a", 1))
        assert list(store.plain_attempts()) == [two, *others]
        await store.forget(("a", "c"))
        assert list(store.plain_attempts()) == others[:1]


async def test_a_closed_store_takes_nothing(tmp_path, kind) -> None:
    """As one that cannot be written."""
    async with opened(tmp_path, kind) as store:
        await store.check()
    for attempt in (
        store.put((a_record(),)),
        store.forget(("a",)),
        store.put_node(a_node()),
        store.forget_node("n"),
        store.put_plain(PlainAttempt("a", 1, "n", (), 0.0)),
        store.forget_plain(("a", 1)),
        store.check(),
    ):
        with pytest.raises(Unavailable):
            await attempt


# Stores by URL


@pytest.mark.parametrize(
    "url",
    [
        *("redis://host", "scheduler.db", "/a/scheduler.db", "sqlite:", "sqlite:a.db", "sqlite://"),
        *("sqlite://a/b.db", "sqlite:///", "sqlite:///folder/", "sqlite:///a.db?x"),
        *("sqlite:/a.db", "sqlite:///%00", "memory:x", "memory://", "memory:?x", "sqlite://[/a.db"),
    ],
)
async def test_an_unknown_store_is_refused(tmp_path, url) -> None:
    """With the setting's name, and what it may be."""
    with pytest.raises(Invalid) as caught:
        open_store(url, tmp_path)
    assert caught.value.field == "store"
    assert "memory:" in caught.value.expected


async def test_a_store_is_opened_by_its_url(tmp_path) -> None:
    """Without one it is a file in the data folder."""
    async with opened(tmp_path) as store:
        assert isinstance(store, SqliteStore)
        assert (tmp_path / FILE).exists()
    other = open_store(f"sqlite://{tmp_path}/with%20space.db", tmp_path)
    await other.close()
    assert (tmp_path / "with space.db").exists()
    memory = open_store("memory:", tmp_path)
    assert isinstance(memory, MemoryStore)


# The SQLite file


async def test_a_file_that_is_opened_again_has_everything(tmp_path) -> None:
    """It is the same store, and not fresh any more."""
    async with opened(tmp_path) as store:
        made = store.id
        await store.put((a_record(),))
        await store.put((advanced(a_record()),))
        await store.put_node(a_node())
        await store.settle()
    async with opened(tmp_path) as store:
        assert store.id == made
        assert not store.fresh
        assert list(store.records()) == [advanced(a_record())]
        assert list(store.nodes()) == [a_node()]


async def test_a_store_that_never_settled_is_fresh_when_it_is_opened_again(tmp_path) -> None:
    """A scheduler that was killed while nodes told what they have asks them again."""
    async with opened(tmp_path) as store:
        await store.put((a_record(),))
        assert store.fresh
    async with opened(tmp_path) as store:
        assert store.fresh
        await store.settle()
        assert not store.fresh


async def test_a_backup_is_another_store_with_the_same_builds(tmp_path) -> None:
    """Nodes must not take it for the one that they have reported to."""
    async with opened(tmp_path) as store:
        await store.put((a_record(),))
        (tmp_path / "copy").mkdir()
        await asyncio.to_thread(backup, tmp_path / FILE, tmp_path / "copy" / FILE)
        async with opened(tmp_path / "copy") as copy:
            assert copy.id != store.id
            assert copy.fresh
            assert list(copy.records()) == [a_record()]


async def test_a_large_request_is_written_once(tmp_path) -> None:
    """What a step of the build writes is small."""
    log = tmp_path / f"{FILE}-wal"
    record = a_record(text="x" * 900_000)
    async with opened(tmp_path) as store:
        await store.put((record,))
        await store.check()
        before = log.stat().st_size
        assert before > 900_000
        with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        for _ in range(10):
            record = advanced(record)
            await store.put((record,))
        assert log.stat().st_size < 10 * 5 * 4096
        assert list(store.records()) == [record]


async def test_a_forgotten_build_leaves_nothing_in_the_file(tmp_path) -> None:
    """Its request goes with it."""
    async with opened(tmp_path) as store:
        await store.put((a_record("a"), a_record("b")))
        await store.forget(("a", "b"))
        for table in ("builds", "requests"):
            count = store._database.read(
                lambda c, table=table: c.execute(f"SELECT count(*) FROM {table}").fetchone()
            )
            assert count == (0,), table


@pytest.mark.parametrize(
    "wrong",
    [
        a_record("wrong", text="half a character: \ud800"),
        replace(a_record("wrong"), build=replace(a_record("wrong").build, attempt=1 << 70)),
        replace(a_record("wrong"), build=replace(a_record("wrong").build, reason="\udfff")),
    ],
    ids=["request", "number", "build"],
)
async def test_what_cannot_be_written_down_harms_nobody_else(tmp_path, wrong) -> None:
    """It is told to its caller; others that write at the same time succeed."""
    async with opened(tmp_path) as store:
        answers = await asyncio.gather(
            store.put((a_record("a"),)),
            store.put((a_record("b"), wrong)),
            store.put((a_record("c"),)),
            return_exceptions=True,
        )
        assert answers[0] is answers[2] is None
        assert isinstance(answers[1], Invalid)
        assert [record.build.id for record in store.records()] == ["a", "c"]
        with pytest.raises(Invalid):
            await store.put_node(a_node(name="\ud800"))


async def test_values_of_an_older_version_are_understood(tmp_path) -> None:
    """A field that was added since has its default; one that is not known is left out."""
    async with opened(tmp_path) as store:
        await store.put((a_record(),))
        await store.put_node(a_node(cordoned="why"))

        def older(connection: sqlite3.Connection) -> None:
            for table, field in (("builds", "acknowledged"), ("nodes", "cordoned")):
                (value,) = connection.execute(f"SELECT value FROM {table}").fetchone()
                plain = msgspec.msgpack.decode(value)
                del plain[field]
                plain["unheard_of"] = 1
                if table == "builds":
                    del plain["build"]["artifacts"]
                encoded = msgspec.msgpack.encode(plain)
                connection.execute(f"UPDATE {table} SET value = ?", (encoded,))

        await store._database.write(older)
        assert list(store.records()) == [a_record()]
        assert list(store.nodes()) == [a_node()]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE builds SET value = x'c1'", "build a"),
        ("UPDATE requests SET value = x'81a46e6f7065c0'", "the request of build a"),
        ("DELETE FROM requests", "build a has no request"),
        ("UPDATE nodes SET value = x'93'", "node n"),
    ],
)
async def test_a_value_that_is_damaged_is_named(tmp_path, damage, message) -> None:
    """With the file; a build is never left out silently."""
    async with opened(tmp_path) as store:
        await store.put((a_record(),))
        await store.put_node(a_node())
        await store._database.write(lambda c: c.execute(damage) and 0)
        with pytest.raises(Conflict, match=f"{FILE} is damaged: {message}"):
            (store.records(), store.nodes())


async def test_a_file_that_is_not_ours_is_refused(tmp_path) -> None:
    """One of a newer version, and one that is damaged."""
    async with opened(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(Conflict, match="newer version"):
        open_store("", tmp_path)
    (tmp_path / FILE).write_bytes(b"rubbish" * 1000)
    with pytest.raises(Conflict, match="damaged"):
        open_store("", tmp_path)


async def test_where_nothing_can_be_written_it_is_told_and_nothing_is_lost(tmp_path) -> None:
    """Whoever asks whether the store is ready hears why not."""
    async with opened(tmp_path) as store:
        await store.put((a_record(),))
        store._database._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(Unavailable, match="cannot be written"):
            await store.check()
        store._database._connection.execute("PRAGMA query_only = 0")
        store._database._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(Unavailable, match="cannot be written"):
            await store.put((a_record("b", text="x" * 100_000),))
        assert list(store.records()) == [a_record()]

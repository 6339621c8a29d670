"""The board: builds are found, listed and watched, few or very many."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.builds.board import Board
from protocol.builds.catalog import check
from protocol.errors import Conflict
from protocol.model.build import Build, NodeReference, Result, Stage, State, new_build
from protocol.model.messages import BuildQuery, Changes, Sort
from protocol.model.request import BuildRequest, Guidance

MANY = 100_000


def build(number: int, *, owner: str = "ann", note: str = "", **labels: str) -> Build:
    """The build of this number; later numbers are younger."""
    request = BuildRequest(guidance=Guidance(labels=labels, note=note))
    return new_build(f"{number:032x}", request, origin="me", owner=owner, now=float(number))


def board_of(*builds: Build) -> Board:
    """A board with these."""
    board = Board()
    for one in builds:
        board.put(one)
    return board


async def listed(board: Board, limit: int = 2, **query: Any) -> list[int]:
    """Numbers of all builds that are found, page by page."""
    found: list[int] = []
    page = await board.page(BuildQuery(limit=limit, **query))
    found += [int(one.id, 16) for one in page.builds]
    while page.next:
        page = await board.page(BuildQuery(limit=limit, cursor=page.next, **query))
        assert page.builds, "a further page was named and is empty"
        found += [int(one.id, 16) for one in page.builds]
    return found


def at_once(coroutine: Coroutine[Any, Any, Changes]) -> Changes:
    """What a coroutine returns that waits for nothing."""
    with pytest.raises(StopIteration) as over:
        coroutine.send(None)
    return over.value.value


STOPPED = {"stage": Stage.STOPPED, "result": Result.FAILED}

BUILDS = (
    build(1, owner="bob", a="1"),
    build(2, note="The Nightly one", a="2"),
    replace(build(3, a="1", b=""), **STOPPED),
    replace(build(4), stage=Stage.RUNNING, node=NodeReference("0f", "anvil")),
    replace(build(5, owner="bob"), **STOPPED, node=NodeReference("0e", "forge")),
)

QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [5, 4, 3, 2, 1]),
    ({"sort": Sort.OLDEST}, [1, 2, 3, 4, 5]),
    ({"status": State.WAITING}, [2, 1]),
    ({"status": State.STOPPED, "owner": "bob"}, [5]),
    ({"result": Result.FAILED}, [5, 3]),
    ({"result": Result.SUCCEEDED}, []),
    ({"owner": "bob", "sort": Sort.OLDEST}, [1, 5]),
    ({"labels": ("a",)}, [3, 2, 1]),
    ({"labels": ("a=1",)}, [3, 1]),
    ({"labels": ("a=1", "b")}, [3]),
    ({"labels": ("b=",)}, [3]),
    ({"node": "anvil"}, [4]),
    ({"node": "0e"}, [5]),
    ({"since": 2.0, "until": 4.0}, [3, 2]),
    ({"text": "nightly"}, [2]),
    ({"id": f"{3:08x}"}, [3]),
    ({"id": "0" * 8}, [5, 4, 3, 2, 1]),
    ({"id": f"{4:032x}"}, [4]),
    ({"id": "00400"}, []),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("query", "numbers"), QUERIES)
async def test_what_a_query_asks_for_is_found(query, numbers):
    """Everything that is asked for must be so, and the order is as said."""
    assert await listed(board_of(*BUILDS), **query) == numbers


@pytest.mark.gen_test
async def test_the_order_of_the_last_change():
    """The last change first or last; what is put again has changed."""
    board = board_of(*BUILDS)
    board.put(replace(BUILDS[1], revision=1))
    assert await listed(board, sort=Sort.CHANGED) == [2, 5, 4, 3, 1]
    assert await listed(board, sort=Sort.UNCHANGED) == [1, 3, 4, 5, 2]
    assert await listed(board, sort=Sort.CHANGED, owner="bob") == [5, 1]


@pytest.mark.gen_test
@pytest.mark.parametrize("sort", list(Sort))
async def test_pages_stay_as_they_are_while_builds_are_added(sort):
    """No build is shown twice and none that was there is left out."""
    board = board_of(*BUILDS)
    first = await board.page(BuildQuery(limit=2, sort=sort))
    board.put(build(6))
    board.put(build(7))
    rest = await board.page(BuildQuery(limit=10, sort=sort, cursor=first.next))
    numbers = [int(one.id, 16) for one in (*first.builds, *rest.builds)]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) >= {1, 2, 3, 4, 5}
    assert ({6, 7} <= set(numbers)) == (sort in (Sort.OLDEST, Sort.UNCHANGED))


@pytest.mark.gen_test
async def test_a_cursor_of_another_order_is_refused():
    """And one of another life, where the order is not the same any more."""
    board = board_of(*BUILDS)
    by_change = (await board.page(BuildQuery(limit=1, sort=Sort.CHANGED))).next
    by_age = (await board.page(BuildQuery(limit=1))).next
    for query in (
        BuildQuery(cursor=by_change),
        BuildQuery(cursor=by_age, sort=Sort.CHANGED),
        BuildQuery(cursor="00000000.1", sort=Sort.CHANGED),
    ):
        with pytest.raises(Conflict):
            await board.page(query)


@pytest.mark.gen_test
async def test_what_is_gone_is_told_since_a_cursor(monkeypatch):
    """Whoever saw it hears that it is gone; who saw it too long ago begins anew."""
    board = board_of(*BUILDS)
    seen = (await board.changes("", 0)).cursor
    board.forget(BUILDS[0].id)
    board.put(replace(BUILDS[1], revision=1))
    news = await board.changes(seen, 0)
    assert ([one.id for one in news.builds], news.gone) == ([BUILDS[1].id], (BUILDS[0].id,))
    assert (await board.changes(news.cursor, 0)).gone == ()
    assert not (await board.changes("", 0)).gone
    monkeypatch.setattr("protocol.builds.board._GONE", 1)
    board.forget(BUILDS[2].id)
    anew = await board.changes(seen, 0)
    assert (anew.reset, len(anew.builds), anew.gone) == (True, 3, ())
    assert not (await board.changes(anew.cursor, 0)).reset


@pytest.mark.gen_test
async def test_all_pages_are_read_of_what_is_older_than_what_was_forgotten(monkeypatch):
    """Also where more builds are gone by then than are remembered. What is forgotten while
    the pages are read is told, or all of it follows anew.
    """
    monkeypatch.setattr("protocol.builds.board._GONE", 10)
    board = board_of(*(build(number) for number in range(600)))
    for number in range(600, 700):
        board.put(build(number))
        board.forget(build(number).id)
    cursors = [""]
    numbers: list[int] = []
    gone: list[str] = []
    for _ in range(3):
        news = await board.changes(cursors[-1], 0)
        assert not news.reset
        numbers += [int(one.id, 16) for one in news.builds]
        gone += news.gone
        if news.more:
            board.forget(build(len(cursors)).id)
        cursors.append(news.cursor)
    assert (sorted(numbers), news.more) == (list(range(600)), False)
    assert {build(1).id, build(2).id} <= set(gone)
    assert not (await board.changes(news.cursor, 0)).reset
    for number in range(3, 20):
        board.forget(build(number).id)
    assert (await board.changes(cursors[1], 0)).reset


@pytest.mark.gen_test
async def test_who_knows_builds_and_reads_too_slowly_begins_anew(monkeypatch):
    """What it knows may be gone without its having been told."""
    monkeypatch.setattr("protocol.builds.board._GONE", 10)
    monkeypatch.setattr("protocol.builds.board._PAGE", 5)
    board = board_of(*(build(number) for number in range(5)))
    seen = (await board.changes("", 0)).cursor
    for number in range(5, 25):
        board.put(build(number))
    for number in range(10):
        board.forget(build(number).id)
    news = await board.changes(seen, 0)
    assert (news.more, news.reset, news.gone) == (True, False, ())
    board.forget(build(10).id)
    assert (await board.changes(news.cursor, 0)).reset


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60), st.data())
def test_whoever_follows_changes_knows_what_there_is(steps, data):
    """Whatever is put and forgotten, and whenever somebody looks: in the end it is the same. Also
    where a page has little, and little is remembered.
    """
    board, mine, cursor = Board(), {}, ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocol.builds.board._GONE", data.draw(st.integers(1, 3)))
        patch.setattr("protocol.builds.board._PAGE", data.draw(st.integers(1, 3)))
        follow(board, mine, cursor, steps, data)


def follow(board, mine, cursor, steps, data):
    """Do these steps, and look now and then, at one page or at all."""

    def look(pages: int = 100) -> None:
        nonlocal cursor
        more = True
        while more and pages:
            pages -= 1
            news = at_once(board.changes(cursor, 0))
            if news.reset:
                mine.clear()
            mine.update({one.id: one for one in news.builds})
            for key in news.gone:
                mine.pop(key, None)
            cursor, more = news.cursor, news.more

    for revision, (number, put) in enumerate(steps):
        if put:
            board.put(replace(build(number), revision=revision))
        else:
            board.forget(build(number).id)
        if pages := data.draw(st.integers(0, 2)):
            look(pages)
    look()
    assert sorted(mine.values(), key=lambda one: one.id) == sorted(board, key=lambda one: one.id)


@pytest.mark.gen_test(timeout=60)
async def test_pages_look_at_little_among_very_many(monkeypatch):
    """With 100,000 builds a page looks at about as many as it shows, and a search that must look at
    all lets others have their turn all the while.
    """
    board, looked = Board(), 0
    for number in range(1, MANY + 1):
        labels = {"rare": "x"} if number % 20_000 == 0 else {}
        one = build(number, owner=f"o{number % 7}", note="needle" if number == 3 else "", **labels)
        board.put(replace(one, **STOPPED) if number % 5 else one)

    def counted(query: BuildQuery) -> Callable[[Build], bool]:
        fits = check(query)

        def look(one: Build) -> bool:
            nonlocal looked
            looked += 1
            return fits(one)

        return look

    monkeypatch.setattr("protocol.builds.board.check", counted)
    quick: list[tuple[dict[str, Any], int]] = [
        ({}, 50),
        ({"sort": Sort.CHANGED}, 50),
        ({"cursor": f"{MANY // 2:032x}"}, 50),
        ({"status": State.WAITING, "owner": "o3"}, 50),
        ({"labels": ("rare=x",), "status": State.WAITING}, 5),
    ]
    for query, count in quick:
        looked = 0
        assert len((await board.page(BuildQuery(**query))).builds) == count
        assert looked < 3_000, query
    looked, longest, before = 0, 0, 0
    looking = asyncio.ensure_future(board.page(BuildQuery(text="needle")))
    while not looking.done():
        await asyncio.sleep(0)
        longest, before = max(longest, looked - before), looked
    assert [int(one.id, 16) for one in looking.result().builds] == [3]
    assert (looked, longest <= 2_000) == (MANY, True)


WAITED = build(8)


@pytest.mark.gen_test(timeout=10)
async def test_all_who_wait_again_and_again_hear_of_every_change() -> None:
    """Also where one of them waits again before the others have been told of the last change."""
    board = Board()
    board.put(WAITED)

    async def until(revision: int) -> int:
        build = board.get(WAITED.id)
        while build.revision < revision:
            build = await board.held(WAITED.id, build.revision, 60)
        return build.revision

    waiting = [asyncio.create_task(until(WAITED.revision + 3)) for _ in range(3)]
    for step in (1, 2, 3):
        await asyncio.sleep(0.05)
        board.put(replace(WAITED, revision=WAITED.revision + step))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [WAITED.revision + 3] * 3
    assert not board._watches


@pytest.mark.gen_test(timeout=10)
async def test_who_waits_no_longer_leaves_nothing() -> None:
    """A client that hangs up is one that never asked."""
    board = Board()
    board.put(WAITED)
    waiting = asyncio.create_task(board.held(WAITED.id, WAITED.revision, 60))
    await asyncio.sleep(0.05)
    assert board._watches
    waiting.cancel()
    await asyncio.wait({waiting})
    assert not board._watches

"""A build's id may be cut short on the command line, as long as it is clear which is meant."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepool.cli import cli
from protocol.builds.board import Board
from protocol.model.build import Build, new_build
from protocol.model.messages import BuildPage, BuildQuery
from protocol.model.request import BuildRequest
from protocol.remote.client import HttpService

IDS = tuple(f"019aa{number:07d}{'cafe' * 4}{number:04d}" for number in range(3))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the builds that the pool was asked to pin; it has three."""
    asked: list[str] = []
    board = Board()
    for identity in IDS:
        board.put(new_build(identity, BuildRequest(), origin="o", owner="ann", now=0.0))

    async def pin(_: Any, caller: Any, build_id: str, pinned: bool) -> Build:
        asked.append(build_id)
        return board.get(build_id)

    async def listed(_: Any, caller: Any, query: BuildQuery) -> BuildPage:
        return await board.page(query)

    monkeypatch.setattr(HttpService, "pin", pin)
    monkeypatch.setattr(HttpService, "list", listed)
    monkeypatch.delenv("IMAGEPOOL_URL", raising=False)
    return asked


def pinned(typed: str) -> Result:
    """`imagepool pin`, in a thread: the main one's event loop is pytest's."""
    words = ["pin", typed, "--url", "http://127.0.0.1:1"]
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(CliRunner().invoke, cli, words).result()


@pytest.mark.parametrize("typed", [IDS[1], IDS[1][:12], IDS[1][-8:], IDS[1][-8:].upper()])
def test_its_beginning_or_end_stands_for_it(told: list[str], typed: str) -> None:
    """Eight characters at least: as many as the page shows."""
    assert pinned(typed).output == f"build {IDS[1]} is kept\n"
    assert told == [IDS[1]]


def test_what_several_have_is_refused_with_their_ids(told: list[str]) -> None:
    """Nothing is done to any of them."""
    ran = pinned("019aa000")
    assert (ran.exit_code, told) == (2, [])
    for identity in IDS:
        assert identity in ran.output
    assert "(expected: more of the one that is meant)" in ran.output


@pytest.mark.parametrize("typed", ["cafecafe", "0001", "no such build"])
def test_what_no_builds_id_is_the_pool_is_asked_for_as_it_is(told: list[str], typed: str) -> None:
    """It says that there is none, in its own words; too little is not looked for."""
    ran = pinned(typed)
    assert (ran.exit_code, told) == (2, [typed])
    assert f"there is no build {typed!r}" in ran.output

"""Builds in memory: whoever waits for one hears of every change, and leaves nothing behind."""

import asyncio

import pytest
from msgspec.structs import replace

from protocol.board import Board
from protocol.model import new_build
from protocol.request import BuildRequest

pytestmark = pytest.mark.gen_test(timeout=10)

BUILD = new_build("b" * 32, BuildRequest(), origin="o", owner="me", now=1.0)


async def test_all_who_wait_again_and_again_hear_of_every_change() -> None:
    """Also where one of them waits again before the others have been told of the last change."""
    board = Board()
    board.put(BUILD)

    async def until(revision: int) -> int:
        build = board.get(BUILD.id)
        while build.revision < revision:
            build = await board.held(BUILD.id, build.revision, 60)
        return build.revision

    waiting = [asyncio.create_task(until(BUILD.revision + 3)) for _ in range(3)]
    for step in (1, 2, 3):
        await asyncio.sleep(0.05)
        board.put(replace(BUILD, revision=BUILD.revision + step))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [BUILD.revision + 3] * 3
    assert not board._watches


async def test_who_waits_no_longer_leaves_nothing() -> None:
    """A client that hangs up is one that never asked."""
    board = Board()
    board.put(BUILD)
    waiting = asyncio.create_task(board.held(BUILD.id, BUILD.revision, 60))
    await asyncio.sleep(0.05)
    assert board._watches
    waiting.cancel()
    await asyncio.wait({waiting})
    assert not board._watches

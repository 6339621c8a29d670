"""Asking at several addresses at once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from protocol.errors import Unavailable, Unreachable
from scheduler.pool.race import first_answer

pytestmark = pytest.mark.gen_test

Ask = Callable[[], Awaitable[str]]
NEVER = 60.0
"""A head start that no test waits for."""


def answers(word: str) -> Ask:
    """Answers at once."""

    async def ask() -> str:
        return word

    return ask


def fails(error: Exception) -> Ask:
    """Fails at once."""

    async def ask() -> str:
        raise error

    return ask


def is_silent(ended: list[str], name: str = "silent") -> Ask:
    """Never answers; notes that it was cancelled."""

    async def ask() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)
        return name

    return ask


async def test_the_first_one_that_answers_is_taken_and_no_other_is_asked() -> None:
    """A program that answers where it did before is not asked anywhere else."""
    assert await first_answer([answers("a"), fails(AssertionError())], NEVER) == (0, "a")


async def test_the_next_is_asked_at_once_when_one_fails() -> None:
    """Without waiting for the head start."""
    asks = [fails(Unreachable("a")), fails(Unavailable("b")), answers("c")]
    assert await first_answer(asks, NEVER) == (2, "c")


async def test_who_does_not_answer_in_time_is_overtaken_and_cancelled() -> None:
    """A silent address costs the head start, no more, and nothing of it is left running."""
    ended: list[str] = []
    assert await first_answer([is_silent(ended), answers("b")], 0.01) == (1, "b")
    assert ended == ["silent"]


async def test_a_late_answer_still_counts() -> None:
    """The first one may answer while the others are asked already."""
    heard, ended = asyncio.Event(), list[str]()

    async def late() -> str:
        await heard.wait()
        return "late"

    async def wakes() -> str:
        heard.set()
        return await is_silent(ended, "second")()

    assert await first_answer([late, wakes], 0.01) == (0, "late")
    assert ended == ["second"]


async def test_where_all_fail_the_first_error_is_raised() -> None:
    """That of the address that answered last."""
    asks = [fails(Unreachable("a")), fails(Unavailable("b"))]
    with pytest.raises(Unreachable, match="a"):
        await first_answer(asks, NEVER)


async def test_being_cancelled_cancels_all() -> None:
    """A poll that is given up leaves no request behind."""
    ended: list[str] = []
    asked = asyncio.Event()

    async def last() -> str:
        asked.set()
        return await is_silent(ended, "b")()

    racing = asyncio.create_task(first_answer([is_silent(ended, "a"), last], 0.0))
    await asked.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert sorted(ended) == ["a", "b"]

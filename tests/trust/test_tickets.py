"""Tickets, and looking at what comes by them: what they are good for, and nothing besides."""

import contextlib
import hashlib
import itertools
import random
from collections.abc import AsyncIterator

import pytest

from protocol.errors import Busy, Denied, Unavailable
from protocol.ports.service import Caller, Role
from protocol.transfer.check import BLOCK, Check, Marks
from protocol.transfer.streams import CheckedStream
from protocol.trust import tickets
from protocol.trust.tickets import Grant, Tickets

THERE = "192.0.2.1"
GRANT = Grant(Caller("", Role.PROGRAM, "a" * 40), THERE, "b1", "image.iso")


class Clock:
    """Stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The store's."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Tickets:
    """Gives tickets for 10 s."""
    return Tickets(10.0, clock)


def test_a_ticket_gives_what_it_is_for_once(store: Tickets) -> None:
    """And no other ticket."""
    text, other = store.give(GRANT), store.give(GRANT)
    assert text != other
    assert len(bytes.fromhex(text)) == 32
    assert store.take(text, THERE) == GRANT
    with pytest.raises(Denied):
        store.take(text, THERE)
    assert store.take(other, THERE) == GRANT


def test_a_ticket_is_over_after_its_life(store: Tickets, clock: Clock) -> None:
    """To the moment; those that were given later are not."""
    text = store.give(GRANT)
    clock.now += 9.0
    later = store.give(GRANT)
    clock.now += 1.0
    with pytest.raises(Denied):
        store.take(text, THERE)
    assert store.take(later, THERE) == GRANT


def test_a_ticket_that_is_shown_elsewhere_is_used_up(store: Tickets) -> None:
    """Somebody else has it: nobody gets anything for it any more."""
    text = store.give(GRANT)
    for address in ("192.0.2.2", THERE):
        with pytest.raises(Denied):
            store.take(text, address)


@pytest.mark.parametrize("change", [str.upper, str.swapcase, lambda text: text[:-1], lambda _: ""])
def test_nearly_a_ticket_is_none(store: Tickets, change) -> None:
    """In another case, cut off, or nothing."""
    text = store.give(GRANT)
    with pytest.raises(Denied):
        store.take(change(text), THERE)
    assert store.take(text, THERE) == GRANT


def test_what_is_kept_is_no_ticket(store: Tickets) -> None:
    """Who reads the store's memory could show nothing of it."""
    text = store.give(GRANT)
    assert text not in repr(vars(store))


def test_tickets_that_are_not_used_are_not_many(
    store: Tickets, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that there are none, until some are over."""
    monkeypatch.setattr(tickets, "MOST", 3)
    for _ in range(3):
        store.give(GRANT)
    with pytest.raises(Busy):
        store.give(GRANT)
    clock.now += 10.0
    for _ in range(3):
        store.give(GRANT)


BODY = random.Random(5).randbytes(5 * BLOCK // 2)
CUTS = ((1,), (BLOCK,), (BLOCK - 1, BLOCK + 1), (5, 2 * BLOCK + 5), (len(BODY) - 1,))
"""Where a body is cut into pieces."""


def marks_of(body: bytes) -> Marks:
    """Made while it is read in pieces of another size."""
    marks = Marks()
    for start in range(0, len(body), 300_000):
        marks.take(body[start : start + 300_000])
    return marks


class Pieces:
    """A stream of given pieces."""

    def __init__(self, body: bytes, cuts: tuple[int, ...]) -> None:
        places = (0, *cuts, len(body))
        self._pieces = [body[a:b] for a, b in itertools.pairwise(places)]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def close(self) -> None:
        """Nothing to let go of."""


async def passed(body: bytes, cuts: tuple[int, ...]) -> tuple[bytes, int]:
    """What passes of a body where BODY is to come; how often somebody was told of a wrong one."""
    told: list[None] = []
    marks = marks_of(BODY)
    check = Check(marks.sha256, marks.size, marks.whole, lambda: told.append(None))
    got = bytearray()
    with contextlib.suppress(Unavailable):
        async for piece in CheckedStream(Pieces(body, cuts), check):
            got += piece
    return bytes(got), len(told)


@pytest.mark.gen_test
async def test_what_is_right_passes() -> None:
    """In whichever pieces."""
    for cuts in CUTS:
        assert await passed(BODY, cuts) == (BODY, 0)


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, len(BODY) - 1])
@pytest.mark.gen_test
async def test_what_is_wrong_does_not_pass(at: int) -> None:
    """Wherever one bit is another: no byte of its block, and none behind it."""
    wrong = bytearray(BODY)
    wrong[at] ^= 1
    for cuts in CUTS:
        body, told = await passed(bytes(wrong), cuts)
        assert told == 1
        assert BODY.startswith(body)
        assert len(body) <= at // BLOCK * BLOCK
    blocks = (BLOCK, 2 * BLOCK)
    assert await passed(bytes(wrong), blocks) == (BODY[: at // BLOCK * BLOCK], 1)


@pytest.mark.gen_test
async def test_more_than_there_is_to_be_does_not_pass() -> None:
    """Nor is it an end."""
    body, told = await passed(BODY + b"x", (len(BODY),))
    assert (body, told) == (BODY, 0)


def test_marks_are_those_of_the_digest() -> None:
    """Others are not taken: who says them says them of something else."""
    marks = marks_of(BODY)
    assert marks.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (marks_of(b"").whole, len(marks_of(BODY[:BLOCK]).whole)) == (b"", 32)
    Check(marks_of(b"").sha256, 0, b"", lambda: None)
    for size, given in (
        (marks.size, marks.whole[:-1]),
        (marks.size, marks.whole[32:]),
        (marks.size + BLOCK, marks.whole),
        (marks.size, marks.whole[:-32] + bytes(32)),
    ):
        with pytest.raises(Unavailable):
            Check(marks.sha256, size, given, lambda: None)

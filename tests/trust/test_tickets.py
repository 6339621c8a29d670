"""Tickets, and looking at what comes by them: what they are good for, and nothing besides."""

import contextlib
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from protocol.errors import Busy, Denied, Unavailable
from protocol.ports.service import Caller, Role
from protocol.transfer.check import Check
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


BODY = random.Random(5).randbytes(10_000)


class Pieces:
    """A stream of given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def close(self) -> None:
        """Nothing to let go of."""


async def passed(body: bytes, cut: int) -> tuple[bytes, int]:
    """What passes of a body in two pieces, where BODY is to come; how often somebody was told that
    it is another one.
    """
    told: list[None] = []
    check = Check(hashlib.sha256(BODY).hexdigest(), len(BODY), lambda: told.append(None))
    got = bytearray()
    with contextlib.suppress(Unavailable):
        async for piece in CheckedStream(Pieces(body[:cut], body[cut:]), check):
            got += piece
    return bytes(got), len(told)


@pytest.mark.gen_test
async def test_what_is_right_passes() -> None:
    """In whichever pieces."""
    for cut in (1, 5000, 9999):
        assert await passed(BODY, cut) == (BODY, 0)


@pytest.mark.parametrize("at", [0, 4999, 5000, 9999])
@pytest.mark.gen_test
async def test_of_what_is_wrong_the_end_does_not_pass(at: int) -> None:
    """Wherever one bit is another."""
    wrong = bytearray(BODY)
    wrong[at] ^= 1
    assert await passed(bytes(wrong), 5000) == (wrong[:5000], 1)


@pytest.mark.gen_test
async def test_more_than_there_is_to_be_does_not_pass() -> None:
    """Though it begins as it should."""
    assert await passed(BODY + b"x", 5000) == (BODY[:5000], 1)

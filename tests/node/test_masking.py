"""Secrets do not show in logs, however they come; all else does, byte by byte."""

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.core.masking import Mask, MaskedStream

STARS = b"*" * 9


@pytest.mark.parametrize(
    ("secrets", "data", "shown"),
    [
        (["swordfish"], b"a swordfish b", b"a ********* b"),
        (["swordfish"], b"swordfishswordfish", STARS * 2),
        (["swordfish"], b"Swordfish swordfis", b"Swordfish swordfis"),
        (["swordfish\n"], b"swordfish", STARS),
        (["swordfish\n"], b"swordfish\n.", b"**********."),
        (["abcd", "cdef"], b"abcdef", b"******"),
        (["aaaa"], b"xaaaaaax", b"x******x"),
        (["abc"], b"abc", b"abc"),
        (["\u00fcber"], "\u00fcber".encode(), b"*****"),
        ([], b"anything", b"anything"),
        (["swordfish"], b"c3dvcmRmaXNo", b"*" * 12),
        (["swordfish"], b"c3dvcmRmaXNoCg==", b"*" * 12 + b"Cg=="),
    ],
)
def test_what_is_shown(secrets: list[str], data: bytes, shown: bytes) -> None:
    """As many bytes as there were, those of a secret as asterisks, whole or in pieces of any
    size.
    """
    mask = Mask(secrets)
    assert mask.whole(data) == shown
    for size in range(1, len(data) + 1):
        stream = MaskedStream(mask)
        pieces = [stream.take(data[at : at + size]) for at in range(0, len(data), size)]
        assert b"".join(pieces) + stream.rest() == shown


@given(st.text(min_size=4, max_size=90), st.binary(max_size=70), st.binary(max_size=9))
def test_base64_of_a_text_with_a_secret(secret: str, before: bytes, after: bytes) -> None:
    """Wherever in it the secret lies, in both alphabets; in lines too, where it begins one. What is
    left is no more than shares a character with what is beside it.
    """
    mask = Mask([secret])
    value = secret.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = mask.whole(encode(before + value + after))
        first, last = -(-8 * len(before) // 6), 8 * len(before + value) // 6
        assert shown[first:last] == b"*" * (last - first)
    lines = base64.b64encode(value + after)
    lines = b"\n".join(lines[at : at + 76] for at in range(0, len(lines), 76))
    last = len(value) * 8 // 6
    assert set(mask.whole(lines)[:last]) == {ord("*")}


@given(
    st.lists(st.text("ab", min_size=4, max_size=6), max_size=3),
    st.lists(st.text("abc").map(str.encode), max_size=10),
)
def test_pieces_make_no_difference(secrets: list[str], pieces: list[bytes]) -> None:
    """What comes in pieces is shown as if it had come at once."""
    mask = Mask(secrets)
    stream = MaskedStream(mask)
    shown = b"".join(stream.take(piece) for piece in pieces) + stream.rest()
    assert shown == mask.whole(b"".join(pieces))


def test_only_what_may_be_a_secret_is_held_back() -> None:
    """Not a byte more."""
    stream = MaskedStream(Mask(["swordfish"]))
    assert stream.take(b"a sword is held, a fish not; sword") == (b"a sword is held, a fish not; ")
    assert stream.held == len(b"sword")
    assert stream.take(b" after all") == b"sword after all"
    assert stream.held == 0


def test_a_secret_that_goes_on_after_a_while() -> None:
    """What was shown of it is shown; the rest is not."""
    stream = MaskedStream(Mask(["swordfish"]))
    shown = [stream.take(b"x sword"), stream.rest(), stream.take(b"fish y"), stream.rest()]
    assert b"".join(shown) == b"x sword**** y"


def test_all_splits_in_two() -> None:
    """A secret across the border of two pieces, wherever that is."""
    data = b"before swordfish after swordfish"
    mask = Mask(["swordfish", "fish after"])
    for one, other in itertools.combinations(range(len(data)), 2):
        stream = MaskedStream(mask)
        pieces = (data[:one], data[one:other], data[other:])
        shown = b"".join(map(stream.take, pieces)) + stream.rest()
        assert shown == b"before " + b"*" * 15 + b" " + STARS

"""What a scheduler knows its own attempts by."""

import pytest
from msgspec.structs import replace

from protocol.model.messages import Forwarded
from protocol.model.request import BuildRequest, Forward, Guidance, Needs
from protocol.trust.seal import Seal
from tests.programs import request

NODE, OTHER = "a" * 40, "b" * 40
SEAL = Seal(b"secret")


def sealed(seal: Seal = SEAL) -> Forwarded:
    """An attempt as its node keeps it."""
    asked = request("print a", note="x", needs=Needs(labels=("ssd",)))
    forward = Forward("1" * 32, "c" * 40, 2, owner="ada", path=("c" * 40,), store="d" * 32)
    return Forwarded(asked, replace(forward, seal=seal.of(asked, forward, NODE)))


def test_it_holds_for_what_was_sent() -> None:
    """Whatever is the default, or will be in another version, is not sealed; nor is the store's
    id, which the seal outlives.
    """
    whole = sealed()
    assert SEAL.holds(whole, NODE)
    assert SEAL.holds(replace(whole, forward=replace(whole.forward, store="e" * 32)), NODE)
    assert Seal(b"secret").holds(whole, NODE)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "2" * 32},
        {"attempt": 3},
        {"owner": "bob"},
        {"origin": "e" * 40},
        {"key": "k"},
        {"retry_of": "3" * 32},
        {"path": ()},
        {"seal": ""},
        {"seal": "0" * 64},
        {"seal": "é"},
    ],
)
def test_it_holds_for_nothing_else(changed: dict[str, object]) -> None:
    """No part of the forward can be another one."""
    whole = sealed()
    assert not SEAL.holds(replace(whole, forward=replace(whole.forward, **changed)), NODE)


def test_nor_for_another_node_request_or_scheduler() -> None:
    """Each has seals of its own."""
    whole = sealed()
    assert not SEAL.holds(whole, OTHER)
    assert not Seal(b"other").holds(whole, NODE)
    for asked in (
        request("print b", note="x", needs=Needs(labels=("ssd",))),
        replace(whole.request, guidance=Guidance()),
        BuildRequest(),
    ):
        assert not SEAL.holds(replace(whole, request=asked), NODE)

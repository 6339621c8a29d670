"""Whose fault an attempt's end is: the table, its words in the documentation, and what a node tells
of it.
"""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.attempt.faults import TABLE, Fault, event_after, fault_of, in_words
from node.engines import errors
from node.engines.docker_pull import pull_error
from node.inputs.fetch import FetchFailed
from protocol.errors import Unavailable
from protocol.model.build import Result
from protocol.model.lifecycle import Event
from protocol.model.recipe import ImageBase
from protocol.ports.service import LOCAL
from tests.programs import a_node, ended, request

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_documentation_has_every_row() -> None:
    """In the same order, and no other."""
    rows = re.findall(r"^\| .* \(`(\w+)`\) \| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [(kind.__name__, fault.value) for kind, fault in TABLE]


@pytest.mark.parametrize(
    ("error", "fault", "event"),
    [
        (errors.ImageUnknown("x"), Fault.BUILD, Event.FAIL),
        (errors.ImageFailed("x"), Fault.BUILD, Event.FAIL),
        (FetchFailed("x"), Fault.BUILD, Event.FAIL),
        (errors.PullFailed("x"), Fault.OUTSIDE, Event.GIVE_UP),
        (errors.RegistryUnreachable("x"), Fault.OUTSIDE, Event.GIVE_UP),
        (errors.EngineDown("x"), Fault.NODE, Event.GIVE_UP),
        (errors.ContainerRefused("x"), Fault.NODE, Event.GIVE_UP),
        (Unavailable("x"), Fault.NODE, Event.GIVE_UP),
        (OSError(5, "x"), Fault.NODE, Event.GIVE_UP),
        (RuntimeError("x"), None, Event.GIVE_UP),
    ],
)
def test_whose_fault_an_error_is(error, fault, event) -> None:
    """And what follows: only the build's own ends it."""
    assert fault_of(error) is fault
    assert event_after(fault) is event
    assert ("x" in in_words(error, fault)) is (fault is not None)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("manifest unknown", errors.ImageUnknown),
        ("dial tcp: connect: connection refused", errors.RegistryUnreachable),
        ("x509: certificate signed by unknown authority", errors.PullFailed),
        ("no matching manifest for linux/arm64/v8 in the manifest list", errors.PullFailed),
        ("failed to register layer: write /a: no space left on device", errors.EngineError),
    ],
)
def test_why_an_image_could_not_be_pulled(words, kind) -> None:
    """A full disk is the node's; what no other sign says is nobody's in the pool."""
    assert type(pull_error("far/away", words)) is kind


@pytest.mark.gen_test
@pytest.mark.parametrize(("image", "excused"), [("unreachable/x", True), ("broken/x", False)])
async def test_a_node_tells_whether_it_was_its_own_fault(tmp_path, image, excused) -> None:
    """Of an attempt that is lost."""
    async with a_node(tmp_path) as node:
        wanted = request("print x")
        recipe = replace(wanted.recipe, base=ImageBase(image))
        accepted = await node.service.submit(LOCAL, replace(wanted, recipe=recipe))
        build = await ended(node.service, accepted.id)
        assert (build.result, build.excused) == (Result.LOST, excused)

"""What a node shows of itself: its facts in, samples and problems out."""

import pytest
from msgspec.structs import replace

from node.core.capacity import Facts
from node.metrics import health
from protocol.program.metrics import Metrics, Program, ProgramHealth

WELL = Facts(slots=2, used=1, disk_free=8 << 30, disk_reserve=1 << 30)


def watched(facts: Facts) -> ProgramHealth:
    """The health of a node of which this is true."""
    return health(Metrics(Program("n1", "tester", "node")), (), lambda: facts, lambda: 3)


def test_the_condition_of_a_node() -> None:
    """Slots, disk, engine, images."""
    value = watched(WELL).registry.get_sample_value
    assert value("imagepool_slots") == 2
    assert value("imagepool_slots_used") == 1
    assert value("imagepool_disk_free_bytes") == 8 << 30
    assert value("imagepool_disk_reserve_bytes") == 1 << 30
    assert value("imagepool_images") == 3
    assert value("imagepool_engine_up") == 1
    down = watched(replace(WELL, engine_problem="its engine does not answer"))
    assert down.registry.get_sample_value("imagepool_engine_up") == 0


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("changes", "part", "words"),
    [
        ({"leaving": True}, "program", "shutting down"),
        ({"engine_problem": "its engine does not answer: no"}, "engine", "does not answer: no"),
        ({"slots": 0}, "slots", "no slots"),
        ({"disk_free": 5 << 20}, "disk", "5 MiB are free, 1024 MiB must be"),
    ],
)
async def test_a_node_that_cannot_build_says_why(changes, part, words) -> None:
    """In words, and which part it is."""
    (problem,) = await watched(replace(WELL, **changes)).problems()
    assert problem.part == part
    assert words in problem.detail


@pytest.mark.gen_test
@pytest.mark.parametrize("changes", [{}, {"used": 2}, {"waiting": 9}])
async def test_a_node_that_has_all_it_can_do_is_ready(changes) -> None:
    """Busy is not broken."""
    assert await watched(replace(WELL, **changes)).problems() == ()

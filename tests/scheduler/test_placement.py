"""Placement: each check with its reason in words, the order of the scorers, every refusal
recorded.
"""

from typing import Any

import pytest
from msgspec.structs import replace

from protocol.model.build import Build, Stage, Step, new_build
from protocol.model.messages import API_VERSION, Report
from protocol.model.recipe import ImageBase, Recipe
from protocol.model.request import BuildRequest, Guidance, Needs
from scheduler.core.placement import CHECKS, SCORERS, Candidate, choose, in_words, why_none


def a_report(name: str, **changes: Any) -> Report:
    """A ready node's."""
    return Report(
        **{
            "id": f"id-{name}",
            "boot": "b",
            "name": name,
            "role": "node",
            "version": "1",
            "api": API_VERSION,
            "architecture": "x86_64",
            "status": "ready",
            "priority": 0,
            "token": "t",
            "slots": 2,
            "cpus": 2.0,
            "memory": 4 << 30,
            "disk_free": 10 << 30,
            **changes,
        }
    )


def a_node(name: str = "n", report: dict[str, Any] | None = None, **changes: Any) -> Candidate:
    """A candidate that no check refuses."""
    made = a_report(name, **(report or {}))
    return Candidate(
        **{"key": name, "report": made, "state": "ready", "reason": "", "priority": 0, **changes}
    )


def a_build(
    needs: Needs | None = None, image: str | None = None, priority: int = 0, at: float = 0
) -> Build:
    """A waiting build."""
    request = BuildRequest(
        Recipe(base=ImageBase(image)), Guidance(needs=needs or Needs(), priority=priority)
    )
    return new_build(f"build-{at}", request, origin="o", owner="", now=at)


REFUSED = [
    (a_node(state="silent", reason="no answer for 12 s"), Needs(), "silent: no answer for 12 s"),
    (a_node(state="lost", reason="gone"), Needs(), "lost"),
    (a_node(error="refused"), Needs(), "its last poll failed: refused"),
    (a_node(state="refused", reason="a circle"), Needs(), "refused: a circle"),
    (a_node(state="cordoned", reason="new disk"), Needs(), "cordoned: new disk"),
    (a_node(state="quarantined", reason="it failed"), Needs(), "quarantined: it failed"),
    (a_node(probation=True, ours=1), Needs(), "one at a time"),
    (a_node(in_vain=frozenset({"build-0"})), Needs(), "had this one in vain"),
    (a_node(state="busy", reason="all 1 slots are used"), Needs(), "busy: all 1 slots are used"),
    (a_node(report={"used": 2}), Needs(), "slots"),
    (a_node(report={"used": 1}, coming=1), Needs(), "slots"),
    (a_node(full=True), Needs(), "no room a moment ago"),
    (a_node(refused={"build-0": "no such image"}), Needs(), "does not take this build: no such"),
    (a_node(report={"kind": "plain"}), Needs(labels=("a",)), "cannot express needs (labels)"),
    (a_node(), Needs(architecture="aarch64"), "x86_64, not aarch64"),
    (a_node(report={"labels": ("a",)}), Needs(labels=("a", "b")), "lacks the label b (it has a)"),
    (a_node(), Needs(cpus=3), "2 cpus, not 3"),
    (a_node(), Needs(memory=8 << 30), "4096 MiB of memory, not 8192"),
    (a_node(), Needs(disk=20 << 30), "10240 MiB of disk left, not 20480"),
]


@pytest.mark.parametrize(("node", "needs", "words"), REFUSED)
def test_a_node_that_does_not_get_the_build(node, needs, words) -> None:
    """The reason is recorded, in words."""
    choice = choose(a_build(needs), [node])
    assert choice.node is None
    (refusal,) = choice.refusals
    assert words in refusal.reason
    assert words in in_words(choice)


def test_all_that_is_in_the_way_is_named() -> None:
    """Not only what is looked at first; and what another moment would not change is said to be
    so.
    """
    node = a_node(report={"used": 2})
    (refusal,) = choose(a_build(Needs(labels=("gpu",), cpus=8)), [node]).refusals
    assert refusal.reason == (
        "all its slots are used or about to be, and it lacks the label gpu (it has none), and it"
        " has 2 cpus, not 8"
    )


def test_what_no_node_can_ever_run_is_told_from_what_waits() -> None:
    """As the nodes are now; of an empty pool nobody can say."""
    full, small = a_node("full", report={"used": 2}), a_node("small", report={"cpus": 1})
    build = a_build(Needs(cpus=2))
    waiting, never = choose(build, [full, small]), choose(build, [small])
    assert (waiting.never, never.never) == (False, True)
    assert in_words(never) == "no node that is here can run it: small: it has 1 cpus, not 2"
    assert "can run it" not in in_words(waiting)
    assert not choose(build, []).never


def test_what_all_refuse_is_said_in_the_same_words() -> None:
    """Whether each node is looked at or only those that are named."""
    for number in (0, 1, 5, 6, 9):
        nodes = [a_node(f"n{i}", report={"used": 2}) for i in range(number)]
        for build in (a_build(), a_build(Needs(cpus=99))):
            assert why_none(build, nodes) == in_words(choose(build, nodes))
    assert why_none(build, nodes).endswith("; and 4 more nodes")


def test_a_node_that_failed_lately_does_not_get_the_same_build_again() -> None:
    """Where others can have it; else it may try."""
    build = a_build()
    step = Step(1, "place", Stage.PLACED, "n (id-n), priority 0")
    tried = replace(build, history=(*build.history, step))
    failing = a_node(probation=True, others=True)
    assert failing.report.id in step.cause
    assert choose(tried, [failing]).node is None
    assert choose(build, [failing]).node is failing
    alone = a_node(probation=True)
    assert choose(tried, [alone]).node is alone


def test_every_check_has_a_case() -> None:
    """A check that is added without one is seen here."""
    used = {
        next(check for check in CHECKS if check(node, a_build(needs))) for node, needs, _ in REFUSED
    }
    assert used == set(CHECKS)


TIED = {"priority": 5}
RANKED = [
    (a_node("a", priority=6), a_node("b", report={"images": ("i:latest",), "slots": 9}, **TIED)),
    (
        a_node("a", report={"images": ("i:latest",)}, **TIED),
        a_node("b", report={"slots": 9}, **TIED),
    ),
    (a_node("a", report={"slots": 3}, **TIED), a_node("b", **TIED)),
    (a_node("a", last_used=9, **TIED), a_node("tried", last_used=1, **TIED)),
    (a_node("a", last_used=1, **TIED), a_node("b", last_used=9, **TIED)),
]


@pytest.mark.parametrize(("better", "worse"), RANKED)
def test_the_order_of_the_scorers_is_the_policy(better, worse) -> None:
    """Highest priority first, always; then the image, free slots, not tried, longest unused."""
    build = a_build(image="i")
    build = replace(build, history=(Step(0, "place", Stage.PLACED, "tried (id-tried)"),))
    for nodes in ([better, worse], [worse, better]):
        chosen = choose(build, nodes).node
        assert chosen is not None
        assert chosen.key == better.key
    assert len(RANKED) == len(SCORERS)


def test_an_empty_pool() -> None:
    """The build waits, and says for what."""
    assert in_words(choose(a_build(), [])) == "there is no node in the pool"

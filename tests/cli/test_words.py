"""Builds in words."""

from msgspec.structs import replace

from imagepool.cli import words
from protocol.model.build import Build, NodeReference, Result, Stage, State, Step, Usage, new_build
from protocol.model.lifecycle import Event
from protocol.model.messages import Explanation
from protocol.model.request import BuildRequest

WHY = "the command 'make' ended with 3"


def stopped(result: Result, reason: str) -> Build:
    """A build that ran for 90 seconds."""
    fresh = new_build("ab", BuildRequest(), origin="o", owner="ann", now=1000.0)
    return replace(
        fresh,
        stage=Stage.STOPPED,
        result=result,
        reason=reason,
        node=NodeReference("0f", "ada"),
        attempt=1,
        started=1010.0,
        stopped=1100.0,
        usage=Usage(cpu=12.34, memory=3 << 20, read=0, written=2048, disk=512),
    )


def test_a_build_is_shown_with_its_times_and_what_it_used() -> None:
    """Dates, since builds are kept for days; the reason once, and steps in words."""
    history = (
        Step(1000.0, "accepted", Stage.QUEUED),
        Step(1001.0, "place", Stage.PLACED, "ada, priority 0"),
        Step(1100.0, "fail", Stage.STOPPED, WHY),
    )
    build = stopped(Result.FAILED, WHY)
    shown = words.build_card(build, Explanation("ab", State.STOPPED, WHY, history=history))
    lines = shown.splitlines()
    at = words.moment
    assert f"created   {at(1000)}" in lines
    assert f"started   {at(1010)}, after 10 s" in lines
    assert f"stopped   {at(1100)}, after 2 min" in lines
    assert (
        "used      12.3 s of processors, 3.0 MiB of memory, 512 B of files;"
        " read 0 B, wrote 2.0 KiB" in lines
    )
    assert lines[-3:] == [
        f"  {at(1000)} accepted",
        f"  {at(1001)} placed: ada, priority 0",
        f"  {at(1100)} failed",
    ]
    assert shown.count(WHY) == 1


def test_every_event_has_words() -> None:
    """Those of the life cycle."""
    assert words.EVENTS.keys() == {event.value for event in Event}


def test_how_a_build_ended_is_said_once() -> None:
    """`cancelled: it was cancelled` says nothing more."""
    cancelled = words.ending(stopped(Result.CANCELLED, "it was cancelled"))
    assert cancelled == "build ab cancelled after 90.0 s on ada"
    assert words.ending(stopped(Result.FAILED, WHY)).endswith(f"on ada: {WHY}")

"""Builds in words."""

from msgspec.structs import replace

from imagepool.cli import words
from imagepool.cli.exits import Failure
from protocol.errors import PoolError
from protocol.model.build import (
    Artifact,
    Build,
    CommandStatus,
    NodeReference,
    Result,
    Stage,
    State,
    Step,
    Usage,
    new_build,
)
from protocol.model.lifecycle import Event
from protocol.model.messages import Explanation, Refusal, Roster, RosterEntry
from protocol.model.request import BuildRequest
from tests.scheduler.test_placement import a_report

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


def test_nothing_that_others_say_moves_the_terminal() -> None:
    """A node's name, reason, version and artifacts; what a build is refused for."""
    bad = "\x1b]0;x\x07\x9b2J\u202e\n\r"
    build = replace(
        stopped(Result.FAILED, f"why{bad}"),
        node=NodeReference("0f", f"ada{bad}"),
        artifacts=(Artifact(f"a{bad}", 1, f"ab{bad}"),),
        commands=(CommandStatus(f"make{bad}", start=0),),
    )
    running = replace(build, stage=Stage.RUNNING, result=None)
    waiting = replace(running, stage=Stage.QUEUED)
    refusals = (Refusal("0f", f"ada{bad}", f"full{bad}"),)
    history = (Step(1.0, f"e{bad}", Stage.QUEUED, f"c{bad}"),)
    why = Explanation("ab", State.WAITING, f"r{bad}", refusals=refusals, history=history)
    node = a_report(f"ada{bad}", version=bad, status=f"busy{bad}", reason=bad)
    entry = RosterEntry("http://x", ("mdns",), f"lost{bad}", bad, name=f"ada{bad}")
    for shown in (
        words.ending(build),
        words.doing(running),
        words.doing(waiting),
        words.build_card(build, why),
        words.build_table([build]),
        words.explained(why),
        words.report(node),
        words.node_table(Roster("s", (entry,), 0, 0)),
        words.on_node(entry),
        Failure(PoolError(f"no{bad}", field=bad, expected=bad), 1).format_message(),
    ):
        assert all(line.isprintable() for line in shown.split("\n"))

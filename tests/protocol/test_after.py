"""How long builds last that have stopped, by time and by pin."""

import pytest
from msgspec.structs import replace

from node.core.retention import expired, forgotten
from protocol.builds.after import check_deletable, lasts_until, record_lasts_until
from protocol.errors import Conflict
from protocol.model.build import Build, Result, Stage, new_build
from protocol.model.record import Record
from protocol.model.request import BuildRequest, Forward, Guidance
from protocol.ports.service import LOCAL, Caller, Role


def stopped(keep: float | None = None, *, pinned: bool = False, at: float | None = 100) -> Build:
    """A build that asks to be kept so long, and stopped then; None: not at all."""
    request = BuildRequest(guidance=Guidance(keep=keep))
    build = new_build("b", request, origin="o", owner="ann", now=1)
    if at is None:
        return build
    return replace(build, pinned=pinned, stopped=at, stage=Stage.STOPPED, result=Result.SUCCEEDED)


@pytest.mark.parametrize(
    ("build", "files", "record"),
    [
        (stopped(), 160, 160),
        (stopped(0), 100, 160),
        (stopped(5), 105, 160),
        (stopped(500), 600, 600),
        (stopped(pinned=True), None, None),
        (stopped(0, pinned=True), None, None),
        (stopped(0, at=None), None, None),
    ],
)
def test_how_long_a_build_lasts(build, files, record) -> None:
    """What it asks for itself counts for its files; its record lasts no shorter than the settings
    say. What has not stopped, or is pinned, has no end.
    """
    assert lasts_until(build, 60) == files
    assert record_lasts_until(build, 60) == record
    for end, chosen in ((files, expired), (record, forgotten)):
        if end is not None:
            assert chosen([build], end, 60) == ()
            assert chosen([build], end + 1, 60) == ("b",)
        else:
            assert chosen([build], 1e12, 60) == ()


def test_what_may_be_deleted() -> None:
    """A stopped build, unless it is pinned, or its scheduler has not heard of its end; the
    scheduler itself may.
    """
    forward = Forward("b", "a" * 40, 1)
    ours = Caller(owner="", role=Role.PROGRAM, program="a" * 40)
    check_deletable(Record(stopped()), LOCAL)
    check_deletable(Record(stopped(), forward, acknowledged=True), LOCAL)
    check_deletable(Record(stopped(), forward), ours)
    for record, caller in (
        (Record(stopped(at=None)), LOCAL),
        (Record(stopped(pinned=True)), LOCAL),
        (Record(stopped(), forward), LOCAL),
        (Record(stopped(pinned=True), forward), ours),
    ):
        with pytest.raises(Conflict) as refused:
            check_deletable(record, caller)
        assert refused.value.field == "id"

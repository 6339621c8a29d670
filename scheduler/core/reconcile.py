"""What follows from a node's report: the differences between what we want of the node and what it
states.

No message is precious: a lost reply, a repeated forward, a restart on either side, a cancel and a
lost store are all just differences.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from protocol.model.build import Build, Result, Stage
from protocol.model.messages import Report


class Follow(Struct, frozen=True):
    """The node has news of an attempt that we want there."""

    build: Build
    reported: Build


class Resend(Struct, frozen=True):
    """The node does not have the attempt: send it again, with the same number."""

    build: Build


class Cancel(Struct, frozen=True):
    """Our record proves that this attempt ended or was superseded: the node need not go on."""

    build_id: str
    attempt: int


class Adopt(Struct, frozen=True):
    """An attempt that we know nothing of, or had given up and not replaced: it is ours from now
    on.
    """

    reported: Build


class Acknowledge(Struct, frozen=True):
    """These attempts are on record: the node need not report those again that have ended."""

    attempts: tuple[tuple[str, int], ...]


Action = Follow | Resend | Cancel | Adopt | Acknowledge


def reconcile(
    wanted: Iterable[Build], known: Mapping[str, Build], report: Report
) -> tuple[Action, ...]:
    """`wanted`: builds whose attempt is on this node and whose forward was answered or lost;
    `known`: every reported build that we have a record of. Both are to be read after the report
    arrived. An attempt that we know nothing of is adopted, never cancelled.
    """
    expected = {build.id: build for build in wanted}
    actions: list[Action] = []
    done: list[tuple[str, int]] = []
    for there in report.builds:
        record = known.get(there.id)
        if record is None or _is_newer(record, there):
            actions.append(Adopt(there))
        elif _is_the_records(record, there, report.id):
            if there.id in expected:
                actions.append(Follow(record, there))
        elif there.stage is Stage.STOPPED:
            done.append((there.id, there.attempt))
        else:
            actions.append(Cancel(there.id, there.attempt))
    shown = {build.id for build in report.builds}
    if not report.more:  # what is missing may be on the next page
        actions += [Resend(build) for key, build in expected.items() if key not in shown]
    actions += [Resend(build) for build in expected.values() if _is_older_there(build, report)]
    if done:
        actions.append(Acknowledge(tuple(done)))
    return tuple(actions)


def _is_newer(record: Build, there: Build) -> bool:
    """An attempt behind the record's, which a lost store placed, or the record's own, which was
    given up and not replaced; but not one that has come to nothing there too, as was said before.
    """
    if record.stage is Stage.STOPPED:
        return False
    given_up = record.stage is Stage.QUEUED and record.attempt == there.attempt
    return (given_up and there.result is not Result.LOST) or there.attempt > record.attempt


def _is_the_records(record: Build, there: Build, node: str) -> bool:
    return (
        record.stage is not Stage.STOPPED
        and record.attempt == there.attempt
        and record.node is not None
        and record.node.id == node
    )


def _is_older_there(build: Build, report: Report) -> bool:
    """The node still has an earlier attempt, and not ours."""
    return any(there.id == build.id and there.attempt < build.attempt for there in report.builds)

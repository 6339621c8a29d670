"""What follows from a node's report: the differences between what we want of the node and what it
states.

No message is precious: a lost reply, a repeated forward, a restart on either side and a cancel are
all just differences.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from protocol.messages import Report
from protocol.model import Build, Stage


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


class Acknowledge(Struct, frozen=True):
    """These ended attempts are on record: the node need not report them again."""

    attempts: tuple[tuple[str, int], ...]


Action = Follow | Resend | Cancel | Acknowledge


def reconcile(
    wanted: Iterable[Build], known: Mapping[str, Build], report: Report
) -> tuple[Action, ...]:
    """`wanted`: builds whose attempt is on this node and whose forward was answered or lost;
    `known`: every reported build that we have a record of. An attempt that we know nothing of is
    left alone.
    """
    reported = {build.id: build for build in report.builds}
    actions: list[Action] = []
    for build in wanted:
        there = reported.get(build.id)
        if there is None or there.attempt < build.attempt:
            actions.append(Resend(build))
        elif there.attempt == build.attempt:
            actions.append(Follow(build, there))
    done = []
    for there in report.builds:
        record = known.get(there.id)
        if record is None or _wanted_here(record, there, report.id):
            continue
        if there.stage is Stage.STOPPED:
            done.append((there.id, there.attempt))
        else:
            actions.append(Cancel(there.id))
    if done:
        actions.append(Acknowledge(tuple(done)))
    return tuple(actions)


def _wanted_here(record: Build, there: Build, node: str) -> bool:
    return (
        record.stage is not Stage.STOPPED
        and record.attempt == there.attempt
        and record.node is not None
        and record.node.id == node
    )

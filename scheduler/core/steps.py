"""What the scheduler's record of a build becomes: at a placement, an answer, a loss, a node's word.

Every function takes the record and answers the next one; where the record has moved on, it answers
the record itself. Nothing else changes a record.
"""

from msgspec.structs import replace

from protocol.model.build import Build, NodeReference, Result, Stage, made_at
from protocol.model.lifecycle import Event, advance, events_between, may
from protocol.model.messages import Forwarded
from scheduler.core import retry

_LONGEST = 4000
"""Characters of a node's reason that are kept: it may say a book."""


def placed(build: Build, node: NodeReference, now: float, cause: str) -> Build:
    """A node was chosen: one attempt more, there. To be on disk before the node hears of it."""
    attempt = build.attempt + 1
    return replace(advance(build, Event.PLACE, now, cause), node=node, attempt=attempt, reason="")


def declined(build: Build, attempt: int, now: float, cause: str) -> Build:
    """The node certainly did not take the attempt, for want of room: it is not used up."""
    if build.attempt != attempt or not may(build, Event.DECLINE):
        return build
    return replace(advance(build, Event.DECLINE, now, cause), attempt=attempt - 1)


def failed(build: Build, attempt: int, now: float, cause: str, limit: int) -> Build:
    """The attempt came to nothing by the pool's fault: the next one of `limit`, or the end."""
    event = retry.after_loss(build, limit)
    if build.attempt != attempt or not may(build, event):
        return build
    return advance(build, event, now, retry.why(build, cause, limit))


def refused(build: Build, attempt: int, now: float, cause: str) -> Build:
    """What it needs is nowhere any more: no node can ever do it."""
    if build.attempt != attempt or not may(build, Event.REFUSE):
        return build
    return advance(build, Event.REFUSE, now, cause)


def cancelled(build: Build, now: float, cause: str) -> Build:
    """Ended by its user; the node hears of it by the next report, if not before."""
    return advance(build, Event.CANCEL, now, cause) if may(build, Event.CANCEL) else build


def superseded(build: Build, now: float, cause: str) -> Build:
    """Another attempt, of the scheduler above, took its place: nothing is tried again here."""
    return advance(build, Event.GIVE_UP, now, cause) if may(build, Event.GIVE_UP) else build


def followed(build: Build, reported: Build, now: float, limit: int) -> Build:
    """The record caught up with the report, event by event; the end of an attempt ends the build
    or queues it again.
    """
    if build.stage in (Stage.STOPPED, Stage.QUEUED) or build.attempt != reported.attempt:
        return build
    for event in events_between(build.stage, _furthest(reported)):
        build = advance(build, event, now)
    served = tuple(artifact for artifact in build.artifacts if artifact.growing)
    build = replace(
        build,
        commands=reported.commands,
        artifacts=reported.artifacts or served,  # a node that begins again says so a little later
        log_size=reported.log_size,
        usage=reported.usage or build.usage,
        revision=build.revision + 1,
    )
    if reported.stage is not Stage.STOPPED:
        return build
    event, cause = retry.after(build, reported, limit), reported.reason[:_LONGEST]
    if reported.result in (None, Result.LOST):
        cause = retry.why(build, cause, limit)
    if not may(build, event):
        event = Event.GIVE_UP
    return advance(build, event, now, cause)


def found_again(build: Build, attempt: int, node: NodeReference, now: float) -> Build:
    """An attempt that we had given up, or a later one than we know of, is on that node: it is the
    build's.
    """
    if build.stage is Stage.STOPPED:
        return build
    if build.stage is not Stage.QUEUED:  # a later attempt than our store remembers
        build = advance(build, Event.LOSE, now, f"attempt {attempt} was found on {node.name}")
    cause = f"found on {node.name} ({node.id})"
    return replace(advance(build, Event.ADOPT, now, cause), node=node, attempt=attempt, reason="")


def adopted(reported: Build, whole: Forwarded, node: NodeReference, now: float) -> Build:
    """A record of a build of ours that our store does not have, made of what its node keeps."""
    forward = whole.forward
    origin = forward.path[-2] if len(forward.path) > 1 else forward.origin
    build = Build(
        id=reported.id,
        origin=origin,
        owner=forward.owner,
        request=whole.request,
        created=made_at(reported.id, reported.created),
        history=reported.history[:1],
        key=forward.key,
        retry_of=forward.retry_of,
        pinned=reported.pinned,
    )
    return found_again(build, reported.attempt, node, now)


def _furthest(reported: Build) -> Stage:
    """The last stage that the attempt reached before it stopped."""
    reached = [step.stage for step in reported.history if step.stage is not Stage.STOPPED]
    return reached[-1] if reached else Stage.PREPARING

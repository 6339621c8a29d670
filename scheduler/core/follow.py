"""Our record of a build after a node's word on its attempt."""

from msgspec.structs import replace

from protocol.lifecycle import advance, events_between, may
from protocol.model import Build, Stage
from scheduler.core import retry


def followed(build: Build, reported: Build, now: float, attempts: int) -> Build:
    """The record caught up with the report, event by event; the end of an attempt ends the build
    or queues it again.
    """
    if build.stage is Stage.STOPPED:
        return build
    for event in events_between(build.stage, _furthest(reported)):
        build = advance(build, event, now)
    build = replace(
        build,
        commands=reported.commands,
        artifacts=reported.artifacts,
        log_size=reported.log_size,
        revision=build.revision + 1,
    )
    if reported.stage is not Stage.STOPPED:
        return build
    event = retry.after(reported, build.attempt, attempts)
    if not may(build, event):
        event = retry.after_loss(attempts, attempts)
    return advance(build, event, now, reported.reason)


def _furthest(reported: Build) -> Stage:
    """The last stage that the attempt reached before it stopped."""
    reached = [step.stage for step in reported.history if step.stage is not Stage.STOPPED]
    return reached[-1] if reached else Stage.PREPARING

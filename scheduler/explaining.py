"""Why a build waits, what happened to it, and what would become of one that is not made yet."""

import time
from secrets import token_bytes

from msgspec.structs import replace

from protocol.model.build import Build, Stage, build_id, new_build
from protocol.model.messages import Explanation
from protocol.model.request import BuildRequest
from scheduler.core.placement import in_words
from scheduler.dispatch.dispatcher import Dispatcher


def explain(dispatcher: Dispatcher, build: Build) -> Explanation:
    """See BuildService."""
    if build.stage is not Stage.QUEUED:
        words = build.reason or dispatcher.prospects.why_still(build)
        return Explanation(build.id, build.state, words, history=build.history)
    told, _ = _outlook(dispatcher, build)
    return replace(told, reason=told.reason or "it is about to be placed")


def preview(dispatcher: Dispatcher, request: BuildRequest, owner: str) -> Explanation:
    """What would become of this request, which has been found good. It has a place in the queue
    only where it would wait.
    """
    now = time.time()
    build = new_build(build_id(now, token_bytes(10)), request, origin="", owner=owner, now=now)
    told, name = _outlook(dispatcher, build)
    told = replace(told, id="", history=())
    if told.reason:
        return replace(told, reason=f"it would wait: {told.reason}")
    return replace(told, reason=f"it would be placed on {name}", place=None)


def _outlook(dispatcher: Dispatcher, build: Build) -> tuple[Explanation, str]:
    """Of a build that waits; the reason is empty where nothing keeps it waiting. And the name of
    the node that it would get now.
    """
    prospects = dispatcher.prospects
    choice = prospects.choice(build)
    ahead = prospects.ahead_of(build)
    away = dispatcher.quotas.why_not(build.owner) or dispatcher.sources.why_not(build)
    told = Explanation(
        build.id,
        build.state,
        in_words(choice) if choice.node is None else away,
        place=len(ahead) + 1,
        estimate=None if away else prospects.estimate(build, ahead),
        refusals=choice.refusals,
        history=build.history,
    )
    return told, choice.node.report.name if choice.node is not None else ""

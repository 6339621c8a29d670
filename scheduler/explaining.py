"""Why a build waits, what happened to it, and what would become of one that is not made yet."""

import time
from secrets import token_bytes

from msgspec.structs import replace

from protocol.messages import Explanation
from protocol.model import Build, Stage, build_id, new_build
from protocol.request import BuildRequest
from scheduler.core.placement import in_words
from scheduler.dispatch import Dispatcher


def explain(dispatcher: Dispatcher, build: Build) -> Explanation:
    """See BuildService."""
    if build.stage is not Stage.QUEUED:
        words = build.reason or dispatcher.why_still(build)
        return Explanation(build.id, build.state, words, history=build.history)
    return _explained(
        dispatcher, build, dispatcher.place_in_queue(build), "it is about to be placed"
    )


def preview(dispatcher: Dispatcher, request: BuildRequest, owner: str) -> Explanation:
    """What would become of this request, which has been found good."""
    now = time.time()
    build = new_build(build_id(now, token_bytes(10)), request, origin="", owner=owner, now=now)
    choice = dispatcher.choice(build)
    name = choice.node.report.name if choice.node is not None else ""
    place = dispatcher.place_in_queue(build)
    told = _explained(dispatcher, build, place, f"it would be placed on {name}")
    return replace(told, id="", history=())


def _explained(
    dispatcher: Dispatcher, build: Build, place: int | None, otherwise: str
) -> Explanation:
    """Of a build that waits; `otherwise`: what is said where nothing keeps it waiting."""
    choice = dispatcher.choice(build)
    words = in_words(choice) if choice.node is None else dispatcher.sources.why_not(build)
    return Explanation(
        build.id,
        build.state,
        words or otherwise,
        place,
        dispatcher.estimate(place) if place else None,
        choice.refusals,
        build.history,
    )

"""A build as a line of the page. Pure; `builds.html` lays it out."""

from urllib.parse import quote

from msgspec import Struct

from protocol.model.build import Build, Result, Stage, State
from scheduler.web import words
from scheduler.web.pieces import Folded, Link, Reason, folded, reason, status_link


class BuildView(Struct, frozen=True):
    """A line of the builds."""

    id: str
    status: Link
    state: str  # its result, once it has one
    reason: Reason
    title: str
    labels: Folded
    doing: str
    node: str
    attempt: str  # said only from the second one on
    age: str
    created: str
    took: str
    links: tuple[Link, ...]
    downloads: Folded


def build_view(build: Build, now: float, base: str = "") -> BuildView:
    """A build as it is shown."""
    return BuildView(
        id=build.id,
        status=status_link(build.id, base),
        state=build.result.value if build.result else build.state.value,
        reason=Reason("") if build.result is Result.SUCCEEDED else reason(build.reason),
        title=title(build),
        labels=folded(labels(build)),
        doing=doing(build),
        node=words.clipped(build.node.name, 80) if build.node else "",
        attempt=f"attempt {build.attempt}" if build.attempt > 1 else "",
        age=words.ago(now - build.created),
        created=words.moment(build.created),
        took=took(build, now),
        links=links(build, base),
        downloads=folded(downloads(build, base)),
    )


def title(build: Build) -> str:
    """What the build is about: its note, or else the names of its first commands."""
    if build.request.guidance.note.strip():
        return words.clipped(build.request.guidance.note, 160)
    names = [words.clipped(command.name, 60) for command in build.request.recipe.commands]
    more = f" + {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more or "no commands"


def labels(build: Build) -> tuple[Link, ...]:
    """Those that its client gave it: `team=web`, and a name alone where there is no value."""
    given = build.request.guidance.labels.items()
    texts = (f"{name}={text}" if text else name for name, text in sorted(given))
    return tuple(Link(words.clipped(text, 60), title=text) for text in texts)


def doing(build: Build) -> str:
    """Where a build is that has not stopped: on its way, or at which of its commands."""
    match build.stage:
        case Stage.PLACED:
            return "on its way to the node"
        case Stage.PREPARING:
            return "getting ready"
        case Stage.COLLECTING:
            return "collecting the result"
        case Stage.RUNNING:
            return _at_command(build)
        case _:
            return ""


def _at_command(build: Build) -> str:
    asked = [command for command in build.commands if not command.added]
    for number, command in enumerate(asked, 1):
        if command.state is State.RUNNING:
            return f"command {number} of {len(asked)}: {words.clipped(command.name, 60)}"
    return "running"


def took(build: Build, now: float) -> str:
    """How long it has been waiting or running, or took."""
    if build.state is State.WAITING:
        return f"waiting {words.duration(now - build.created)}"
    if build.started is None:
        return "never ran"
    if build.state is State.RUNNING:
        return f"running {words.duration(now - build.started)}"
    end = build.started if build.stopped is None else build.stopped
    return f"took {words.duration(end - build.started)}"


def downloads(build: Build, base: str = "") -> tuple[Link, ...]:
    """What a stopped build made.

    `/download` has only the first artifact, under any name; the native API has all.
    """
    if build.state is not State.STOPPED:
        return ()
    links = []
    for index, artifact in enumerate(one for one in build.artifacts if one.kept):
        path = f"/api/v1/builds/{build.id}/artifacts" if index else f"/download/{build.id}"
        href = f"{base}{path}/{quote(artifact.name, safe='')}"
        name, says = words.clipped(artifact.name, 60), f"SHA-256 {artifact.sha256}"
        links.append(Link(name, href, says, words.size(artifact.size)))
    return tuple(links)


def links(build: Build, base: str = "") -> tuple[Link, ...]:
    """Where to read more of it. The log of a build that runs is followed."""
    status = Link("status", f"{base}/status/{build.id}")
    if build.started is None and not build.log_size:
        return (status,)
    follow = "?follow=1" if build.state is State.RUNNING else ""
    href = f"{base}/api/v1/builds/{build.id}/log{follow}"
    log = Link("log", href, note=words.size(build.log_size))
    return (log, status)

"""The documented image-creator API as its client sees it: what is posted, what the answers mean.

What a plain node answers may be anything: whatever is not as documented raises Invalid, naming the
field, and a URL is never one of another server.
"""

import re
from typing import Annotated, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from msgspec import Meta, Struct
from msgspec.structs import replace

from protocol.errors import Invalid
from protocol.model.build import Build, CommandStatus, Stage, Step, made_at
from protocol.model.lifecycle import Event
from protocol.model.recipe import ImageBase
from protocol.model.request import BuildRequest
from scheduler.core.plain import PlainAttempt

REDIRECT = "http://imagepool.invalid/built"
"""Where we say that we want to be sent; nobody goes there: the status URL is read off it."""
IMAGE = "image.iso"
"""The name of an image whose URL names none that is fit."""

_INTACT = "".join(map(chr, range(0x21, 0x7F)))
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PORTS = {"http": 80, "https": 443}
_URL_LIMIT = 4096  # characters

Code = Annotated[str, Meta(pattern="^(waiting|running|stopped)$")]
Whole = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]


class ServerDocument(Struct, frozen=True):
    """What `GET /status` answers."""

    status: Annotated[str, Meta(pattern="^(ready|busy)$")]
    priority: Whole


class CommandDocument(Struct, frozen=True):
    """One command of a build's status."""

    name: str
    status: Code
    output: str | None = None
    exitcode: Whole | None = None


class BuildDocument(Struct, frozen=True):
    """What `GET /status/ID` answers."""

    status: Code
    commands: Annotated[tuple[CommandDocument, ...], Meta(max_length=1024)]
    download: str | None = None


def specification(request: BuildRequest) -> dict[str, Any]:
    """What is posted to `/create` for a build that the API can express."""
    base = request.recipe.base
    assert isinstance(base, ImageBase)
    image = {} if base.name is None else {"image": base.name}
    commands = [
        {
            "name": command.name,
            **({"url": command.url} if command.text is None else {"command": command.text}),
            "arguments": command.arguments,
        }
        for command in request.recipe.commands
    ]
    return {"redirect": REDIRECT, **image, "commands": commands}


def status_url(location: str) -> str:
    """The status URL in the Location that answers a create. Raises Invalid."""
    wanted, found = urlsplit(REDIRECT), _split(location)
    known = (found.scheme, found.netloc.lower(), found.path)
    if known != (wanted.scheme, wanted.netloc, wanted.path):
        raise _nonsense("Location", location, "the URL that it was given")
    head, equals, status = found.query.partition("status=")
    if head not in ("", "&") or not equals or not status:
        raise _nonsense("Location", location, "the argument status=STATUSURL")
    return unquote(status)


def on_node(node: str, url: str, field: str) -> str:
    """Path and query of a URL that the node at `node` states, relative or not. Raises Invalid where
    it leads to any other server.
    """
    try:
        found, home = _split(urljoin(node + "/", url[: _URL_LIMIT + 1])), _split(node)
    except ValueError as error:
        raise _nonsense(field, url, "a URL") from error
    if len(url) > _URL_LIMIT or found.username is not None or _origin(found) != _origin(home):
        raise _nonsense(field, url, f"a URL on {node}: nothing is fetched elsewhere")
    query = f"?{found.query}" if found.query else ""
    return quote(f"/{found.path.lstrip('/')}{query}", safe=_INTACT)


def file_name(path: str) -> str:
    """What an image is called whose URL has this path and query."""
    name = unquote(path.partition("?")[0].rpartition("/")[2])
    return name if _FILE.fullmatch(name) else IMAGE


def read(
    document: BuildDocument, names: tuple[str, ...]
) -> tuple[tuple[CommandStatus, ...], bytes]:
    """The commands and the log. Raises Invalid.

    The log is the output of the commands in their order, each when it has ended, up to the first
    that has not: so what is behind a position never changes. `names`: of the commands that were
    given; all others are the server's own.
    """
    over, index, log = document.status == "stopped", 0, bytearray()
    statuses: list[CommandStatus] = []
    shown = True
    for command in document.commands:
        added = index >= len(names) or command.name != names[index]
        index += not added
        ended = command.status == "stopped"
        if ended and (command.exitcode is None or command.output is None):
            raise Invalid(
                f"the command {command.name[:64]!r} stopped without exitcode or output",
                field="commands",
                expected="both, of a command that has stopped",
            )
        start = len(log) if shown and command.status != "waiting" else None
        if start is not None and (ended or over):
            log += (command.output or "").encode(errors="replace")
        complete = start is not None and ended
        statuses.append(
            CommandStatus(
                command.name[:256],
                start,
                len(log) if complete else None,
                command.exitcode if complete else None,
                added,
            )
        )
        shown = over or (shown and ended)
    if index < len(names):
        raise Invalid(
            f"the command {names[index][:64]!r} is not there",
            field="commands",
            expected="every command that was given, in order",
        )
    return tuple(statuses), bytes(log)


def waiting(attempt: PlainAttempt, origin: str) -> Build:
    """The attempt as a report shows it before anything is known of it."""
    build = Build(
        id=attempt.build,
        origin=origin,
        owner="",
        request=BuildRequest(),
        created=made_at(attempt.build, attempt.since),
        attempt=attempt.attempt,
        commands=tuple(CommandStatus(name) for name in attempt.names),
    )
    return at_stage(build, Stage.PLACED)


def stage_of(document: BuildDocument, commands: tuple[CommandStatus, ...]) -> Stage:
    """How far it is; between two commands some servers say that it waits. When it has stopped, its
    image is still to be counted.
    """
    if document.status == "stopped":
        return Stage.COLLECTING
    begun = document.status == "running" or any(c.start is not None for c in commands)
    return Stage.RUNNING if begun else Stage.PLACED


def verdict(build: Build) -> tuple[Event, str]:
    """How a build ended whose image, if there is one, was counted; and why so."""
    for command in build.commands:
        if command.exit_code is None and not command.added:
            return Event.FAIL, f"the command {command.name!r} never ended"
        if command.exit_code and not command.added:
            return Event.FAIL, f"the command {command.name!r} ended with {command.exit_code}"
    if not build.artifacts:
        return Event.FAIL, "no image was found: its node names none"
    return Event.SUCCEED, ""


def at_stage(build: Build, stage: Stage) -> Build:
    """The attempt at this stage, with the history that says so."""
    return replace(build, stage=stage, history=(Step(build.created, stage.value, stage),))


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise _nonsense("URL", url, "a URL") from error
    return parts


def _origin(parts: Any) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _nonsense(field: str, value: str, expected: str) -> Invalid:
    return Invalid(f"{field} is {value[:200]!r}, not {expected}", field=field, expected=expected)

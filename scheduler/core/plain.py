"""Plain nodes: servers that speak only the documented image-creator API. What they can be asked
for, what they cannot give, and what is kept of each attempt that one of them has.

A plain node knows neither builds nor attempts of ours, only the status URL that it gave for what it
was asked. So the scheduler keeps that URL itself, in its store.
"""

import enum

from msgspec import Struct

from protocol.model.build import Artifact
from protocol.model.recipe import Command, ImageBase, IsoOutput
from protocol.model.request import BuildRequest, Needs

PLAIN = "plain"
"""The `kind` of such a node on the roster."""
LACKS = ("fencing", "live log", "cancel", "proof of what ran")
"""What no plain node can give, as the roster says it."""


class Phase(enum.Enum):
    """How far an attempt on a plain node is, as far as that must outlive us."""

    SENT = "sent"  # it may have been heard; nobody knows its status URL
    LIVE = "live"  # followed, until its end is on record
    UNWANTED = "unwanted"  # cancelled or superseded: it runs on, and has its slot until it ends
    DONE = "done"  # its end is on record; log and artifact can be had


class PlainAttempt(Struct, frozen=True):
    """One attempt that a plain node was given."""

    build: str
    attempt: int
    node: str  # id of the plain node
    names: tuple[str, ...]  # of the commands that it was given
    since: float  # seconds since the epoch: when it was given, or is unwanted
    phase: Phase = Phase.SENT
    status: str = ""  # path and query of its status URL on the node
    image: str = ""  # path and query of its image, where there is one
    artifact: Artifact | None = None  # the image, when it was counted
    seen: int = 0  # bytes of its log that were told of
    digest: str = ""  # of these bytes, SHA-256: a server that tells others has forgotten the build

    @property
    def key(self) -> tuple[str, int]:
        """Build and attempt: no two nodes have the same."""
        return (self.build, self.attempt)


def beyond(request: BuildRequest) -> str:
    """What the build asks that the documented API cannot express; empty where it can be given to a
    plain node.
    """
    recipe, guidance = request.recipe, request.guidance
    if not isinstance(recipe.base, ImageBase):
        return "any base but a container image"
    if recipe.base.pull != "missing" or recipe.base.credentials is not None:
        return "how an image is pulled"
    if recipe.inputs:
        return "inputs"
    if request.secrets:
        return "secrets"
    if not isinstance(recipe.output, IsoOutput):
        return "any output but an ISO image"
    if len(recipe.commands) > 1 and not recipe.keep_going:
        return "an end at the first command that fails"
    if guidance.keep is not None:
        return "how long the result is kept"
    if guidance.needs != Needs():
        return f"needs ({', '.join(_differing(guidance.needs))})"
    return next(filter(None, map(_beyond_command, recipe.commands)), "")


def _beyond_command(command: Command) -> str:
    if command.environment:
        return f"an environment (of the command {command.name[:64]!r})"
    if command.time_limit is not None:
        return f"time limits (of the command {command.name[:64]!r})"
    return ""


def _differing(needs: Needs) -> list[str]:
    plain = Needs()
    return [
        name for name in Needs.__struct_fields__ if getattr(needs, name) != getattr(plain, name)
    ]

"""What a node that starts again does with a build that it had not ended."""

import enum

from protocol.model.build import Build, Stage
from protocol.model.recipe import ImageOutput


class Way(enum.Enum):
    """How to go on."""

    WAIT = "wait"  # a client's build that waits for a slot
    BEGIN = "begin"  # nothing of it has run: from the beginning
    GO_ON = "go on"  # its container is there, running or ended
    GIVE_UP = "give up"  # it ran, and its container is gone


def way_on(build: Build, *, direct: bool, has_container: bool, has_folder: bool) -> Way:
    """`direct`: a client's build, not a scheduler's; `has_container`: one that was started;
    `has_folder`: its work folder is whole.
    """
    if has_container:
        return Way.GO_ON if has_folder else Way.GIVE_UP
    if build.stage in (Stage.RUNNING, Stage.COLLECTING):
        never_runs = isinstance(build.request.recipe.output, ImageOutput)
        return Way.BEGIN if never_runs else Way.GIVE_UP
    if direct and build.stage is Stage.QUEUED:
        return Way.WAIT
    return Way.BEGIN

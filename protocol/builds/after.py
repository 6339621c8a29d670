"""What may be done with a build that has stopped, and how long it lasts. Node and scheduler go by
the same rules.
"""

from protocol.errors import Conflict
from protocol.model.build import Build, Stage
from protocol.model.record import Record
from protocol.model.request import BuildRequest, Secrets
from protocol.ports.service import Caller


def to_repeat(build: Build, secrets: Secrets | None) -> BuildRequest:
    """The request of a build that has stopped, for a new one. Raises Conflict."""
    _check_stopped(build, "repeated")
    if build.request.secrets and not secrets:
        names = ", ".join(build.request.secrets)
        raise Conflict(
            "it had secrets, which are not kept",
            field="secrets",
            expected=f"the values of: {names}",
        )
    return build.request


def check_deletable(record: Record, caller: Caller) -> None:
    """Raises Conflict where the build has not stopped, is pinned, or was placed here by a scheduler
    that has not heard of its end: it would be run again.
    """
    build, forward = record.build, record.forward
    _check_stopped(build, "deleted")
    if build.pinned:
        raise Conflict("it is pinned", field="id", expected="a build that is not pinned")
    if forward and not record.acknowledged and caller.program != forward.origin:
        raise Conflict(
            "the scheduler that placed it here has not heard of its end yet",
            field="id",
            expected="to be deleted there, or later",
        )


def lasts_until(build: Build, keep: float) -> float | None:
    """When a build's log and artifacts go, seconds since the epoch; None: not yet known, or never.
    `keep`: seconds after its end, unless the build says otherwise.
    """
    if build.pinned or build.stopped is None:
        return None
    wanted = build.request.guidance.keep
    return build.stopped + (keep if wanted is None else wanted)


def record_lasts_until(build: Build, keep: float) -> float | None:
    """When nothing is known of it any more: no sooner than `keep` seconds after its end, nor than
    its log and artifacts go.
    """
    files = lasts_until(build, keep)
    return None if files is None or build.stopped is None else max(files, build.stopped + keep)


def _check_stopped(build: Build, verb: str) -> None:
    if build.stage is not Stage.STOPPED:
        raise Conflict(
            f"it is {build.state.value} and cannot be {verb}",
            field="id",
            expected="a build that has stopped",
        )

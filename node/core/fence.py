"""Whether a forward is taken, decided from what the node has seen of the build."""

from protocol.errors import Conflict
from protocol.model.build import Build
from protocol.model.messages import PATH_LIMIT
from protocol.model.request import Forward


def admits(known: Build | None, forward: Forward) -> bool:
    """True: it is to be begun, in place of what is `known`. False: it is here already, whatever
    became of it. Raises Conflict: another scheduler's build, a number lower than one seen, or a way
    that is too long.
    """
    if known is not None and known.origin != forward.origin:
        raise Conflict("this build is another scheduler's", field="forward.origin")
    if known is not None and forward.attempt < known.attempt:
        raise Conflict(
            f"attempt {known.attempt} of this build is here already",
            field="forward.attempt",
            expected=f"over {known.attempt}",
        )
    if known is not None and forward.attempt == known.attempt:
        return False
    if len(forward.path) > PATH_LIMIT:
        raise Conflict(
            f"it came by {len(forward.path)} schedulers",
            field="forward.path",
            expected=f"at most {PATH_LIMIT}",
        )
    return True

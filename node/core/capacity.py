"""Whether the node takes builds: ready, or busy with the reason in words."""

from msgspec import Struct


class Facts(Struct, frozen=True):
    """What the decision goes by."""

    slots: int
    used: int  # builds that run or are about to
    waiting: int = 0  # builds given to this node directly that wait
    leaving: bool = False
    resuming: bool = False
    engine_problem: str = ""
    network_problem: str = ""
    disk_free: int = 0  # bytes
    disk_reserve: int = 0  # bytes


def capacity(facts: Facts) -> tuple[str, str]:
    """("ready", "") or ("busy", reason)."""
    reason = _reason(facts)
    return ("busy", reason) if reason else ("ready", "")


def _reason(facts: Facts) -> str:
    if facts.leaving:
        return _leaving(facts.used)
    if facts.engine_problem:
        return facts.engine_problem
    if facts.network_problem:
        return facts.network_problem
    if facts.resuming:
        return "it goes on with the builds of its earlier life"
    if facts.slots == 0:
        return "it has no slots"
    if facts.used >= facts.slots:
        return "its slot is used" if facts.slots == 1 else f"all {facts.slots} slots are used"
    if facts.waiting:
        return f"{facts.waiting} builds of its own wait"
    if facts.disk_free < facts.disk_reserve:
        return f"its disk is full: {facts.disk_free >> 20} MiB free"
    return ""


def _leaving(used: int) -> str:
    return f"it shuts down when its builds have ended: {used}" if used else "it is shutting down"

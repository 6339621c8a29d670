"""Builds and nodes in words, for people."""

import time
from collections.abc import Callable, Sequence

from protocol.model.build import Build, State, Usage
from protocol.model.messages import Explanation, Report, Roster, RosterEntry

_CLOCKS_DIFFER = 5.0
"""Seconds."""


Paint = Callable[[str], str]
"""A state's word, perhaps padded -> the same in its colour."""


def plain(word: str) -> str:
    """No colour."""
    return word


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor or change its colours."""
    return "".join(character if character.isprintable() else "?" for character in text)


def ending(build: Build) -> str:
    """How a build ended, in a line."""
    words = f"build {build.id} {status(build)}"
    if build.started and build.stopped:
        words += f" after {build.stopped - build.started:.1f} s"
    if build.node is not None:
        words += f" on {build.node.name}"
    why = reason(build)
    return words + (f": {why}" if why else "")


def reason(build: Build) -> str:
    """Why it is as it is, where that says more than its state does."""
    return "" if build.reason == f"it was {status(build)}" else build.reason


def status(build: Build) -> str:
    """The result of a stopped build, else its state."""
    return build.result.value if build.result else build.state.value


def doing(build: Build) -> str:
    """What a build does now, in a line."""
    if build.state is State.WAITING:
        return f"waiting: {build.reason}" if build.reason else "waiting"
    own = [command for command in build.commands if not command.added]
    node = f" on {build.node.name}" if build.node else ""
    for number, command in enumerate(own, 1):
        if command.state is State.RUNNING:
            return f"command {number} of {len(own)}{node}: {command.name}"
    return f"{build.stage.value}{node}"


def build_table(builds: Sequence[Build], paint: Paint = plain) -> str:
    """Builds, a line each."""
    rows = [
        (
            build.id,
            status(build),
            build.node.name if build.node else "-",
            age(time.time() - build.created),
            build.owner or "-",
            build.request.guidance.note[:40] or ", ".join(c.name for c in build.commands)[:40],
        )
        for build in builds
    ]
    return table(("ID", "STATUS", "NODE", "AGE", "OWNER", "WHAT"), rows, paint)


def build_card(build: Build, explanation: Explanation, paint: Paint = plain) -> str:
    """One build, with its commands and history."""
    guidance = build.request.guidance
    lines = [f"build     {build.id}", f"status    {paint(build.state.value)}"]
    if build.result is not None:
        lines.append(f"result    {paint(build.result.value)}")
    if build.node is not None:
        lines.append(f"node      {build.node.name} (attempt {build.attempt})")
    lines += _times(build)
    lines += [f"owner     {build.owner}"] * bool(build.owner)
    lines += [f"note      {printable(guidance.note)}"] * bool(guidance.note)
    lines += [f"label     {name}={printable(text)}" for name, text in guidance.labels.items()]
    lines += [f"retry of  {build.retry_of}"] * bool(build.retry_of)
    lines += ["pinned    until it is unpinned"] * build.pinned
    lines += _why(explanation)
    number = 0
    for command in build.commands:
        number += not command.added
        code = "" if command.exit_code is None else f", exit code {command.exit_code}"
        which = "step     " if command.added else f"command {number}"
        lines.append(f"{which} {printable(command.name)}: {command.state.value}{code}")
    for artifact in build.artifacts:
        digest = "still being made" if artifact.growing else f"sha256 {artifact.sha256}"
        lines.append(f"artifact  {artifact.name}, {size(artifact.size)}, {digest}")
    lines += [f"used      {used(build.usage)}"] if build.usage is not None else []
    return "\n".join(lines + _history(explanation))


def _times(build: Build) -> list[str]:
    lines = [f"created   {moment(build.created)}"]
    if build.started is not None:
        waited = age(build.started - build.created)
        lines.append(f"started   {moment(build.started)}, after {waited}")
    if build.stopped is not None:
        took = "" if build.started is None else f", after {age(build.stopped - build.started)}"
        lines.append(f"stopped   {moment(build.stopped)}{took}")
    return lines


def moment(at: float) -> str:
    """Seconds since the epoch as a date and time of day, here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def used(usage: Usage) -> str:
    """What a build used."""
    return (
        f"{usage.cpu:.1f} s of processors, {size(usage.memory)} of memory, {size(usage.disk)} of"
        f" files; read {size(usage.read)}, wrote {size(usage.written)}"
    )


def explained(explanation: Explanation, paint: Paint = plain) -> str:
    """Why a build waits, or what happened to it; one that is not made yet has no status."""
    lines = [f"status    {paint(explanation.status.value)}"] * bool(explanation.id)
    return "\n".join(lines + _why(explanation) + _history(explanation))


def _why(explanation: Explanation) -> list[str]:
    lines = [f"reason    {printable(explanation.reason)}"] * bool(explanation.reason)
    if explanation.place is not None:
        soon = explanation.estimate
        likely = "" if soon is None else f", likely to begin in {age(soon)}"
        lines.append(f"queue     place {explanation.place}{likely}")
    return lines + [f"  {refusal.name}: {refusal.reason}" for refusal in explanation.refusals]


EVENTS = {
    "place": "placed",
    "decline": "declined by the node",
    "adopt": "found on a node",
    "prepare": "getting ready",
    "run": "running",
    "collect": "collecting the result",
    "lose": "lost, waiting again",
    "succeed": "succeeded",
    "fail": "failed",
    "cancel": "cancelled",
    "time_out": "timed out",
    "give_up": "given up",
    "refuse": "refused",
}
"""What happened to a build, as its history has it -> the same in words."""


def _history(explanation: Explanation) -> list[str]:
    """Each step; what the last one came of is the reason, and was said."""
    lines = []
    for step in explanation.history:
        cause = "" if step.cause == explanation.reason else f": {printable(step.cause)}"
        said = EVENTS.get(step.event, step.event)
        lines.append(f"  {moment(step.at)} {said}{cause if step.cause else ''}")
    return lines


def report(told: Report, paint: Paint = plain) -> str:
    """What a program states of itself, in a line."""
    words = f"{told.role} {told.name}, version {told.version}: {paint(told.status)}"
    words += f", {told.used} of {told.slots} slots used"
    return words + (f": {told.reason}" if told.reason else "")


def node_table(roster: Roster, paint: Paint = plain) -> str:
    """Nodes, a line each."""
    rows = [
        (
            node.name or node.url,
            node.state,
            "-" if node.priority is None else str(node.priority),
            f"{node.used}/{node.slots}",
            "-" if node.last_seen is None else f"{node.last_seen:.0f} s",
            "+".join(node.found),
            node.url,
            "; ".join(filter(None, (node.reason, clock(node.clock), lacks(node)))),
        )
        for node in roster.nodes
    ]
    heads = ("NAME", "STATE", "PRIORITY", "SLOTS", "SEEN", "FOUND", "URL", "REASON")
    return table(heads, rows, paint) if rows else "no node was found yet"


def on_node(node: RosterEntry) -> str:
    """What keeps a node from being empty."""
    count = max(len(node.builds), node.used)
    builds = f"still has {count} {'build' if count == 1 else 'builds'}"
    return builds if node.state == "cordoned" else f"is {node.state}: {node.reason}"


def clock(ahead: float | None) -> str:
    """How far a node's clock differs, where that is worth a word."""
    if ahead is None or abs(ahead) < _CLOCKS_DIFFER:
        return ""
    return f"its clock is {age(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"


def lacks(node: RosterEntry) -> str:
    """What kind of node it is, and what it cannot give, where it is not one of ours."""
    return f"a {node.kind} node, without {', '.join(node.lacks)}" if node.kind else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], paint: Paint = plain) -> str:
    """Columns as wide as their widest cell; the second one, with states, is painted."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        if row is not heads:
            cells[1] = paint(cells[1])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def age(seconds: float) -> str:
    """A time span for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

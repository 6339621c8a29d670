"""How builds and nodes look on a terminal and in a pipe."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import click

from protocol.messages import Explanation, Roster, RosterEntry
from protocol.model import Build

_CLOCKS_DIFFER = 5.0
"""Seconds."""


def note(line: str) -> None:
    """A line about what happens, beside the output proper."""
    click.echo(line, err=True)


def ending(build: Build) -> str:
    """How a build ended, in a line."""
    result = build.result.value if build.result else build.state.value
    words = f"build {build.id} {result}"
    if build.started and build.stopped:
        words += f" after {build.stopped - build.started:.1f} s"
    if build.node is not None:
        words += f" on {build.node.name}"
    return words + (f": {build.reason}" if build.reason else "")


def build_table(builds: Sequence[Build]) -> str:
    """Builds, a line each."""
    rows = [
        (
            build.id,
            build.result.value if build.result else build.state.value,
            build.node.name if build.node else "-",
            age(time.time() - build.created),
            build.request.guidance.note or ", ".join(c.name for c in build.commands)[:40],
        )
        for build in builds
    ]
    return table(("ID", "STATUS", "NODE", "AGE", "COMMANDS"), rows)


def build_card(build: Build, explanation: Explanation) -> str:
    """One build, with its commands and history."""
    lines = [f"build     {build.id}", f"status    {build.state.value}"]
    if build.result is not None:
        lines.append(f"result    {build.result.value}")
    if build.node is not None:
        lines.append(f"node      {build.node.name} (attempt {build.attempt})")
    if explanation.reason:
        lines.append(f"reason    {explanation.reason}")
    if explanation.place is not None:
        soon = explanation.estimate
        likely = "" if soon is None else f", likely to begin in {age(soon)}"
        lines.append(f"queue     place {explanation.place}{likely}")
    for refusal in explanation.refusals:
        lines.append(f"  {refusal.name}: {refusal.reason}")
    for command in build.commands:
        code = "" if command.exit_code is None else f", exit code {command.exit_code}"
        lines.append(f"command   {command.name}: {command.state.value}{code}")
    for artifact in build.artifacts:
        lines.append(f"artifact  {artifact.name}, {size(artifact.size)}, sha256 {artifact.sha256}")
    for step in build.history:
        moment = time.strftime("%H:%M:%S", time.localtime(step.at))
        lines.append(f"  {moment} {step.event} {step.cause}".rstrip())
    return "\n".join(lines)


def node_table(roster: Roster) -> str:
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
    return table(heads, rows) if rows else "no node was found yet"


def clock(ahead: float | None) -> str:
    """How far a node's clock differs, where that is worth a word."""
    if ahead is None or abs(ahead) < _CLOCKS_DIFFER:
        return ""
    return f"its clock is {age(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"


def lacks(node: RosterEntry) -> str:
    """What kind of node it is, and what it cannot give, where it is not one of ours."""
    return f"a {node.kind} node, without {', '.join(node.lacks)}" if node.kind else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    )


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


@contextlib.contextmanager
def progress(what: str, there: int, whole: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=whole, completed=there)
        yield lambda count: bar.advance(task, count)

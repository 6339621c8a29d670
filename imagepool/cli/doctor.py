"""`doctor`: what stands in the way of a program on this machine."""

import asyncio
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagepool.cli import terminal
from imagepool.cli.connect import as_json as json_flag
from imagepool.cli.connect import failing
from imagepool.cli.exits import FAILED
from imagepool.cli.programs import FLAGS, given, options
from imagepool.cli.watch import print_json
from imagepool.cli.words import printable

if TYPE_CHECKING:
    from imagepool.doctor.finding import Finding, Program, Subject

_STYLES: dict[str, dict[str, Any]] = {
    "ok": {"fg": "green"},
    "warn": {"fg": "yellow"},
    "fail": {"fg": "red"},
}
_LEAST, _MOST = 60, 110  # columns of a line
_ONLY_SCHEDULER = tuple(option for option in FLAGS["scheduler"] if option not in FLAGS["node"])


@click.command(
    epilog="""\b
Examples:
  imagepool doctor
  imagepool doctor --join TOKEN --scheduler https://192.0.2.1:8081
  imagepool doctor --program scheduler --config scheduler.toml

Exit codes: 0 nothing stands in the way, 1 something does, 2 wrong usage."""
)
@click.option(
    "--program",
    type=click.Choice(["node", "scheduler"]),
    help="Which to look at; else the one whose folder or flags are here, else the node.",
)
@click.option("--url", envvar="IMAGEPOOL_URL", metavar="URL", help="Look for the scheduler there.")
@options(FLAGS["node"], _ONLY_SCHEDULER)
@json_flag
def doctor(
    program: "Program | None", url: str | None, config: Path | None, as_json: bool, **flags: Any
) -> None:
    """Say what stands in the way of the node, or scheduler, on this machine. Give it the flags
    that the program is started with. It changes nothing, and prints no secret.

    Each line is a check: ok, warn or fail, what was found, and behind -> what mends it.
    """
    with failing(as_json=as_json):
        told = given(flags)
        chosen = program or _meant(config, told)
        subject, findings = asyncio.run(_examined(chosen, config, told, url or ""))
        healthy = not any(finding.status.value == "fail" for finding in findings)
        if as_json:
            folder = str(subject.folder) if subject else None
            print_json({"program": chosen, "data": folder, "healthy": healthy, "checks": findings})
        else:
            _print(chosen, subject, findings, healthy)
        raise SystemExit(0 if healthy else FAILED)


def _meant(config: Path | None, flags: Mapping[str, Any]) -> "Program":
    """The program that somebody means who does not say it."""
    from protocol.program.settings import ProgramSettings, data_folder
    from scheduler.config import SchedulerSettings
    from scheduler.pool.authority import FOLDER
    from scheduler.stores.sqlite import FILE

    if flags.keys() & (set(SchedulerSettings.__struct_fields__) - _of_nodes()):
        return "scheduler"
    if flags.keys() & (_of_nodes() - set(SchedulerSettings.__struct_fields__)):
        return "node"
    if "data" in flags:
        folder = Path(flags["data"])
        kept = any((folder / each).exists() for each in (FOLDER, FILE))
        return "scheduler" if kept else "node"
    if config is not None and (table := _only_table(config)):
        return table
    usual = ProgramSettings()
    there = {
        name: any(
            os.path.exists(folder)
            for folder in (data_folder(usual, name), data_folder(usual, "up") / name)
        )
        for name in ("node", "scheduler")
    }
    return "scheduler" if there["scheduler"] and not there["node"] else "node"


def _of_nodes() -> set[str]:
    from node.config import NodeSettings

    return set(NodeSettings.__struct_fields__)


def _only_table(config: Path) -> "Program | None":
    """The program that a file of settings is for, where it is for one; what is wrong with the file
    is found later.
    """
    import tomllib

    try:
        tables = set(tomllib.loads(config.read_text("utf-8")))
    except (OSError, ValueError):
        return None
    return "scheduler" if tables == {"scheduler"} else "node" if tables == {"node"} else None


async def _examined(
    program: "Program", config: Path | None, flags: Mapping[str, Any], url: str
) -> "tuple[Subject | None, tuple[Finding, ...]]":
    from imagepool.doctor.configuration import configured
    from imagepool.doctor.examining import examine, subject_of

    settings, finding = configured(program, config, flags)
    if settings is None:
        return None, (finding,)
    subject = subject_of(program, settings, url)
    screen = terminal.Screen()
    screen.now(f"looking at the {program} on this machine ...")
    try:
        return subject, (finding, *await examine(subject))
    finally:
        screen.close()


def _print(
    program: str, subject: "Subject | None", findings: "tuple[Finding, ...]", healthy: bool
) -> None:
    where = f", {subject.folder}" if subject else ""
    click.echo(f"{program} on this machine{where}\n")
    width = max(len(finding.check) for finding in findings)
    columns = min(max(shutil.get_terminal_size().columns, _LEAST), _MOST)
    room = columns if terminal.is_terminal(sys.stdout) else 10_000
    for finding in findings:
        word = finding.status.value
        painted = terminal.coloured(word.ljust(4), sys.stdout, **_STYLES[word])
        check = printable(finding.check).ljust(width)
        indent = " " * (8 + width)
        lines = textwrap.wrap(printable(finding.found), room - len(indent)) or [""]
        if finding.remedy:
            mend = f"-> {printable(finding.remedy)}"
            lines += textwrap.wrap(mend, room - len(indent), subsequent_indent="   ")
        first, *more = lines
        click.echo("\n".join((f"{painted}  {check}  {first}", *(indent + line for line in more))))
    click.echo("\n" + _verdict(findings, healthy))


def _verdict(findings: "tuple[Finding, ...]", healthy: bool) -> str:
    count = sum(finding.status.value == "fail" for finding in findings)
    if healthy:
        return "nothing stands in the way"
    return f"{count} {'thing stands' if count == 1 else 'things stand'} in the way"

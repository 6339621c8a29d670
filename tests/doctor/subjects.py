"""Programs for the doctor to look at, on loopback and without an engine."""

from pathlib import Path
from typing import Any

from imagepool.doctor.finding import Finding, Program, Status, Subject
from imagepool.doctor.lan import Lan
from node.config import NodeSettings
from scheduler.config import SchedulerSettings

HERE = "127.0.0.1:0"


def a_subject(
    folder: Path, program: Program = "node", *, url: str = "", clock: Any = None, **settings: Any
) -> Subject:
    """One with these settings; `clock` in place of this machine's."""
    own = {"listen": HERE, "mdns": False, "data": str(folder), **settings}
    chosen: Any
    if program == "node":
        quiet = {"engine": "dummy", "pool_listen": HERE, "disk_reserve": 0, "build_network": "open"}
        chosen = NodeSettings(**{**quiet, **own})
    else:
        chosen = SchedulerSettings(**own)
    more = {"now": clock} if clock else {}
    return Subject(program, chosen, folder, Lan(chosen, search=0.5), url, **more)


def told(findings: tuple[Finding, ...], check: str) -> Finding:
    """What was found of one check; there is one finding of it, and it has a remedy unless all is
    well.
    """
    (found,) = [finding for finding in findings if finding.check == check]
    assert bool(found.remedy) == (found.status is not Status.OK)
    for line in (found.found, found.remedy):
        assert "\n" not in line
    return found


def fails(findings: tuple[Finding, ...], check: str) -> tuple[str, str]:
    """(what was found, what mends it) of a check that stands in the way."""
    found = told(findings, check)
    assert found.status is Status.FAIL, found
    return found.found, found.remedy


def is_ok(findings: tuple[Finding, ...], check: str) -> str:
    """What was found of a check that is well."""
    found = told(findings, check)
    assert found.status is Status.OK, found
    return found.found


def warns(findings: tuple[Finding, ...], check: str) -> tuple[str, str]:
    """(what was found, what mends it) of a check that tells of something."""
    found = told(findings, check)
    assert found.status is Status.WARN, found
    return found.found, found.remedy

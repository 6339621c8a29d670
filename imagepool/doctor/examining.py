"""The table of checks, and running them: all together, each with its time limit."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from imagepool.doctor.engines import engine
from imagepool.doctor.finding import Finding, Program, Status, Subject, fail
from imagepool.doctor.lan import Lan, neighbours
from imagepool.doctor.machine import addresses, callers, data_folder, ports
from imagepool.doctor.papers import papers
from imagepool.doctor.schedulers import schedulers
from protocol.errors import PoolError
from protocol.program.settings import data_folder as folder_of

BOTH: tuple[Program, ...] = ("node", "scheduler")


class Check(Struct, frozen=True):
    """One look."""

    name: str
    look: Callable[[Subject], Awaitable[tuple[Finding, ...]]]
    limit: float  # seconds
    remedy: str  # where it took longer
    programs: tuple[Program, ...] = BOTH


CHECKS = (
    Check("data folder", data_folder, 5.0, "its disk, or the server that it is on, hangs"),
    Check("key and certificate", papers, 5.0, "the disk of the data folder hangs"),
    Check("who may call", callers, 5.0, "the disk of the data folder hangs"),
    Check("engine", engine, 10.0, "systemctl restart docker", ("node",)),
    Check("ports", ports, 5.0, "name addresses, and no host names, by --listen"),
    Check("addresses", addresses, 5.0, "name an address, and no host name, by --listen"),
    Check("mDNS", neighbours, 10.0, "--no-mdns, and --scheduler URL"),
    Check("scheduler", schedulers, 20.0, "see the scheduler's log", ("node",)),
)
"""In the order in which they are told."""


def subject_of(program: Program, settings: Any, url: str = "") -> Subject:
    """The program as it would be started with these settings; where it has no data folder but
    `imagepool up` has one for it, that one.
    """
    folder = folder_of(settings, program)
    beside = folder_of(settings, "up") / program
    if not settings.data and not _is_there(folder) and _is_there(beside):
        folder = beside
    return Subject(program, settings, folder, Lan(settings), url)


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:
        return False


async def examine(subject: Subject, checks: tuple[Check, ...] = CHECKS) -> tuple[Finding, ...]:
    """What every check of this program finds, in order."""
    wanted = (check for check in checks if subject.program in check.programs)
    found = await asyncio.gather(*(_looked(check, subject) for check in wanted))
    return tuple(finding for findings in found for finding in findings)


async def _looked(check: Check, subject: Subject) -> tuple[Finding, ...]:
    """Whatever comes of it is a finding."""
    try:
        async with asyncio.timeout(check.limit):
            return await check.look(subject)
    except TimeoutError:
        words = f"it could not be seen in {check.limit:g} s"
        return (fail(check.name, words, check.remedy),)
    except PoolError as error:
        return (fail(check.name, error.detail, f"expected: {error.expected or 'otherwise'}"),)
    except OSError as error:
        words = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return (fail(check.name, words, "run this as the user that the program runs as"),)


def in_the_way(findings: tuple[Finding, ...]) -> bool:
    """Whether anything has to be mended."""
    return any(finding.status is Status.FAIL for finding in findings)

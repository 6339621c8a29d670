"""The programs under measurement, each a process of its own on loopback, and what they use."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService

_START = 60.0  # seconds that a program may take to serve
_TICKS = os.sysconf("SC_CLK_TCK")


class Running(Struct, frozen=True):
    """A program that serves."""

    url: str
    pid: int


@contextlib.asynccontextmanager
async def program(
    folder: Path,
    kind: str,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    start: Sequence[str] = ("-m", "imagepool"),
) -> AsyncIterator[Running]:
    """`imagepool scheduler` or `imagepool node` while the context lasts. `start`: what Python is
    given to run it.
    """
    log = folder / f"{kind}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *start, kind, "--listen", "127.0.0.1:0", "--no-mdns"),
            *("--data", str(folder / kind), "--name", f"bench-{kind}", "--pool", "bench", *flags),
            stdout=PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START):
            line = (await process.stdout.readline()).decode().split()
        if line[:1] != ["ready"]:
            raise RuntimeError(f"the {kind} did not start:\n{log.read_text()[-2000:]}")
        yield Running(line[1], process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def free_slot(client: HttpService) -> None:
    """Return when all slots of the scheduler's nodes are free, and there is one."""
    async with asyncio.timeout(_START):
        report = await client.status(LOCAL)
        while not report.slots or report.used:
            report = await client.status(LOCAL, after=report.token, wait=5)


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int, line: str = "VmRSS") -> float:
    """MiB of memory that a process has now; or what another line of its status says."""
    for said in Path(f"/proc/{pid}/status").read_text().splitlines():
        if said.startswith(f"{line}:"):
            return int(said.split()[1]) / 1024
    raise OSError(f"process {pid} has no memory of its own")


def peak_memory(pid: int) -> float:
    """MiB of memory that it had at its largest since the last `forget_peak`."""
    return memory(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Count the peak of memory anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")

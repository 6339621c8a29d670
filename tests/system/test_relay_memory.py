"""The relay's memory stays flat over a large artifact."""

import asyncio
import hashlib
import re
import sys
from pathlib import Path

import pytest

from protocol.model.build import Result
from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL
from tests.programs import a_client, ended, request
from tests.system.processes import Process

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=240)]

SIZE = 2 << 30
_FLAT = 48 << 20  # bytes that the scheduler may grow by


def resident(process: Process) -> int:
    """Bytes of memory that a process has in use."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10


def started(kind: str, folder: Path, *flags: str) -> tuple[Process, str]:
    """A program and its URL."""
    common = ["--listen", "127.0.0.1:0", "--no-mdns", "--data", str(folder / kind)]
    process = Process(kind, [sys.executable, "-m", "imagepool", kind, *common, *flags])
    match, _ = process.line(r"ready (\S+)")
    return process, match[1]


async def test_the_relays_memory_stays_flat(tmp_path, figures) -> None:
    """2 GiB through the scheduler, then two readers at once of which one reads slowly: the
    digest is right.
    """
    node, node_url = started("node", tmp_path, "--engine", "dummy")
    scheduler, url = started("scheduler", tmp_path, "--node", node_url)
    try:
        async with a_client(url) as client:
            wanted = request(f"artifact {SIZE}", output=IsoOutput())
            build = await ended(client, (await client.submit(LOCAL, wanted)).id, 120)
            assert build.result is Result.SUCCEEDED
            (artifact,) = build.artifacts
            before = resident(scheduler)
            most = before
            digest = hashlib.sha256()
            slow = await client.open_artifact(LOCAL, build.id, artifact.name)
            opened = await client.open_artifact(LOCAL, build.id, artifact.name)
            received = 0
            async for piece in opened.stream:
                digest.update(piece)
                received += len(piece)
                most = max(most, resident(scheduler))
            await slow.stream.close()
            await asyncio.sleep(0)
            assert received == SIZE
            assert digest.hexdigest() == artifact.sha256
            figures(
                f"relay of {SIZE >> 30} GiB: the scheduler's memory was {before >> 20} MiB before, "
                f"{most >> 20} MiB at most"
            )
            assert most - before < _FLAT
    finally:
        scheduler.end()
        node.end()

"""While somebody floods a node or a scheduler, running as processes, others are answered."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.shell import clean
from tests.system.processes import Process
from tests.trust import floods

pytestmark = [pytest.mark.gen_test(timeout=120), pytest.mark.slow]

LATE = 1.0
"""Seconds in which `GET /status` is answered, whatever happens; those apart in which the program
had work to do and the machine's processors did that of others.
"""
SECONDS = 3.0
"""For which a flood goes on."""


@contextmanager
def program(kind: str, folder: Path, **settings: object) -> Iterator[tuple[Process, int]]:
    """A program as a process, and its port."""
    own = {"listen": "127.0.0.1:0", "mdns": "false", "data": folder, **settings}
    if kind == "node":
        own |= {"engine": "dummy", "disk_reserve": 0}
    environment = clean({f"IMAGEPOOL_{name.upper()}": str(value) for name, value in own.items()})
    process = Process(kind, [sys.executable, "-m", "imagepool", kind], environment=environment)
    try:
        match, _ = process.line(r"ready http://127\.0\.0\.1:(\d+)")
        yield process, int(match[1])
    finally:
        process.end()


def held_up(process: Process) -> float:
    """Seconds that a program, and we who ask, have waited for a processor, ever (`schedstat`)."""
    files = (Path(f"/proc/{pid}/schedstat") for pid in (process.pid, "thread-self"))
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


async def status(port: int, process: Process | None = None) -> float:
    """Seconds until `GET /status` was answered well, on a connection of its own; without those that
    it took to get a processor.
    """
    waited = held_up(process) if process else 0.0
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    lost = held_up(process) - waited if process else 0.0
    return time.monotonic() - began - lost


async def asked_while(
    program: tuple[Process, int], attack: str | int, seconds: float, said: str = "begun"
) -> list[float]:
    """How long each answer took while that went on, for so many seconds after it said this."""
    asked, port = program
    await status(port)
    flood = (sys.executable, "-m", "tests.trust.floods", str(attack), str(port))
    process = Process(f"flood {attack}", flood, environment=clean({}))
    took: list[float] = []
    try:
        await asyncio.to_thread(process.line, said, 60.0)
        if said != "begun":
            await status(port)  # behind all those: now they have been let in
        began = time.monotonic()
        while len(took) < 2 or time.monotonic() < began + seconds:
            took.append(await status(port, asked))
            await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(process.end)
    return took


@pytest.mark.parametrize("kind", ["node", "scheduler"])
@pytest.mark.parametrize("attack", floods.ATTACKS)
async def test_floods(kind, attack, tmp_path) -> None:
    """Slow headers, endless headers and bodies, too much of everything."""
    with program(kind, tmp_path, header_time=1.0) as asked:
        took = await asked_while(asked, attack, SECONDS)
    assert max(took) <= LATE


@pytest.mark.parametrize("kind", ["node", "scheduler"])
async def test_ten_thousand_idle_connections(kind, tmp_path) -> None:
    """All kept, by a program that may have as many."""
    limits = {"connections": 12_000, "connections_per_address": 12_000, "header_time": 100.0}
    with program(kind, tmp_path, **limits) as asked:
        took = await asked_while(asked, 10_000, SECONDS, "opened 10000")
        assert max(took) <= LATE
        assert "idle ones make room" not in asked[0].words()


async def test_one_that_floods_is_told_of(tmp_path) -> None:
    """In the log, once a minute."""
    with program("node", tmp_path, connections_per_address=20) as (process, port):
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        pattern = r".* WARNING .*127\.0\.0\.1 has 20 connections: idle ones make room.*"
        await asyncio.to_thread(process.line, pattern)
        await status(port)
        assert process.words().count("make room") == 1
        for _, writer in opened:
            writer.transport.abort()

"""New builds written down by the scheduler's store, beside appends of the same bytes with an
fdatasync after each: what one caller can have, and what many gain by sharing a sync.

At the store's interface, in this process; `bench/create.py` says what a store costs behind HTTP.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from bench.measure import Column, Outcome, Sample, Side, interleaved, typical
from protocol.model.build import build_id, new_build
from protocol.model.recipe import Command, ImageBase, Recipe
from protocol.model.record import Record
from protocol.model.request import BuildRequest, Guidance
from scheduler.stores import open_store
from scheduler.stores.base import Store

AIMS = {1: 0.7, 32: 3.0}
"""Callers at a time -> how many times the rate of plain appends they should reach in all."""
DISK = Path("/var/tmp")
"""Where the data lies: /tmp may be in memory."""
WRITES = {1: 1000, 8: 4000, 32: 8000}
"""Callers at a time -> writes of all of them in one run."""
RAW = "append, fdatasync"
COLUMNS = (
    Column("rate", "writes/s", ratio=True),
    Column("median", "median, ms", digits=2),
    Column("slow", "99%, ms", digits=2),
)
_PER_SECOND = 3000  # builds, going by their ids
_SCRIPT = """#!/bin/sh
set -eu
apt-get update
apt-get install -y --no-install-recommends live-build squashfs-tools xorriso grub-efi-amd64-bin
lb config --distribution bookworm --debian-installer none --archive-areas "main contrib"
"""


async def run(runs: int) -> Outcome:
    """Measure."""
    async with contextlib.AsyncExitStack() as ending:
        folder = Path(
            ending.enter_context(tempfile.TemporaryDirectory(prefix="imagepool-bench-", dir=DISK))
        )
        # One store and one file for all runs: the log beside a store that is in use is written
        # over, not appended to.
        kept, forgotten = open_store("", folder), open_store("memory:", folder)
        ending.push_async_callback(kept.close)
        ending.push_async_callback(forgotten.close)
        descriptor = os.open(folder / "appended", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        ending.callback(os.close, descriptor)
        sides: dict[str, Side] = {RAW: lambda: _appended(descriptor)}
        for callers in WRITES:
            sides[_name(callers)] = _side(kept, callers)
        sides["memory, 32 callers"] = _side(forgotten, 32)
        samples = await interleaved(sides, runs)
    raw = typical(samples, RAW, "rate") or 1
    notes = [
        f"{_name(callers)}: {(typical(samples, _name(callers), 'rate') or 0) / raw:.2f} times the "
        f"rate of plain appends (aim: at least {aim})"
        for callers, aim in AIMS.items()
    ]
    title = f"A new build of {len(_bytes(_records(1)[0]))} bytes written to {DISK}"
    return Outcome(title, COLUMNS, samples, tuple(notes))


def _name(callers: int) -> str:
    return f"store, {callers} caller{'s' * (callers > 1)}"


async def _appended(descriptor: int) -> Sample:
    """The floor: one after another, by the thread that waits for them."""
    values = [_bytes(record) for record in _records(WRITES[1])]
    took = []
    began = time.perf_counter()
    for value in values:
        before = time.perf_counter()
        os.write(descriptor, value)
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - before)
    return _sample(time.perf_counter() - began, took)


def _side(store: Store, callers: int) -> Side:
    """So many callers that each write one build after another."""

    async def write() -> Sample:
        records = _records(WRITES[callers])
        took: list[float] = []

        async def call(own: list[Record]) -> None:
            for record in own:
                before = time.perf_counter()
                await store.put((record,))
                took.append(time.perf_counter() - before)

        began = time.perf_counter()
        await asyncio.gather(*(call(records[at::callers]) for at in range(callers)))
        return _sample(time.perf_counter() - began, took)

    return write


def _sample(seconds: float, took: list[float]) -> Sample:
    return {
        "rate": len(took) / seconds,
        "median": 1000 * statistics.median(took),
        "slow": 1000 * statistics.quantiles(took, n=100)[98],
    }


def a_request() -> BuildRequest:
    """What a client asks for: three commands of some size."""
    commands = tuple(
        Command(
            name,
            text=_SCRIPT,
            arguments=("--release", "bookworm"),
            environment={"DEBIAN_FRONTEND": "noninteractive"},
        )
        for name in ("packages", "customize", "image")
    )
    recipe = Recipe(commands, base=ImageBase("debian:12"))
    return BuildRequest(recipe, Guidance(labels={"team": "images"}))


def _records(count: int) -> list[Record]:
    """Builds as a scheduler accepts them."""
    request = a_request()
    began, origin = time.time(), "a" * 40
    # An id begins with its time, so where a build lies in the file depends on it.
    times = [began + at / _PER_SECOND for at in range(count)]
    return [
        Record(
            new_build(
                build_id(now, os.urandom(10)), request, origin=origin, owner="alice", now=now
            ),
            revision=1,
        )
        for now in times
    ]


def _bytes(record: Record) -> bytes:
    return msgspec.msgpack.encode(record)

"""Downloads through a scheduler that are cut, and what their clients see: real programs, and
clients that nobody here wrote.
"""

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.model.build import Artifact, Result
from protocol.model.recipe import IsoOutput
from protocol.transfer.splice import SMALLEST
from tests.chaos.wire import SCALED, Answer, Fetch, Wire, fetched, stopped
from tests.figures import Figures
from tests.system.lan import Lan, a_lan
from tests.system.pool import PoolOnLan, Program, Scheduler

pytestmark = [pytest.mark.system, pytest.mark.chaos]

SEED = 10
CUTS = 100
SIZE = 2_000_003
"""Bytes of the artifact that is cut: some times what is spliced, and no round number."""
LARGE = 64 << 20
"""Bytes of what is downloaded while its node dies: more than all buffers on the way take."""
FIRST = 1 << 20
"""Bytes that a client has read when the node dies."""
NOTICED = 30.0
"""Seconds after which a client is told that its source went without a word."""
PARTIAL = 18
"""curl's exit status for an answer that broke off."""


@pytest.fixture
def lan() -> Iterator[Lan]:
    """A scheduler's machine, where clients run too, and a node's."""
    with a_lan("control", "anvil") as lan:
        yield lan


@pytest.fixture
def pool(lan: Lan, tmp_path: Path) -> PoolOnLan:
    """What starts programs on it; they end with the LAN."""
    return PoolOnLan(tmp_path)


def built(scheduler: Scheduler, node: Program, *texts: str) -> tuple[str, Artifact]:
    """URL of a build and what it made, now that it has ended."""
    scheduler.has_ready(node)
    identity = scheduler.submit(*texts, output=IsoOutput())
    build = scheduler.build_until(identity, stopped, 60)
    assert build.result is Result.SUCCEEDED, build
    (artifact,) = build.artifacts
    return f"{scheduler.url}/api/v1/builds/{identity}", artifact


def resume(url: str, there: bytes, tag: str) -> Answer:
    """The rest, as long as the file is still the same."""
    return fetched(url, {"Range": f"bytes={len(there)}-", "If-Range": tag})


def sha256(data: bytes) -> str:
    """As an artifact has it."""
    return hashlib.sha256(data).hexdigest()


def test_cut_downloads_are_resumed_to_the_right_digest(
    lan: Lan, pool: PoolOnLan, figures: Figures
) -> None:
    """At 100 random offsets a download is cut, by its client, or between scheduler and node, which
    the client notices; with Range and If-Range it gets exactly the rest.
    """
    draw = random.Random(SEED)
    anvil = pool.node(lan["anvil"], no_mdns=True)
    wire = Wire(anvil, lan["control"])
    scheduler = pool.scheduler(lan["control"], no_mdns=True, node=wire.open(), settings=SCALED)
    base, artifact = built(scheduler, anvil, f"artifact {SIZE}")
    url, tag = f"{base}/artifacts/{artifact.name}", f'"{artifact.sha256}"'
    assert SIZE > 4 * SMALLEST
    began = time.monotonic()
    got: list[int] = []
    for number in range(CUTS):
        offset = draw.randrange(1, SIZE)
        if number % 2:
            wire.cut_after(offset)
            first = lan["control"].call(lambda: fetched(url))
            assert not first.whole
            assert len(first.body) <= offset
        else:
            first = lan["control"].call(lambda: fetched(url, most=offset))  # noqa: B023
            assert len(first.body) == offset
        assert (first.status, first.headers["etag"]) == (200, tag)
        assert int(first.headers["content-length"]) == SIZE
        rest = lan["control"].call(lambda: resume(url, first.body, tag))  # noqa: B023
        start = len(first.body)
        assert (rest.status, rest.whole) == (206, True)
        assert rest.headers["content-range"] == f"bytes {start}-{SIZE - 1}/{SIZE}"
        assert sha256(first.body + rest.body) == artifact.sha256
        got.append(start)
    figures(
        f"{CUTS} downloads of {SIZE} bytes cut after {min(got)} to {max(got)} bytes (seed {SEED}) "
        f"and resumed in {time.monotonic() - began:.1f} s: every digest right"
    )


def test_only_the_same_file_is_resumed(lan: Lan, pool: PoolOnLan) -> None:
    """The ETag is the digest. A range is given under that tag alone: under another file's, a weak
    one or a date, the answer is the whole file.
    """
    anvil = pool.node(lan["anvil"])
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    (base, one), (_, other) = (built(scheduler, anvil, "artifact 600000") for _ in range(2))
    assert one.sha256 != other.sha256
    url, tag = f"{base}/artifacts/{one.name}", f'"{one.sha256}"'

    def ask(condition: str) -> Answer:
        headers = {"Range": "bytes=599990-", "If-Range": condition}
        return lan["control"].call(lambda: fetched(url, headers))

    same = ask(tag)
    assert (same.status, len(same.body), same.headers["etag"]) == (206, 10, tag)
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    for condition in (f'"{other.sha256}"', f"W/{tag}", one.sha256, date):
        answer = ask(condition)
        assert (answer.status, answer.whole, sha256(answer.body)) == (200, True, one.sha256)
        assert "content-range" not in answer.headers


def test_node_that_dies_in_the_middle_cuts_every_answer(
    lan: Lan, pool: PoolOnLan, tmp_path: Path
) -> None:
    """kill -9 of a node while clients read an artifact, whose length they know, and a log, whose
    length nobody says: each sees that it broke off, none has a short file that looks whole. When
    the node is back the download goes on where it was.
    """
    anvil = pool.node(lan["anvil"])
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    base, artifact = built(scheduler, anvil, f"artifact {LARGE}", f"bytes {LARGE}")
    url, tag, log = f"{base}/artifacts/{artifact.name}", f'"{artifact.sha256}"', f"{base}/log"
    control = lan["control"]
    fetches = [
        control.call(lambda: Fetch(url)),
        control.call(lambda: Fetch(url, version=10)),
        control.call(lambda: Fetch(log)),
        control.call(lambda: Fetch(log, version=10)),
    ]
    for fetch in fetches:
        assert len(control.call(lambda: fetch.read(FIRST)).body) == FIRST  # noqa: B023
    curls = [
        control.start(
            *("curl", "-sS", "-N", "--limit-rate", "2M", "-D", "-", "-o", "/dev/null", place),
            ends=PARTIAL,
        )
        for place in (url, log)
    ]
    for curl in curls:
        curl.line(r"HTTP/1\.1 200 .*")
    anvil.process.kill()
    answers = [control.call(fetch.read) for fetch in fetches]
    for fetch, answer in zip(fetches, answers, strict=True):
        assert answer.status == 200
        assert not answer.whole, f"{len(answer.body)} bytes of {LARGE} look whole"
        assert FIRST <= len(answer.body) < LARGE
        fetch.hang_up()
    for curl in curls:
        curl.ended(PARTIAL, NOTICED)
    anvil.begin()
    scheduler.has_ready(anvil)
    there = answers[0].body
    rest = control.call(lambda: resume(url, there, tag))
    assert (rest.status, rest.whole) == (206, True)
    assert sha256(there + rest.body) == artifact.sha256


@pytest.mark.slow
def test_node_that_vanishes_cuts_every_answer(lan: Lan, pool: PoolOnLan, figures: Figures) -> None:
    """A machine that loses its power says nothing more. Who reads from it is told in bounded time
    too, and does not wait for ever.
    """
    anvil = pool.node(lan["anvil"])
    scheduler = pool.scheduler(lan["control"], settings=SCALED)
    base, artifact = built(scheduler, anvil, f"artifact {LARGE}", f"bytes {LARGE}")
    control = lan["control"]
    urls = (f"{base}/artifacts/{artifact.name}", f"{base}/log", f"{base}/log?follow=1")
    fetches = [control.call(lambda: Fetch(url)) for url in urls]  # noqa: B023
    for fetch in fetches:
        assert len(control.call(lambda: fetch.read(FIRST)).body) == FIRST  # noqa: B023
    vanished = time.monotonic()
    lan["anvil"].cut()
    for fetch in fetches:
        answer = control.call(fetch.read, NOTICED)
        assert not answer.whole
        fetch.hang_up()
    figures(f"node without power: its readers were told after {time.monotonic() - vanished:.1f} s")
    lan["anvil"].mend()

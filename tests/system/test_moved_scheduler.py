"""A scheduler that moves to another machine with its data folder: the pool is the folder, not the
address.
"""

import shutil
import time
from pathlib import Path

import pytest

from protocol.model.build import Build, Result, State
from protocol.program.identity import load
from tests.system.lan import Lan
from tests.system.pool import PoolOnLan
from tests.system.test_lan_trust import OPEN, entry, invited, joining

pytestmark = pytest.mark.system

LASTS = 10
"""Seconds of the build that runs while the scheduler moves."""
_LOOK = 0.1  # seconds between looks at a file


def test_its_nodes_go_on_with_it(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """The build that runs meanwhile is known, and ends as the same attempt; no node joins anew;
    each renews its certificate at the new address; the token that was pasted before is good.
    """
    before = pool.scheduler(lan["control"], settings=OPEN)
    token = invited(before)
    node, _ = joining(pool, lan["anvil"], token, settings={"renew_every": 1})
    node_id = load(node.folder).id
    entry(before, node_id, "ready")
    ended = before.submit("print early")
    before.build_until(ended, is_stopped)
    runs = before.submit(f"sleep {LASTS}", "print late")
    before.build_until(runs, lambda build: build.state is State.RUNNING)
    before.process.end()
    lan["control"].link_down()
    shutil.copytree(before.folder, tmp_path / "scheduler-forge")
    (certificate,) = (node.folder / "pools").glob("*/certificate.pem")
    made_before = certificate.read_bytes()

    after = pool.scheduler(lan["forge"], settings=OPEN)
    known = entry(after, node_id, "busy")
    build = after.build_until(runs, is_stopped, seconds=LASTS + 20)
    assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
    assert build.node is not None
    assert build.node.id == node_id
    assert known.url.startswith("https://")
    assert after.build_until(ended, is_stopped).result is Result.SUCCEEDED
    new = after.build_until(after.submit("print new"), is_stopped)
    assert new.result is Result.SUCCEEDED
    assert invited(after) == token
    renewed(certificate, made_before)
    words = node.process.words().splitlines()
    assert sum(line.strip().startswith("joined ") for line in words) == 1


def renewed(certificate: Path, before: bytes, seconds: float = 20.0) -> None:
    """Wait until a node has another certificate than this one."""
    deadline = time.monotonic() + seconds
    while certificate.read_bytes() == before:
        assert time.monotonic() < deadline, "the certificate was not renewed"
        time.sleep(_LOOK)


def is_stopped(build: Build) -> bool:
    """Whether it has ended."""
    return build.state is State.STOPPED

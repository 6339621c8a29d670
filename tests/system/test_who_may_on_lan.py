"""Who may call a program that a LAN reaches: it does not start before that was said; then who has a
token, or everybody.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.lan import Host, Lan
from tests.system.pool import PoolOnLan

pytestmark = pytest.mark.system

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
CLOSED = {"anonymous": "none", "unproven": "loopback"}
LIMIT = 60
"""Seconds that a command may take."""


def bare_curl(url: str) -> str:
    """The document's own first call, as it stands there, to that URL."""
    lines = DOCUMENT.read_text().splitlines()
    line = next(line for line in lines if line.startswith("curl") and "$URL/create" in line)
    return line.partition("  # ")[0].replace("$URL", url) + " -sS -w '\\n%{http_code}'"


def asked(host: Host, line: str) -> tuple[int, Any]:
    """What curl on that host is answered: status, and the JSON."""
    body, _, status = host.output("sh", "-c", line).rpartition("\n")
    return int(status), json.loads(body)


def imagepool(*words: str) -> "subprocess.CompletedProcess[str]":
    """A command on this machine."""
    return subprocess.run(
        [sys.executable, "-m", "imagepool", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_from_its_first_start_on(lan: Lan, pool: PoolOnLan, tmp_path: Path) -> None:
    """It refuses, and names the command that mends it; with the token that this prints, who has it
    is served on another machine, and nobody else.
    """
    folder = tmp_path / "scheduler-control"
    data = ("--data", str(folder))
    refused = imagepool("scheduler", "--listen", "0.0.0.0:0", "--no-mdns", *data)
    assert refused.returncode == 2
    command = re.search(r"imagepool (token create NAME [^)]*)\)", refused.stderr)
    assert command, refused.stderr
    made = imagepool(*command[1].replace("NAME", "ada").split())
    assert made.returncode == 0, made.stderr
    scheduler = pool.scheduler(lan["control"], settings=CLOSED)
    status, said = asked(lan["forge"], bare_curl(scheduler.url))
    assert (status, said["field"]) == (401, "Authorization")
    bearer = f" -H 'Authorization: Bearer {made.stdout.strip()}'"
    status, said = asked(lan["forge"], bare_curl(scheduler.url) + bearer)
    assert status == 303
    assert said["id"]
    line = f"curl -sS -w '\\n%{{http_code}}' {scheduler.url}/api/v1/audit" + bearer
    _, page = asked(lan["forge"], line)
    told = [(deed["who"], deed["address"], deed["status"]) for deed in page["deeds"]]
    assert told[:2] == [("ada", lan["forge"].address, 303), ("", lan["forge"].address, 401)]


def test_with_everybody(lan: Lan, pool: PoolOnLan) -> None:
    """The document's bare call does from another machine what it says."""
    open_to_all = {**CLOSED, "anonymous": "user"}
    scheduler = pool.scheduler(lan["control"], settings=open_to_all)
    status, said = asked(lan["forge"], bare_curl(scheduler.url))
    assert status == 303
    status, shown = asked(lan["forge"], f"curl -sS -w '\\n%{{http_code}}' '{said['status']}'")
    assert (status, shown["status"]) == (200, "waiting")
    line = f"curl -sS -w '\\n%{{http_code}}' {scheduler.url}/api/v1/tokens"
    assert asked(lan["forge"], line)[0] == 403

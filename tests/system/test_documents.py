"""The documents' own lines, typed as they stand but for host and port, against a real scheduler
and engine. All examples of README.md, docs/cli.md and docs/client.md are run on the dummy engine by
tests/cli/test_documents.py.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.system.processes import Process

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]

CURL = (
    r"""curl -H "Content-Type: application/json" -X POST -d """
    r"""'{"redirect":"http://localhost/","commands":[{"name":"build iso","command":"#!/bin/bash\n"""
    r"""/toiso/command.sh -q\n","arguments":[]}]}' http://localhost:80/create"""
)
WGET = "wget -qO- http://localhost/status/0 ; echo"


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[str]:
    """Where a scheduler with one node on the real engine serves."""
    folder = tmp_path_factory.mktemp("up")
    program = Process(
        "up",
        [
            *(sys.executable, "-m", "imagepool", "up", "--listen", "127.0.0.1:0", "--no-mdns"),
            *("--data", str(folder)),
        ],
    )
    try:
        match, _ = program.line(r"ready http://127\.0\.0\.1:(\d+)")
        yield match[1]
    finally:
        program.end()


def typed(line: str, cwd: Path) -> str:
    """What a line prints that is typed into a shell."""
    ran = subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": leaks.python_path(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_documents_lines(port, tmp_path) -> None:
    """The curl example, then wget of the status URL that it redirects to, then the download."""
    line = CURL.replace("localhost:80/", f"localhost:{port}/")
    seen = typed(line.replace("curl ", "curl -i ", 1), tmp_path)
    assert re.search(r"^HTTP/1.1 303 ", seen)
    location = re.search(r"^Location: (\S+)", seen, re.MULTILINE)[1]
    created = json.loads(typed(line, tmp_path))
    assert location.startswith(f"http://localhost/?status=http://localhost:{port}/status/")
    assert created["status"].startswith(f"http://localhost:{port}/status/")
    for status_url in (location.partition("?status=")[2], created["status"]):
        status = json.loads(typed(WGET.replace("http://localhost/status/0", status_url), tmp_path))
        revision = status["revision"]
        while status["status"] != "stopped":
            held = f"'{status_url}?wait=30&after={revision}'"
            status = json.loads(typed(f"wget -qO- {held}", tmp_path))
            revision = status["revision"]
        assert status["commands"][0]["name"] == "build iso"
        assert status["commands"][0]["exitcode"] == 0, status
        assert status["commands"][0]["output"]
        typed(f"wget -q {status['download']}", tmp_path)
    (iso, _) = sorted(tmp_path.iterdir())
    assert iso.stat().st_size > 50 << 20
    with iso.open("rb") as file:
        file.seek(32769)
        assert file.read(5) == b"CD001"


def test_the_readmes_lines(port, tmp_path) -> None:
    """The command line's example of the README: a file, a build, an ISO."""
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"^cat > build.json.*?hello.iso$", readme, re.DOTALL | re.MULTILINE)[0]
    example = example.replace(
        ".venv/bin/imagepool",
        f"IMAGEPOOL_URL=http://localhost:{port} {sys.executable} -m imagepool",
    )
    shown = typed(example, tmp_path)
    assert "iso: " in shown
    assert (tmp_path / "hello.iso").stat().st_size > 50 << 20

"""The search for secrets in what programs wrote finds them: a run of tests in which one was written
fails.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
SECRET = "correct horse/battery"
BEGIN = f"""
import base64, sys, subprocess
from tests import leaks
from tests.system.processes import Process

SECRET = {SECRET!r}
"""
LEAKS = {
    "print": "def test(): leaks.used(SECRET); print('it is ' + SECRET)",
    "before it is known": "def test(): print(SECRET); leaks.used(SECRET)",
    "base64": "def test(): leaks.used(SECRET); print(base64.b64encode(SECRET.encode() + b'x'))",
    "in a URL": "def test(): leaks.used(SECRET); print('http://h/?s=correct%20horse%2Fbattery')",
    "log": "import logging\ndef test(): leaks.used(SECRET); logging.warning('%s', SECRET)",
    "a child": "def test(): leaks.used(SECRET); subprocess.run(['echo', SECRET], check=True)",
    "a program": """
def test():
    leaks.used(SECRET)
    program = Process("program", ["sh", "-c", 'echo "$0" >&2; seq 100', SECRET])
    program.line("100")
    program.end()
""",
    "a build's": """
import asyncio
from protocol.remote.client import HttpService
from protocol.errors import PoolError
from tests.programs import LOCAL, request
async def submit():
    service = HttpService("http://127.0.0.1:9")
    try:
        await service.submit(LOCAL, request("true"), secrets={"NAME": SECRET})
    except PoolError:
        pass
    await service.close()
def test(): asyncio.run(submit()); print(SECRET)
""",
    "a join token": """
from protocol.trust.token import JoinToken
def test():
    text = str(JoinToken("ab" * 32, b"0123456789abcdef"))
    print(text)
""",
}


def _run(folder: Path, body: str) -> "subprocess.CompletedProcess[str]":
    file = folder / "test_it.py"
    file.write_text(BEGIN + body)
    options = ("-p", "no:tornado", "-p", "tests.leaks", "-c", "/dev/null", "--rootdir", folder)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_secret_that_was_written_fails_the_run(tmp_path) -> None:
    """However it was; the report says where, and does not repeat it."""
    bodies = []
    for number, body in enumerate(LEAKS.values()):
        secret = f"{number}{SECRET}{number}"
        own = body.replace("correct%20horse%2Fbattery", quote(secret, safe=""))
        own = own.replace("SECRET", repr(secret)).replace("def test()", f"def test_{number}()")
        bodies.append(own)
    ran = _run(tmp_path, "\n".join(bodies))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert f"{len(LEAKS)} passed" in ran.stdout
    told = ran.stdout.partition("secrets that were written")[2]
    for number, how in enumerate(LEAKS):
        assert f"test_it.py::test_{number}" in told or how == "a program", (how, ran.stdout)
    assert len(re.findall(r"\(\d+ characters\)", told)) == len(LEAKS)
    assert SECRET not in told


def test_a_run_without_passes(tmp_path) -> None:
    """Where a secret is used and not written, and what is too short to be one is."""
    ran = _run(tmp_path, "def test(): leaks.used(SECRET); leaks.used('horse'); print('a horse')")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 secrets, 1 lines written: none of them in any" in ran.stdout

"""The search for secrets in what programs wrote finds them: a run of tests in which one was written
fails, and says which test wrote what.
"""

import base64
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.leaks.search import Needles, Secret, Written

ROOT = Path(__file__).parents[1]
SECRET = "correct horse/battery"
BEGIN = """
import asyncio, base64, logging, subprocess, sys
from urllib.parse import quote
import pytest
from protocol.ports.service import Role
from protocol.trust.accounts import Accounts
from tests import leaks
from tests.system.processes import Process

@pytest.fixture(autouse=True)
def _data(tmp_path):
    global DATA
    DATA = tmp_path

def accounts(make):
    async def ask():
        accounts = Accounts(DATA, lambda: 1.0)
        try:
            return await make(accounts)
        finally:
            await accounts.close()
    return asyncio.run(ask())
"""
USED = {
    "print": "print('it is ' + SECRET)",
    "base64": "print(base64.b64encode(SECRET.encode()))",
    "base64 after one character": "print(base64.b64encode(b'x' + SECRET.encode() + b'x'))",
    "base64 after two": "print(base64.urlsafe_b64encode(b'xy' + SECRET.encode()))",
    "hex": "print(SECRET.encode().hex())",
    "in a URL": "print('http://h/?s=' + quote(SECRET, safe=''))",
    "in a URL's path": "print('http://h/' + quote(SECRET))",
    "log": "logging.warning('%s', SECRET)",
    "a log's line that is not shown": "logging.getLogger('node.x').debug('it is %s', SECRET)",
    "a child": "subprocess.run(['echo', SECRET], check=True)",
    "a pipe": "subprocess.run(['sh', '-c', 'echo $0 >&2', SECRET], capture_output=True)",
    "a pipe of asyncio": """
    async def run():
        child = await asyncio.create_subprocess_exec(
            *("sh", "-c", "echo $0 >&2", SECRET), stderr=asyncio.subprocess.PIPE
        )
        await child.communicate()
    asyncio.run(run())
""",
    "a program": """
    program = Process("program", ["sh", "-c", 'echo "$0" >&2; seq 100', SECRET])
    program.line("100")
    program.ended(0)
""",
    "the audit log": """
    from protocol.trust.audit import Audit, Deed
    async def note():
        audit = Audit(DATA, lambda: 1.0)
        audit.note(Deed(1.0, "", "", "::1", "GET /" + SECRET, 401))
        await audit.close()
    asyncio.run(note())
""",
    "a container": """
    from node.engines import docker
    from node.engines.base import ContainerSpec, Limits
    limits = Limits(1 << 20, 1, 10, False)
    spec = ContainerSpec("n", "i", (), {"KEY": SECRET}, {}, (), limits, ())
    docker.container_config(spec, 1)
""",
    "a database": "(DATA / 'access.db-wal').write_bytes(b'12' + SECRET.encode() + b'34')",
}
"""How something was written that a test says it used."""
MADE = {
    "build secret NAME": """
    from protocol.remote.client import HttpService
    from protocol.errors import PoolError
    from tests.programs import LOCAL, request
    async def submit():
        service = HttpService("http://127.0.0.1:9")
        try:
            await service.submit(LOCAL, request("true"), None, "", {"NAME": "a secret, by place"})
        except PoolError:
            pass
        await service.close()
    asyncio.run(submit())
    print("a secret, by place")
""",
    "password of build secret LOGIN": """
    from protocol.remote.client import HttpService
    from protocol.errors import PoolError
    from tests.programs import LOCAL
    async def retry():
        service = HttpService("http://127.0.0.1:9")
        try:
            await service.retry(LOCAL, "x", secrets={"LOGIN": "ada:of the registry"})
        except PoolError:
            pass
        await service.close()
    asyncio.run(retry())
    print("of the registry")
""",
    "token": """
    made = accounts(lambda accounts: accounts.make_token("ci", Role.ADMIN))
    print(made[0].rpartition("-")[2])
""",
    "session": """
    async def log_in(accounts):
        user = await accounts.put_user("ada", Role.USER, "ada's password")
        return await accounts.begin_session(user)
    print(accounts(log_in))
""",
    "password": """
    async def put(accounts):
        await accounts.put_user("bob", Role.USER, "bob's password")
    accounts(put)
    print("bob's password")
""",
    "CSRF token": """
    from protocol.api.callers import csrf_token
    print(csrf_token("of this session"))
""",
    "join token": """
    from protocol.trust.token import JoinToken
    print(JoinToken("ab" * 32, b"0123456789abcdef"))
""",
    "join secret": """
    from scheduler.pool.authority import Authority
    print(Authority(DATA, 3600.0, lambda: 1.0).token.secret.hex())
""",
    "private key": """
    from protocol.program import identity
    identity.load(DATA)
    print((DATA / "key.pem").read_text())
""",
    "seal key": """
    from protocol.trust.seal import Seal
    Seal(bytes(range(32)))
    print(base64.b64encode(bytes(range(32))))
""",
    "signing key of notices": """
    from protocol.model.notice_rules import signature
    signature("a key for notices", 1, b"")
    print("a key for notices")
""",
    "token in another program": """
    args = [sys.executable, "-m", "imagepool", "token", "create", "x", "--role", "admin"]
    ran = subprocess.run([*args, "--data", DATA], capture_output=True, text=True, check=True)
    print(ran.stdout)
""",
}
"""What our programs made or took, and nobody else says so."""


@pytest.fixture
def written() -> Iterator[Written]:
    """All that was written: nothing yet."""
    made = Written()
    yield made
    made.close()


def _run(folder: Path, tests: list[str]) -> "subprocess.CompletedProcess[str]":
    file = folder / "test_it.py"
    file.write_text(BEGIN + "\n".join(tests))
    options = ("-p", "no:tornado", "-p", "tests.leaks.plugin", "-c", "/dev/null")
    places = ("--rootdir", folder, "--basetemp", folder / "base")
    inside = {name: text for name, text in os.environ.items() if name != leaks.FILE}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, *places, file],
        cwd=ROOT,
        env={**inside, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(folder / "base")  # the run around us would find what was planted there
    return ran


def _failures(ran: "subprocess.CompletedProcess[str]") -> list[tuple[str, str, str]]:
    """(what, where, test) of each leak that the run's summary names."""
    return re.findall(r"^FAILED \S*tests/leaks::(.+?) in (.+?): (.*?)(?: - .*)?$", ran.stdout, re.M)


def _named(number: int, body: str) -> str:
    """A test of this body; the secret is one of its own."""
    own = f"SECRET = {f'{number:02}{SECRET}'!r}"
    begun = body if body.startswith("\n") else f"\n    {body}\n"
    return f"def test_{number:02}():\n    {own}\n{begun}"


def test_a_secret_that_was_written_fails_the_run(tmp_path) -> None:
    """However it was; the failure names what it is, where it was written, and in which test."""
    bodies = []
    for number, body in enumerate(USED.values()):
        bodies.append(_named(number, f"\n    leaks.used(SECRET, 'what {number:02}')\n    {body}\n"))
    ran = _run(tmp_path, bodies)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert f"{len(USED)} passed" in ran.stdout
    found = {what: (where, test) for what, where, test in _failures(ran)}
    for number, how in enumerate(USED):
        assert f"what {number:02}" in found, (how, ran.stdout)
        assert f"test_{number:02}" in found[f"what {number:02}"][1], how
    assert len(found) == len(USED)
    assert SECRET not in ran.stdout


def test_what_programs_make_is_known(tmp_path) -> None:
    """Without a test's saying so, and also of a program that a test starts."""
    ran = _run(tmp_path, [_named(number, body) for number, body in enumerate(MADE.values())])
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert f"{len(MADE)} passed" in ran.stdout, ran.stdout
    found = {(what, test.rpartition("_")[2]) for what, _, test in _failures(ran)}
    for number, what in enumerate(MADE):
        assert (what.removesuffix(" in another program"), f"{number:02}") in found, ran.stdout


def test_a_secret_is_found_that_is_told_after_it_was_written(tmp_path) -> None:
    """The search is at the end."""
    ran = _run(tmp_path, [_named(0, "print(SECRET); leaks.used(SECRET)")])
    assert len(_failures(ran)) == 1


def test_a_run_without_passes(tmp_path) -> None:
    """Where secrets are used and not written, and what is too short to be one is; and where a
    command writes what it was asked for.
    """
    body = """
    leaks.used(SECRET)
    leaks.used("a horse")
    print("a horse")
    args = [sys.executable, "-m", "imagepool", "token", "create", "x", "--role", "admin"]
    subprocess.run([*args, "--data", DATA], capture_output=True, check=True)
"""
    ran = _run(tmp_path, [_named(0, body)])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^\d+ secrets, \d+ bytes written: none in any$", ran.stdout, re.M)


@pytest.mark.parametrize("length", [8, 15, 16, 17, 26, 64])
def test_wherever_it_stands(length) -> None:
    """At the beginning, at the end, and at each place between."""
    secret = Secret.of(secrets.token_hex(32)[:length], "secret")
    assert secret is not None
    needles = Needles([secret])
    for before in range(40):
        text = b"." * before + secret.data
        assert set(needles.within(text)) == {(before, secret)}
        assert set(needles.within(text + b"..")) == {(before, secret)}
        assert not set(needles.within(text[:-1]))


def test_across_the_pieces_that_are_searched_at_once(written) -> None:
    """Nothing is lost between them, and what is found is where it was written."""
    secret = Secret.of("correct horse battery", "secret")
    assert secret is not None
    written.add(b"." * ((4 << 20) - 12), "one", "test")
    written.add(b"x " + secret.data, "two", "test")
    (leak,) = written.leaks([secret])
    assert leak.where == "two"


def test_thousands_of_secrets_in_tens_of_megabytes(written) -> None:
    """Are looked for in seconds: for each to be looked for by itself would take minutes."""
    known = [Secret.of(secrets.token_bytes(16), "secret") for _ in range(3000)]
    line = base64.b64encode(os.urandom(3000))
    for number in range(5000):
        written.add(b"%d %s" % (number, line), "a program", f"test {number}")
    hidden = known[1234]
    assert hidden is not None
    written.add(hidden.data.hex().encode(), "the log", "test last")
    began = time.process_time()
    (leak,) = written.leaks(secret for secret in known if secret)
    assert (leak.where, leak.test) == ("the log", "test last")
    assert time.process_time() - began < 60

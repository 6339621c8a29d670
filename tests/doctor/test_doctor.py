"""`imagepool doctor` as people run it, and how its checks are run."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from imagepool.doctor.configuration import configured
from imagepool.doctor.examining import Check, examine, subject_of
from imagepool.doctor.finding import Finding, Status, Subject, ok
from protocol.errors import Denied
from protocol.trust.token import JoinToken
from tests.cli.shell import imagepool, on_a_terminal
from tests.doctor.subjects import a_subject, told

pytestmark = pytest.mark.gen_test(timeout=60)

TOKEN = str(JoinToken("ab" * 32, bytes(range(16))))
ALONE = ("--engine", "dummy", "--listen", "127.0.0.1:0", "--no-mdns")
"""A node that needs nothing; but nobody finds it."""


def files(folder: Path) -> list[str]:
    """All that is there."""
    return sorted(str(path) for path in folder.rglob("*"))


async def test_something_is_in_the_way(tmp_path: Path) -> None:
    """Exit code 1; each check is there, the token is not, and nothing was made."""
    data = str(tmp_path / "node")
    ran = await imagepool("doctor", *ALONE, "--data", data, "--join", TOKEN, "--json")
    assert (ran.code, ran.err) == (1, "")
    assert {key: ran.json[key] for key in ("program", "data", "healthy")} == {
        "program": "node",
        "data": data,
        "healthy": False,
    }
    assert [one["check"] for one in ran.json["checks"]] == [
        *("configuration", "data folder", "key", "join token", "certificate", "who may call"),
        *("engine", "base image", "build network", "listen", "pool_listen"),
        *("addresses", "mDNS", "scheduler"),
    ]
    states = {one["check"]: one["status"] for one in ran.json["checks"]}
    assert [name for name, state in states.items() if state == "fail"] == ["mDNS", "scheduler"]
    assert TOKEN not in ran.out
    assert TOKEN[-40:] not in ran.out
    assert bytes(range(16)).hex() not in ran.out
    assert not files(tmp_path)


async def test_nothing_is_in_the_way(tmp_path: Path) -> None:
    """Exit code 0, also where there is something to tell. In a pipe a finding is a line, and its
    remedy another; there are no colours.
    """
    arguments = (*ALONE, "--program", "scheduler", "--data", str(tmp_path / "s"))
    ran = await imagepool("doctor", *arguments[2:], "--node", "http://192.0.2.1:8090")
    assert (ran.code, ran.err) == (0, "")
    head, _, *lines, _, verdict = ran.out.splitlines()
    assert head == f"scheduler on this machine, {tmp_path}/s"
    assert verdict == "nothing stands in the way"
    assert [line for line in lines if not re.match(r"(ok  |warn|fail)  \S|  +-> \S", line)] == []
    assert "\x1b" not in ran.out
    assert re.search(r"^warn  addresses  .*\n +-> for others: imagepool scheduler", ran.out, re.M)


async def test_on_a_terminal(tmp_path: Path) -> None:
    """In colours, and no line is longer than the terminal is wide."""
    arguments = (*ALONE, "--data", str(tmp_path / "node"), "--join", TOKEN)
    async with on_a_terminal("doctor", *arguments, columns=80) as terminal:
        assert await terminal.ended() == 1
    shown = terminal.seen.decode()
    assert "\x1b[31mfail\x1b[0m  mDNS" in shown
    assert "\x1b[32mok  \x1b[0m  key" in shown
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", shown)
    lines = [line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").split("\n")]
    assert max(map(len, lines)) <= 80
    assert "2 things stand in the way" in lines


async def test_settings_that_are_wrong(tmp_path: Path) -> None:
    """File and field are named; nothing else can be looked at then."""
    file = tmp_path / "pool.toml"
    for text, words, mends in (
        ("[node]\nslots = 'many'\n", f"{file}: [node] slots", "expected: "),
        ("[node]\nslotz = 1\n", "slotz", "expected: "),
        ("[node\n", f"{file}: ", "a TOML file"),
        ("[nodes]\n", "unknown table 'nodes'", "[node] or [scheduler]"),
        ("[node]\npool_listen = 'here'\n", "pool_listen is 'here'", "HOST:PORT"),
        ("[node]\nschedulers = ['http://a/b']\n", "schedulers", "http://HOST:PORT"),
    ):
        file.write_text(text)
        ran = await imagepool("doctor", "--config", str(file), "--json")
        assert ran.code == 1, ran.err
        (finding,) = ran.json["checks"]
        assert (finding["check"], finding["status"]) == ("configuration", "fail")
        assert words in finding["found"]
        assert mends in finding["remedy"]
    ran = await imagepool("doctor", "--config", str(tmp_path / "none"))
    assert ran.code == 1
    assert f"{tmp_path}/none: No such file" in ran.out
    ran = await imagepool("doctor", "--slots", "many")
    assert ran.code == 2


async def test_a_setting_that_holds_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is set is said, and whence."""
    for name in [name for name in os.environ if name.startswith("IMAGEPOOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("BASE_IMAGE", raising=False)
    file = tmp_path / "pool.toml"
    file.write_text(f"[node]\njoin = '{TOKEN}'\n")
    settings, found = configured("node", file, {"slots": 2})
    assert settings.join == TOKEN
    assert found == ok("configuration", f"flag: slots; file {file}: join")
    settings, found = configured("scheduler", file, {})
    assert found.found == f"every setting is as it comes; {file} has no [scheduler]"


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        ((), "node"),
        (("--join", "x"), "node"),
        (("--node", "http://192.0.2.1:1"), "scheduler"),
        (("--data", "s"), "scheduler"),
        (("--data", "n"), "node"),
        (("--config", "s.toml"), "scheduler"),
        (("--config", "both.toml"), "node"),
        (("--program", "scheduler"), "scheduler"),
    ],
)
async def test_which_program_is_meant(
    tmp_path: Path, arguments: tuple[str, ...], program: str
) -> None:
    """By what was given, else by what was started here."""
    (tmp_path / "s" / "authority").mkdir(parents=True)
    (tmp_path / "s.toml").write_text("[scheduler]\n")
    (tmp_path / "both.toml").write_text("[scheduler]\n[node]\n")
    more = ("--engine", "dummy") if program == "node" else ()
    ran = await imagepool(
        *("doctor", *arguments, "--no-mdns", "--listen", "127.0.0.1:0", "--json", *more),
        cwd=tmp_path,
        environment={"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert ran.json["program"] == program


async def test_a_flag_of_the_other_program(tmp_path: Path) -> None:
    """It is not passed over."""
    ran = await imagepool("doctor", "--program", "scheduler", "--slots", "2", "--json")
    assert ran.code == 1
    assert ran.json["checks"][0]["found"] == "a scheduler has no --slots"


async def test_the_folders_of_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only these are there, they are meant."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings, _ = configured("node", None, {})
    assert subject_of("node", settings).folder == tmp_path / "imagepool" / "node"
    (tmp_path / "imagepool" / "up" / "node").mkdir(parents=True)
    assert subject_of("node", settings).folder == tmp_path / "imagepool" / "up" / "node"
    (tmp_path / "imagepool" / "node").mkdir()
    assert subject_of("node", settings).folder == tmp_path / "imagepool" / "node"


async def test_what_others_say_is_one_line() -> None:
    """Without what moves a cursor, and not endless."""
    found = ok("a\x1bb", "c\nd" + "e" * 1000)
    assert (found.check, found.found[:4], len(found.found)) == ("a?b", "c?de", 500)


def failing(error: Exception) -> Callable[[Subject], "asyncio.Future[tuple[Finding, ...]]"]:
    """A check that does."""

    async def look(subject: Subject) -> tuple[Finding, ...]:
        raise error

    return lambda subject: asyncio.ensure_future(look(subject))


async def test_checks_run_together_and_end(tmp_path: Path) -> None:
    """Each waits for the other here; one that takes too long, or breaks, is a finding, and keeps
    nobody from theirs.
    """
    meeting = asyncio.Barrier(2)

    async def meet(subject: Subject) -> tuple[Finding, ...]:
        await meeting.wait()
        return (ok("met", "yes"),)

    async def wait(subject: Subject) -> tuple[Finding, ...]:
        await asyncio.Event().wait()
        return ()

    checks = (
        Check("one", meet, 5, "-"),
        Check("slow", wait, 0.1, "wait less"),
        Check("denied", failing(Denied("no", expected="yes")), 5, "-"),
        Check("broken", failing(PermissionError(13, "Permission denied", "/key")), 5, "-"),
        Check("two", meet, 5, "-"),
        Check("not here", wait, 60, "-", ("scheduler",)),
    )
    found = await examine(a_subject(tmp_path), checks)
    assert [finding.check for finding in found] == ["met", "slow", "denied", "broken", "met"]
    assert told(found, "slow") == Finding(
        "slow", Status.FAIL, "it could not be seen in 0.1 s", "wait less"
    )
    assert told(found, "denied").remedy == "expected: yes"
    assert told(found, "broken").found == "/key: Permission denied"

"""Commands for verbs that are only passed on: what the client of the build service is asked."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepool.cli import cli
from protocol import wire
from protocol.errors import Conflict
from protocol.model.build import Build, State, new_build
from protocol.model.messages import Explanation, Refusal
from protocol.model.request import BuildRequest
from protocol.remote.client import HttpService

BUILD = new_build("ab", BuildRequest(), origin="o", owner="ann", now=0.0)


@pytest.fixture
def told(monkeypatch) -> list[tuple[Any, ...]]:
    """What the pool was asked, verb by verb."""
    asked: list[tuple[Any, ...]] = []

    async def retry(
        _: Any, caller: Any, build_id: str, key: str = "", secrets: Any = None
    ) -> Build:
        asked.append(("retry", build_id, secrets))
        return BUILD

    async def pin(_: Any, caller: Any, build_id: str, pinned: bool) -> Build:
        asked.append(("pin", build_id, pinned))
        return BUILD

    async def delete(_: Any, caller: Any, build_id: str) -> None:
        asked.append(("delete", build_id))
        if build_id == "ff":
            raise Conflict("the build runs", field="id", expected="a stopped build")

    async def preview(_: Any, caller: Any, request: BuildRequest) -> Explanation:
        asked.append(("preview", request.recipe.commands[0].name, request.secrets))
        refusal = Refusal("1", "ada", "it is cordoned")
        return Explanation("", State.WAITING, "no node takes it", refusals=(refusal,))

    for verb in (retry, pin, delete, preview):
        monkeypatch.setattr(HttpService, verb.__name__, verb, raising=False)
    monkeypatch.delenv("IMAGEPOOL_URL", raising=False)
    return asked


def run(*words: str) -> Result:
    """The command, in this process, but in a thread: the main one's event loop is pytest's."""
    with ThreadPoolExecutor(1) as thread:
        invoking = thread.submit(CliRunner().invoke, cli, [*words, "--url", "http://127.0.0.1:1"])
        return invoking.result()


def test_retry_prints_the_new_builds_id(told, monkeypatch) -> None:
    """Secrets are given anew, from a variable or a file."""
    monkeypatch.setenv("WORD", "hush")
    ran = run("retry", "cd", "--secret", "WORD")
    assert (ran.exit_code, ran.output) == (0, "ab\n")
    assert run("retry", "cd").exit_code == 0
    assert told == [("retry", "cd", {"WORD": "hush"}), ("retry", "cd", None)]


def test_pin_and_unpin(told) -> None:
    """In words and in JSON."""
    assert run("pin", "ab").output == "build ab is kept\n"
    assert wire.decode(run("unpin", "ab", "--json").stdout_bytes, dict)["id"] == "ab"
    assert told == [("pin", "ab", True), ("pin", "ab", False)]


def test_delete_says_why_not(told) -> None:
    """A refusal is exit code 2, with what would have been right."""
    assert run("delete", "ab").output == "build ab is forgotten\n"
    refused = run("delete", "ff")
    assert refused.exit_code == 2
    assert refused.output == "Error: id: the build runs (expected: a stopped build)\n"
    assert wire.decode(run("delete", "ab", "--json").stdout_bytes, dict) == {"deleted": "ab"}


def test_a_dry_run_submits_nothing(told, monkeypatch) -> None:
    """It says what would become of the request; secrets' values are not shown."""
    monkeypatch.setenv("WORD", "hush")
    ran = run("build", "-c", "true", "--secret", "WORD", "--dry-run")
    assert ran.exit_code == 0
    assert "reason    no node takes it" in ran.output
    assert "  ada: it is cordoned" in ran.output
    shown = run("build", "-c", "true", "--secret", "WORD", "--dry-run", "--json")
    assert wire.decode(shown.stdout_bytes, dict)["request"]["secrets"] == ["WORD"]
    assert "hush" not in shown.output
    assert told == [("preview", "true", ("WORD",))] * 2

"""Every example of the README, docs/cli.md and docs/client.md is run, as it stands, against a pool
on the dummy engine; the README's on a real engine in tests/system/test_documents.py.

A block that is not run says why in a comment before it: `<!-- not run: REASON -->`. One that needs
verbs of the pool names them, `<!-- needs: VERB, ... -->`, and is run where the client has these.
A block of `text` behind one is what that printed; `...` stands for anything.
"""

import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from protocol.remote.client import HttpService
from tests.cli.shell import PROGRAM, ROOT, clean
from tests.system.processes import Process

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_END = "--- end of an example ---"


class Example(Struct):
    """A block of a document."""

    line: int
    text: str
    shown: str | None = None  # what it is said to print


def examples(document: str, kinds: tuple[str, ...]) -> list[Example]:
    """The blocks of these kinds that are to be run, in order."""
    found: list[Example] = []
    previous: Example | None = None
    source = (ROOT / document).read_text()
    for block in _BLOCK.finditer(source):
        if block["kind"] == "text" and previous is not None:
            previous.shown = block["text"]
        previous = None
        if block["kind"] in kinds and _is_run(block["mark"] or ""):
            previous = Example(source[: block.start("text")].count("\n") + 1, block["text"])
            found.append(previous)
    return found


def _is_run(mark: str) -> bool:
    if not mark:
        return True
    word, _, rest = mark.partition(": ")
    assert word in ("not run", "needs"), f"a comment before an example says {mark!r}"
    assert len(rest) > 2, mark
    return word == "needs" and all(hasattr(HttpService, verb) for verb in rest.split(", "))


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """A pool as `imagepool up` makes it, on the dummy engine."""
    arguments = ("up", "--listen", "127.0.0.1:0", "--no-mdns", "--engine", "dummy", "--name", "ada")
    folder = tmp_path_factory.mktemp("up")
    program = Process("up", [*PROGRAM, *arguments, "--data", str(folder), "--slots", "4"])
    try:
        match, _ = program.line(r"ready (http://127\.0\.0\.1:\d+).*")
        yield match[1]
    finally:
        program.end()


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with `imagepool` and `python` in .venv/bin, as after `make setup`."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name, arguments in (("python", ""), ("imagepool", " -m imagepool")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable}{arguments} "$@"\n')
        program.chmod(0o755)
    return tmp_path


def check(
    document: str, found: list[Example], place: Path, url: str, command: list[str], script: str
) -> None:
    """Run the examples of a document, one after another in one program; compare what they print."""
    path = f"{place}/.venv/bin:{clean({})['PATH']}"
    ran = subprocess.run(
        command,
        input=script.replace("http://localhost:8080", url),
        cwd=place,
        env=clean({"IMAGEPOOL_URL": url, "PATH": path}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    printed = ran.stdout.split(_END + "\n")
    done = min(len(printed) - 1, len(found) - 1)
    assert ran.returncode == 0, f"{document}:{found[done].line}\n{printed[-1]}\n{ran.stderr}"
    assert len(printed) == len(found) + 1
    checker = doctest.OutputChecker()
    for example, output in zip(found, printed, strict=False):
        if example.shown is not None:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = checker.check_output(example.shown, output, flags)
            assert same, f"{document}:{example.line} printed\n{output}"


@pytest.mark.slow
@pytest.mark.parametrize(("document", "least"), [("README.md", 2), ("docs/cli.md", 11)])
def test_the_shells_examples(document, least, place, url) -> None:
    """In one shell that ends at the first command that fails."""
    found = examples(document, ("sh", "console"))
    assert len(found) >= least
    script = "set -eu\n" + "".join(f"{example.text}echo '{_END}'\n" for example in found)
    check(document, found, place, url, ["bash"], script)


def test_pythons_examples(place, url) -> None:
    """In one program, without a warning."""
    found = examples("docs/client.md", ("python",))
    assert len(found) >= 8
    script = "".join(f"{example.text}\nprint({_END!r})\n" for example in found)
    check("docs/client.md", found, place, url, [sys.executable, "-W", "error", "-"], script)


def test_every_method_of_the_client_and_every_command_is_in_its_document() -> None:
    """By name."""
    from imagepool import Client
    from imagepool.cli import COMMANDS

    client, cli = ((ROOT / "docs" / name).read_text() for name in ("client.md", "cli.md"))
    methods = [name for name in vars(Client) if not name.startswith("_") and name != "url"]
    assert [name for name in methods if not re.search(rf"[.`]{name}\(|`{name}`", client)] == []
    commands = [name for section in COMMANDS.values() for name in section]
    assert [name for name in commands if not re.search(rf"imagepool {name}\b|`{name}`", cli)] == []


def test_a_block_that_is_not_run_says_why() -> None:
    """Another comment before a block is a mistake."""
    assert not _is_run("not run: it installs packages")
    for mark in ("not run: ", "later"):
        with pytest.raises(AssertionError):
            _is_run(mark)

"""Log lines: ids, one line each whatever a message holds, text and JSON."""

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from protocol.errors import Invalid
from protocol.model.build import new_build
from protocol.model.lifecycle import Event, advance
from protocol.model.request import BuildRequest
from protocol.program.logs import about, handler, log_step, set_up_logging

FORMS = pytest.mark.parametrize("form", ["text", "json"])
HEAD = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "


class Written:
    """A logger of its own, and what it wrote."""

    def __init__(self, form: str) -> None:
        self.stream = io.StringIO()
        self.handler = handler(form, self.stream)
        self.log = logging.getLogger("tests.logs")
        self.log.addHandler(self.handler)
        self.log.setLevel(logging.DEBUG)

    def lines(self) -> list[str]:
        """What was written, without the time where it is text."""
        return [re.sub(f"^{HEAD}", "", line) for line in self.stream.getvalue().split("\n")[:-1]]

    def objects(self) -> list[dict[str, Any]]:
        """What was written, where it is JSON."""
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def written(form: str) -> Iterator[Written]:
    """A logger that writes in the test's form."""
    written = Written(form)
    yield written
    written.log.removeHandler(written.handler)


@pytest.mark.parametrize("form", ["text"])
def test_a_line_of_text(written) -> None:
    """Time, level, who says it, what, and what it is about in a fixed order."""
    written.log.warning("it is %s", "late", extra={"attempt": 2, "build": "b1", "node": "n1"})
    assert written.lines() == ["WARNING tests.logs: it is late build=b1 node=n1 attempt=2"]
    assert re.match(f"{HEAD}WARNING ", written.stream.getvalue())


@pytest.mark.parametrize("form", ["json"])
def test_a_line_of_json(written) -> None:
    """The same as fields, beside whatever else the call gave."""
    written.log.warning("it is %s", "late", extra={"build": "b1", "attempt": 2, "size": 3})
    (line,) = written.objects()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line.pop("time"))
    assert line == {
        "level": "WARNING",
        "logger": "tests.logs",
        "message": "it is late",
        "build": "b1",
        "attempt": 2,
        "size": 3,
    }


@pytest.mark.parametrize("form", ["json"])
def test_everything_logged_inside_is_about_the_same(written) -> None:
    """Inner ids beside outer ones, the call's own first; nothing of it stays behind."""
    with about(build="b1", attempt=0):
        with about(node="n1"):
            written.log.info("inner")
            written.log.info("other", extra={"node": "n2"})
        written.log.info("outer")
    written.log.info("outside")
    ids = [
        tuple(line.get(name) for name in ("build", "node", "attempt")) for line in written.objects()
    ]
    assert ids == [("b1", "n1", 0), ("b1", "n2", 0), ("b1", None, 0), (None, None, None)]


@pytest.mark.parametrize("form", ["json"])
@pytest.mark.gen_test
async def test_threads_and_tasks_keep_what_they_are_about(written) -> None:
    """Work begun inside, however long it takes; two builds at once are not mixed up."""
    go = asyncio.Event()

    async def work(build: str) -> None:
        with about(build=build):
            await go.wait()
            await asyncio.to_thread(written.log.info, build)

    tasks = [asyncio.create_task(work(build)) for build in ("b1", "b2")]
    go.set()
    await asyncio.gather(*tasks)
    lines = written.objects()
    assert sorted(line["message"] for line in lines) == ["b1", "b2"]
    assert all(line["message"] == line["build"] for line in lines)


@FORMS
@pytest.mark.parametrize("character", ["\n", "\r", "\x85", "\u2028", "\x1b", "\x00", "\u202e"])
def test_nobody_outside_writes_a_line_of_ours(written, form, character) -> None:
    """Neither by a message nor by an id: what would begin a line or move the cursor is escaped."""
    forged = f"x{character}2026-01-01 00:00:00,000 INFO node: forged"
    written.log.info("GET %s", forged, extra={"node": forged})
    (line,) = written.stream.getvalue().splitlines()
    assert character not in line
    if form == "json":
        assert json.loads(line)["message"] == f"GET {forged}"


@pytest.mark.parametrize("form", ["text"])
def test_a_trace_follows_its_line_indented(written) -> None:
    """Also where the error's own words have lines."""
    try:
        raise ValueError("one\n2026-01-01 00:00:00,000 INFO node: forged\r\x1b[2K")
    except ValueError:
        written.log.exception("it broke", extra={"build": "b1"})
    first, *trace = written.lines()
    assert first == "ERROR tests.logs: it broke build=b1"
    assert all(line.startswith("    ") for line in trace)
    assert trace[0] == "    Traceback (most recent call last):"
    assert trace[-1].endswith(r"forged\r\x1b[2K")


@pytest.mark.parametrize("form", ["json"])
def test_a_trace_in_json_is_a_field(written) -> None:
    """On the same line."""
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        written.log.exception("it broke")
    (line,) = written.objects()
    assert line["trace"].endswith("ValueError: one\ntwo")


@pytest.mark.parametrize("form", ["text"])
def test_an_id_with_blanks_is_quoted(written) -> None:
    """So that it does not look like two."""
    written.log.info("x", extra={"node": 'a build="b'})
    assert written.lines() == [r'INFO tests.logs: x node="a build=\"b"']


def test_a_step_of_a_build_is_a_line(caplog) -> None:
    """With its ids and its cause."""
    build = new_build("b1", BuildRequest(), origin="s", owner="", now=0)
    with caplog.at_level(logging.INFO):
        log_step(
            logging.getLogger("tests.logs"),
            build,
            advance(build, Event.CANCEL, 1, "nobody wants it").history[-1],
        )
    (record,) = caplog.records
    assert (record.build, record.attempt) == ("b1", 0)
    assert record.getMessage() == "cancel: nobody wants it"


@pytest.mark.parametrize(
    ("level", "form", "field"), [("loud", "text", "log_level"), ("info", "xml", "log_format")]
)
def test_a_level_or_form_that_is_none(level, form, field) -> None:
    """Is refused by the setting's name."""
    with pytest.raises(Invalid) as refused:
        set_up_logging(level, form)
    assert refused.value.field == field


@FORMS
def test_a_program_writes_to_standard_error(form) -> None:
    """Once for each line, however often it is set up, from the level on that was set."""
    script = (
        "import logging, sys\n"
        "from protocol.program.logs import set_up_logging\n"
        "for _ in range(2): set_up_logging('info', sys.argv[1])\n"
        "logging.info('shown')\n"
        "logging.debug('not shown')\n"
        "logging.getLogger('urllib3').info('not shown')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, form], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = ran.stderr.splitlines()
    assert ran.stdout == ""
    assert json.loads(line)["message"] == "shown" if form == "json" else line.endswith(" shown")

"""The search, as a plugin of pytest: a run in which a secret was written has a failed test more for
each, whatever the others said.
"""

from pathlib import Path

import pytest

from tests import leaks
from tests.leaks import outputs, sources
from tests.leaks.files import leaks_below
from tests.leaks.search import Leak

_SAID = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest before anything else."""
    sources.install(leaks.used)
    outputs.install()
    leaks.listen_to_children()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called by pytest after each part of a test, with what was captured so far."""
    for name, text in report.sections:
        leaks.written.add(text.encode("utf-8", "surrogateescape"), name, report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Called by pytest after the last test."""
    leaks.hear_children()
    found = [*leaks.written.leaks(leaks.known), *_in_files(session)]
    figures = f"{len(leaks.known)} secrets, {leaks.written.size} bytes written"
    session.config.stash[_SAID] = f"{figures}: {'SECRETS IN THEM' if found else 'none in any'}"
    for leak in found:
        session.config.hook.pytest_runtest_logreport(report=_failure(leak))
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Called by pytest after that."""
    terminalreporter.write_line(config.stash.get(_SAID, ""))


def pytest_unconfigure() -> None:
    """Called by pytest in the end."""
    leaks.written.close()


def _in_files(session: pytest.Session) -> list[Leak]:
    factory = getattr(session.config, "_tmp_path_factory", None)
    base: Path | None = getattr(factory, "_basetemp", None)  # None: no test asked for a folder
    return leaks_below(base, leaks.known) if base is not None else []


def _failure(leak: Leak) -> pytest.TestReport:
    """A test that failed, which says what was written by whom, and does not repeat it."""
    secret = leak.secret
    words = (
        f"a secret was written: {secret.what} ({len(secret.data)} bytes), first used in"
        f" {leaks.known[secret]}, is in {leak.where}, written in {leak.test}"
    )
    name = f"tests/leaks::{secret.what} in {leak.where}: {leak.test}"
    return pytest.TestReport(
        nodeid=name,
        location=("tests/leaks", None, name),
        keywords={},
        outcome="failed",
        longrepr=words,
        when="call",
    )

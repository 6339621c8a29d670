"""Figures that tests measure, shown at the end of the run whether or not it passes."""

from collections.abc import Callable

import pytest

_LINES = pytest.StashKey[list[str]]()
Figures = Callable[[str], None]


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest before anything else."""
    config.stash[_LINES] = []


@pytest.fixture
def figures(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Figures:
    """Note a measured figure: a plain line, in the summary and in reports for machines."""

    def note(line: str) -> None:
        request.config.stash[_LINES].append(line)
        record_property("figure", line)

    return note


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Called by pytest after the last test."""
    if lines := config.stash[_LINES]:
        terminalreporter.section("figures measured")
        for line in lines:
            terminalreporter.write_line(line)

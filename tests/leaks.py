"""Everything that programs write while the tests run is searched for every secret that was used.

What makes or takes a secret inside the tests' own process is listened to (`SOURCES`); a test that
hands one to a program by other ways calls `used`. What is searched: all that pytest captures -
programs in this process, and whatever inherits its outputs - and what is handed to `wrote` by those
who start programs in pipes. A command that is asked for a secret shows it on its standard output:
that is not handed over. The search is at the end, and the run fails where something is found.
"""

import base64
import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from node.service import NodeService
from protocol.remote.client import HttpService
from protocol.trust.accounts import Accounts
from protocol.trust.token import JoinToken
from scheduler.service import SchedulerService

LEAST = 8
"""Characters of a secret that is searched for; shorter ones are words of tests."""

_secrets: dict[str, str] = {}  # secret -> what it is
_written: dict[str, str] = {}  # line -> where it was written first


def used(secret: str | bytes, what: str = "secret") -> None:
    """From now on this must not have been written anywhere, before or after."""
    text = secret.decode("latin-1") if isinstance(secret, bytes) else secret
    for line in text.splitlines():
        if len(line) >= LEAST:
            _secrets.setdefault(line, what)


def wrote(text: str, where: str) -> None:
    """A program wrote this."""
    for line in text.splitlines():
        _written.setdefault(line, where)


def found() -> list[str]:
    """Where which secrets stand, without repeating them."""
    everything = "\n".join(_written)
    leaks = []
    for secret, what in _secrets.items():
        for form in _forms(secret):
            if form in everything:
                places = {where for line, where in _written.items() if form in line}
                leaks.append(f"{what} ({len(secret)} characters) in {', '.join(sorted(places))}")
    return leaks


def _forms(secret: str) -> set[str]:
    data = secret.encode("utf-8", "surrogateescape")
    coded = (base64.b64encode(data), base64.urlsafe_b64encode(data))
    return {secret, quote(secret, safe=""), *(code.decode().rstrip("=")[:-1] for code in coded)}


def _given(arguments: dict[str, Any], _: Any) -> None:
    for name, value in (arguments.get("secrets") or {}).items():
        used(value, f"build secret {name}")


def _told(what: str) -> Callable[[dict[str, Any], Any], None]:
    return lambda _, answer: used(answer if isinstance(answer, str) else answer[0], what)


def _password(arguments: dict[str, Any], _: Any) -> None:
    used(arguments.get("password") or "", "password")


SOURCES: tuple[tuple[type, str, tuple[str, ...], Callable[[dict[str, Any], Any], None]], ...] = (
    (HttpService, "submit", (), _given),
    (NodeService, "submit", (), _given),
    (SchedulerService, "submit", (), _given),
    (Accounts, "make_token", (), _told("token")),
    (Accounts, "begin_session", (), _told("session")),
    (Accounts, "put_user", ("name", "role", "password"), _password),
    (Accounts, "check_password", ("name", "password"), _password),
    (JoinToken, "__str__", (), _told("join token")),
)
"""Class, method, names of its arguments by place, and what hears of arguments and answer."""


def _listen(
    kind: type, name: str, places: tuple[str, ...], hear: Callable[[dict[str, Any], Any], None]
) -> None:
    method = getattr(kind, name)

    if name.startswith("__"):

        @functools.wraps(method)
        def said(self: Any) -> Any:
            answer = method(self)
            hear({}, answer)
            return answer

        setattr(kind, name, said)
        return

    @functools.wraps(method)
    async def heard(self: Any, *arguments: Any, **named: Any) -> Any:
        given = {**dict(zip(places, arguments, strict=False)), **named}
        hear(given, "")
        answer = await method(self, *arguments, **named)
        hear(given, answer)
        return answer

    setattr(kind, name, heard)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest before anything else."""
    for source in SOURCES:
        _listen(*source)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called by pytest after each part of a test, with what was captured so far."""
    for _, text in report.sections:
        wrote(text, report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Called by pytest after the last test."""
    if found():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Called by pytest after that."""
    figures = f"{len(_secrets)} secrets, {len(_written)} lines written"
    if leaks := found():
        terminalreporter.section(f"secrets that were written: {figures}", red=True)
        for leak in leaks:
            terminalreporter.write_line(leak)
    else:
        terminalreporter.write_line(f"{figures}: none of them in any")

"""Exit codes of the command line, and errors that end it with one. docs/cli.md lists them."""

import json
from typing import IO, Any

import click

from imagepool.cli.terminal import shown
from protocol.errors import PoolError

FAILED = 1
"""The build did not succeed; a drain's time was over; something stands in a program's way."""
USAGE = 2
"""Wrong usage, settings or request; also click's own."""
UNREACHABLE = 3
"""The pool does not answer, or has no room."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT."""
BROKEN_PIPE = 141
"""Who read our output is gone: 128 + SIGPIPE."""


class Failure(click.ClickException):
    """What went wrong, in the words of the error, and the exit code that tells its kind."""

    def __init__(self, error: PoolError, code: int, *, as_json: bool = False) -> None:
        expected = f" (expected: {error.expected})" if error.expected else ""
        named = "" if error.field in error.detail else f"{error.field}: "
        super().__init__(shown(named + error.detail + expected))
        self.exit_code = code  # type: ignore[misc]
        self._json = as_json
        self._error = error

    def show(self, file: IO[Any] | None = None) -> None:
        """Tell it on standard error."""
        if not self._json:
            super().show(file)
            return
        error = self._error
        said = {
            "error": error.detail,
            "kind": type(error).__name__,
            "field": error.field,
            "expected": error.expected,
            "exit": self.exit_code,
        }
        click.echo(json.dumps(said, ensure_ascii=False), file=file, err=True)

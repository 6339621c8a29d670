"""Exit codes of the command line, and errors that end it with one."""

import click

from protocol.errors import PoolError

FAILED = 1
"""The build did not succeed."""
USAGE = 2
"""Wrong usage or settings; also click's own."""
UNREACHABLE = 3
"""The pool does not answer."""


class Failure(click.ClickException):
    """What went wrong, in the words of the error, and the exit code that tells its kind."""

    def __init__(self, error: PoolError, code: int) -> None:
        expected = f" (expected: {error.expected})" if error.expected else ""
        super().__init__(error.detail + expected)
        self.exit_code = code  # type: ignore[misc]

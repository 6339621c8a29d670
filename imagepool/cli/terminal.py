"""What is different on a terminal: colour, a line that says what happens now, a progress bar.

Nothing of it appears in a pipe. NO_COLOR, https://no-color.org, takes the colours away.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

import click

from imagepool.cli import words

STYLES: dict[str, dict[str, Any]] = {
    "succeeded": {"fg": "green"},
    "ready": {"fg": "green"},
    "running": {"fg": "cyan"},
    "busy": {"fg": "cyan"},
    "waiting": {"fg": "yellow"},
    "silent": {"fg": "yellow"},
    "cordoned": {"fg": "yellow"},
    "quarantined": {"fg": "yellow"},
    "failed": {"fg": "red"},
    "timed_out": {"fg": "red"},
    "lost": {"fg": "red"},
    "refused": {"fg": "red"},
    "cancelled": {"dim": True},
}
"""How the words for the states of builds and nodes look."""

_COLOUR = re.compile(r"(\x1b\[[0-9;]{0,20}m)")


def is_terminal(stream: IO[Any]) -> bool:
    """Whether somebody looks at it, on something that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str, stream: IO[Any], **style: Any) -> str:
    """The text in this style, where that is wanted and can be seen."""
    wanted = style and is_terminal(stream) and not os.environ.get("NO_COLOR")
    return click.style(text, **style) if wanted else text


def state(word: str) -> str:
    """A state's word on standard output; it may be padded."""
    return coloured(word, sys.stdout, **STYLES.get(word.strip(), {}))


def note(line: str, **style: Any) -> None:
    """A line about what happens, beside the output proper."""
    click.echo(coloured(words.printable(line), sys.stderr, **style), err=True, color=True)


def show(text: str) -> None:
    """Lines on standard output, perhaps coloured: what others say in them does nothing else."""
    click.echo(shown(text))


def shown(text: str) -> str:
    """The text with its colours and ends of lines, and nothing else that a terminal obeys."""
    parts = _COLOUR.split(text)
    lines = ("\n".join(map(words.printable, part.split("\n"))) for part in parts[::2])
    colours = (*parts[1::2], "")
    return "".join(line + colour for line, colour in zip(lines, colours, strict=True))


class Screen:
    """Standard output for a log, and a last line on standard error that says what happens now;
    that one only on a terminal, and only while the log's last line is whole.
    """

    def __init__(self) -> None:
        self._live = is_terminal(sys.stderr)
        self._shared = self._live and sys.stdout.isatty()
        self._whole = True  # the log's last line is
        self._drawn = False
        self._line = ""

    def write(self, data: bytes) -> None:
        """A piece of the log, as it is."""
        self._erase()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._whole = not self._shared or data.endswith(b"\n")
        self._draw()

    def say(self, line: str, **style: Any) -> None:
        """A line that stays, beside the log."""
        self._erase()
        if not self._whole:
            click.echo(err=True)
            self._whole = True
        note(line, **style)
        self._draw()

    def now(self, line: str) -> None:
        """What happens now."""
        self._erase()
        self._line = line
        self._draw()

    def close(self) -> None:
        """Leave nothing that is true no more."""
        self._erase()
        self._line = ""

    def _draw(self) -> None:
        if not (self._live and self._line and self._whole):
            return
        width = shutil.get_terminal_size().columns - 1
        line = words.printable(self._line)[:width]
        sys.stderr.write(coloured(line, sys.stderr, dim=True))
        sys.stderr.flush()
        self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._drawn = False


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; in a pipe, nothing. Told bytes that are there, and bytes in all."""
    if not is_terminal(sys.stderr):
        yield lambda there, whole: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words.printable(what), total=None)
        yield lambda there, whole: bar.update(task, completed=there, total=whole)

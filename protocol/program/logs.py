"""How log lines look, and which build, node and attempt they are about.

A line is text or one JSON object, as the setting `log_format` says. The ids come from the call
(`extra={"build": id}`) or from around it (`with about(build=id)`), which also holds for lines that
libraries log and for work in `asyncio.to_thread`. What clients say may stand in a message: control
characters are escaped, so that nobody outside can write a line of ours.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import IO

from protocol.errors import Invalid
from protocol.model.build import Build, Step

IDS = ("build", "node", "attempt")
"""What a line may be about, in the order in which text shows it."""

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Ends of lines, what moves a terminal's cursor, and what turns the direction of writing."""
_PLAIN = re.compile(r"[\w.:@+-]+")
_CHATTY = ("urllib3", "docker", "asyncio")
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


@contextlib.contextmanager
def about(
    *, build: str | None = None, node: str | None = None, attempt: int | None = None
) -> Iterator[None]:
    """Lines logged inside carry these ids, beside those from further outside. Tasks and
    connections that begin inside keep them.
    """
    given = {"build": build, "node": node, "attempt": attempt}
    inner = {name: value for name, value in given.items() if value is not None}
    before = _about.set({**_about.get(), **inner})
    try:
        yield
    finally:
        _about.reset(before)


def log_step(log: logging.Logger, build: Build, step: Step) -> None:
    """One line of this logger for a step in the life of a build."""
    ids = {"build": build.id, "attempt": build.attempt}
    if build.node is not None:
        ids["node"] = build.node.id
    log.info("%s%s", step.event, f": {step.cause}" if step.cause else "", extra=ids)


def set_up_logging(level: str, form: str = "text") -> None:
    """Log lines go to standard error; nothing happens where logging is set up already. Raises
    Invalid for a level or form that is none.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise Invalid(
            f"log_level is {level!r}",
            field="log_level",
            expected="debug, info, warning or error",
        )
    logging.basicConfig(level=levels[level.upper()], handlers=[handler(form, sys.stderr)])
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def handler(form: str, stream: IO[str]) -> logging.Handler:
    """What writes lines of this form there. Raises Invalid for a form that is none."""
    forms = {"text": TextFormatter, "json": _json_formatter}
    if form not in forms:
        raise Invalid(f"log_format is {form!r}", field="log_format", expected="text or json")
    writing = logging.StreamHandler(stream)
    writing.setFormatter(forms[form]())
    writing.addFilter(_with_ids)
    return writing


def _with_ids(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: it runs where the line is logged, and knows what that is
    about. What the call itself says counts more.
    """
    for name, value in _about.get().items():
        if getattr(record, name, None) is None:
            setattr(record, name, value)
    return True


class TextFormatter(logging.Formatter):
    """One line for each record, the ids at its end; traces follow it, indented."""

    def __init__(self) -> None:
        super().__init__(_LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Called by logging when time and message are known."""
        ids = (
            f" {name}={_value(value)}"
            for name in IDS
            if (value := getattr(record, name, None)) is not None
        )
        return escaped(super().formatMessage(record)) + "".join(ids)

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging for each record. The trace that another handler left in the record is
        not used: it may look otherwise.
        """
        known, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = known

    def formatException(self, ei: object) -> str:
        """Called by logging for a record with an exception."""
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:
        """Called by logging for a record with a stack."""
        return _indented(super().formatStack(stack_info))


def escaped(text: str) -> str:
    """The text on one line: each control character as Python would write it."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _indented(trace: str) -> str:
    """A trace's lines are ours; the message of an exception may be anybody's."""
    return "\n".join("    " + escaped(line) for line in trace.split("\n"))


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _json_formatter() -> logging.Formatter:
    """Every field of a record that says something, ids and whatever else a call gave as extra."""
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ("levelname", "name", "message"),
        timestamp="time",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "trace"},
    )

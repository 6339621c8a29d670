"""A node that kills or stops itself right before, right after or halfway through one of its own
steps.

Run as a program: `killed_at.py MOMENT node --data ...`, MOMENT as JSON; what follows is what
`imagepool` is given. It says `reached STEP` on standard error first.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec


class Moment(msgspec.Struct, frozen=True):
    """When it is to happen."""

    step: str  # MODULE:NAME or MODULE:CLASS.NAME of the function whose call counts
    side: str = "after"  # of the call: before, after, or half: with half of its last argument
    nth: int = 1  # call that counts, of those that match
    matching: str = ""  # how the text of the last argument ends
    signal: int = signal.SIGKILL


def arm(moment: Moment) -> None:
    """From now on the step has its end in it."""
    module, _, path = moment.step.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    bound = isinstance(inspect.getattr_static(owner, name), classmethod | staticmethod)
    wrapped = _wrapped(getattr(owner, name), moment)
    setattr(owner, name, staticmethod(wrapped) if bound else wrapped)


def _wrapped(step: Callable[..., Any], moment: Moment) -> Callable[..., Any]:
    is_due = _counter(moment)
    if inspect.iscoroutinefunction(step):

        @functools.wraps(step)
        async def awaited(*values: Any, **named: Any) -> Any:
            due = is_due(values)
            values = _begun(moment, values) if due else values
            answer = await step(*values, **named)
            if due:
                _reach(moment)
            return answer

        return awaited

    @functools.wraps(step)
    def called(*values: Any, **named: Any) -> Any:
        due = is_due(values)
        values = _begun(moment, values) if due else values
        answer = step(*values, **named)
        if due:
            _reach(moment)
        return answer

    return called


def _counter(moment: Moment) -> Callable[[tuple[Any, ...]], bool]:
    """Whether a call with these arguments is the one that counts; called from any thread."""
    lock, seen = threading.Lock(), 0

    def is_due(values: tuple[Any, ...]) -> bool:
        nonlocal seen
        if moment.matching and not str(values[-1]).endswith(moment.matching):
            return False
        with lock:
            seen += 1
            return seen == moment.nth

    return is_due


def _begun(moment: Moment, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the step is called with, where it is called."""
    if moment.side == "before":
        _reach(moment)
    if moment.side == "half":
        return (*values[:-1], values[-1][: len(values[-1]) // 2])
    return values


def _reach(moment: Moment) -> None:
    print(f"reached {moment.step}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), moment.signal)


if __name__ == "__main__":
    from imagepool.cli import main

    arm(msgspec.json.decode(sys.argv.pop(1), type=Moment))
    main()

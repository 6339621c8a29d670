"""What both programs tell whoever watches them: metrics, and why they cannot do their work.

State is read when somebody asks, by collectors; only what leaves no state behind is counted as it
happens: steps of builds (`Metrics.changed`), answered requests (`Metrics.answered`) and stalls of
the event loop (`Metrics.watch_loop`). `node/metrics.py` and `scheduler/metrics.py` add what is
theirs alone. Every metric stands in the table of docs/operations.md, and a test compares the two.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

import prometheus_client
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from protocol import VERSION
from protocol.model.build import Build, Result, Stage, Step
from protocol.model.lifecycle import RESULTS, Event

log = logging.getLogger(__name__)

prometheus_client.disable_created_metrics()  # a series more for each one, that nobody reads

ACCEPTED = "accepted"
"""The first step of a build's history; it is no event of the life cycle."""

_WAITS = (*(0.1, 0.5, 1, 5, 10, 30), *(60, 120, 300, 600, 1800, 3600, 7200, 14400))  # seconds
_REQUESTS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600)  # seconds; some are held
_LAGS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)  # seconds
_PULSE = 0.5  # seconds between looks at the event loop
_PATIENCE = 2.0  # seconds that a check may take
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ENDINGS = {event.value: result.value for event, result in RESULTS.items()}
_OUTCOMES = {Event.DECLINE.value: "declined", Event.LOSE.value: Result.LOST.value, **_ENDINGS}


class Program(Struct, frozen=True):
    """Who is watched."""

    id: str
    name: str
    role: str  # "node" or "scheduler"
    version: str = VERSION


class Trouble(Struct, frozen=True):
    """Why a program cannot do its work."""

    part: str  # what it is that does not work, in a word
    detail: str  # a sentence


class Health(Protocol):
    """The port through which the API sees how a program is."""

    program: Program
    registry: CollectorRegistry

    def uptime(self) -> float:
        """Seconds since the program began."""

    async def problems(self) -> tuple[Trouble, ...]:
        """Why it cannot do its work now; empty where it can. Takes a few seconds at most."""


Check = Callable[[], Awaitable[str]]
"""Says what is wrong with a part in words; empty where nothing is."""


class ProgramHealth:
    """`Health` made of one check for each part of the program."""

    def __init__(self, metrics: "Metrics", checks: Mapping[str, Check]) -> None:
        self.program = metrics.program
        self.registry = metrics.registry
        self._began = time.monotonic()
        self._checks = checks
        self._looks: dict[str, asyncio.Task[str]] = {}  # one each, however many ask meanwhile

    def uptime(self) -> float:
        """See Health."""
        return time.monotonic() - self._began

    async def problems(self) -> tuple[Trouble, ...]:
        """See Health."""
        details = await asyncio.gather(*(self._look(part) for part in self._checks))
        found = zip(self._checks, details, strict=True)
        return tuple(Trouble(part, detail) for part, detail in found if detail)

    async def _look(self, part: str) -> str:
        """What the check says, or that it does not end: it is left to itself then, for a thread
        that hangs cannot be ended, and no second one is begun beside it.
        """
        look = self._looks.get(part)
        if look is None or look.done():
            look = self._looks[part] = asyncio.create_task(_said(part, self._checks[part]))
        await asyncio.wait({look}, timeout=_PATIENCE)
        return look.result() if look.done() else f"no answer within {_PATIENCE:g} s"


async def _said(part: str, check: Check) -> str:
    try:
        return await check()
    except Exception as error:
        log.warning("looking at %s", part, exc_info=True)
        return f"looking at it failed: {type(error).__name__}"


class Metrics:
    """A program's registry, and what is counted as it happens."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("imagepool_program", "The program", registry=registry).info(
            {
                "id": program.id,
                "name": program.name,
                "role": program.role,
                "version": program.version,
            }
        )
        self._accepted = Counter(
            "imagepool_builds_accepted", "Builds that were taken on", registry=registry
        )
        self._builds = Counter(
            "imagepool_builds", "Builds that ended", ("result",), registry=registry
        )
        self._attempts = Counter(
            "imagepool_attempts", "Attempts that ended", ("outcome",), registry=registry
        )
        self._wait = Histogram(
            "imagepool_queue_wait_seconds",
            "Time until a node began a build that waited",
            buckets=_WAITS,
            registry=registry,
        )
        self._run = Histogram(
            "imagepool_attempt_duration_seconds",
            "Time from a node's beginning of an attempt to its end",
            ("outcome",),
            buckets=_WAITS,
            registry=registry,
        )
        self._requests = Histogram(
            "imagepool_http_request_duration_seconds",
            "Time from a request's head to the end of its answer",
            ("method", "route", "status"),
            buckets=_REQUESTS,
            registry=registry,
        )
        self._lag = Histogram(
            "imagepool_event_loop_lag_seconds",
            "How much later than due the event loop got to something",
            buckets=_LAGS,
            registry=registry,
        )
        self._begin_at_zero()

    def changed(self, before: Build | None, after: Build) -> None:
        """To be called with each new value of a build, and the one that it replaces; not when
        builds are read from disk at the start.
        """
        new = new_steps(before, after)
        first = len(after.history) - len(new)
        for index, step in enumerate(new, first):
            self._count(step, after.history[:index])

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Called for each answered request, with its route's pattern."""
        method = method if method in _METHODS else "other"  # a client may say anything
        self._requests.labels(method, route, str(status)).observe(seconds)

    async def watch_loop(self) -> None:
        """Measure, again and again, how late the event loop is."""
        while True:
            due = time.monotonic() + _PULSE
            await asyncio.sleep(_PULSE)
            self._lag.observe(max(0.0, time.monotonic() - due))

    def _count(self, step: Step, earlier: tuple[Step, ...]) -> None:
        if step.event == ACCEPTED:
            self._accepted.inc()
        if step.event in _ENDINGS:
            self._builds.labels(_ENDINGS[step.event]).inc()
        on_node = bool(earlier) and earlier[-1].stage is not Stage.QUEUED
        if on_node and step.event in _OUTCOMES:
            outcome = _OUTCOMES[step.event]
            self._attempts.labels(outcome).inc()
            if (began := _last(earlier, Event.PREPARE.value)) is not None:
                self._run.labels(outcome).observe(max(0.0, step.at - began))
        if step.event == Event.PREPARE.value and (since := waiting_since(earlier)) is not None:
            self._wait.observe(max(0.0, step.at - since))

    def _begin_at_zero(self) -> None:
        """A rate needs the sample before the first one."""
        for result in Result:
            self._builds.labels(result.value)
        for outcome in _OUTCOMES.values():
            self._attempts.labels(outcome)
            if outcome not in ("declined", Result.REFUSED.value):  # these never began
                self._run.labels(outcome)


class BuildCollector(Collector):
    """The builds that a program keeps."""

    def __init__(self, builds: Iterable[Build], clock: Callable[[], float] = time.time) -> None:
        """`builds` is gone through at each scrape; `clock`: seconds since the epoch."""
        self._builds = builds
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called for each scrape."""
        number: collections.Counter[Stage | Result] = collections.Counter()
        since = now = self._clock()
        for build in self._builds:
            number[build.result or build.stage] += 1  # a result says that it is stopped
            if build.stage is Stage.QUEUED:
                since = min(since, waiting_since(build.history) or now)
        kept = GaugeMetricFamily(
            "imagepool_builds_kept", "Builds on record", labels=("stage", "result")
        )
        for stage in Stage:
            for result in Result if stage is Stage.STOPPED else (None,):
                kept.add_metric(
                    (stage.value, result.value if result else ""), number[result or stage]
                )
        yield kept
        yield GaugeMetricFamily(
            "imagepool_oldest_waiting_seconds",
            "How long the build that waits longest has waited",
            now - since,
        )


def new_steps(before: Build | None, after: Build) -> tuple[Step, ...]:
    """What happened to the build between two values of it; everything, where the second one begins
    anew.
    """
    known = before.history if before is not None else ()
    return after.history[len(known) :] if after.history[: len(known)] == known else after.history


def waiting_since(history: tuple[Step, ...]) -> float | None:
    """When the build began to wait for a node: a node that declined it changes nothing. None
    where it does not wait, or its attempt was found on a node.
    """
    for step in reversed(history):
        if step.event in (ACCEPTED, Event.LOSE.value):
            return step.at
        if step.event not in (Event.PLACE.value, Event.DECLINE.value):
            return None
    return None


def _last(history: tuple[Step, ...], event: str) -> float | None:
    """When this happened last within the attempt that the history ends in."""
    for step in reversed(history):
        if step.event == event:
            return step.at
        if step.stage is Stage.QUEUED:
            return None
    return None

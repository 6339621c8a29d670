"""The pool: every address that may be a node, polled for as long as it is worth trying.

Level-triggered: each answer is the node's whole state as far as it concerns us. What a report means
for builds is not decided here; `on_report` is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from protocol.client import HttpService
from protocol.errors import PoolError
from protocol.messages import Report
from protocol.service import Caller, Role
from protocol.watch import Watch
from scheduler.config import SchedulerSettings
from scheduler.core.roster import Entry, Standing, Timing, leaders, standing

log = logging.getLogger(__name__)

_GOODBYE = 0.7  # seconds that a program that said goodbye has for its last report
_MEASURE = 30.0  # seconds between polls that are not held, which measure the latency


class Target:
    """One way to a node: where it may be, and the task that polls it."""

    def __init__(self, urls: tuple[str, ...], client: HttpService, entry: Entry) -> None:
        self.urls = urls
        self.client = client
        self.entry = entry
        self.task: asyncio.Task[None] | None = None
        self.departed = (
            False  # it said goodbye: off the roster, kept while builds of ours may be on it
        )


class Pool:
    """All targets by key. For use on the event loop."""

    def __init__(
        self, me: str, settings: SchedulerSettings, on_report: Callable[[Report], None]
    ) -> None:
        self.changed = Watch()  # moves when a node appears, answers otherwise than before, or goes
        self._me = me
        self._settings = settings
        self._on_report = on_report
        self._timing = Timing(settings.silent_after, settings.lost_after)
        self._caller = Caller(owner="", role=Role.PROGRAM, program=me)
        self._targets: dict[str, Target] = {}

    # What is there

    def entries(self, *, departed: bool = False) -> tuple[Entry, ...]:
        """One entry for each program, and one for each address that never answered."""
        return leaders(tuple(t.entry for t in self._targets.values() if departed or not t.departed))

    def standing(self, entry: Entry) -> Standing:
        """The entry's state as of now."""
        return standing(entry, self._me, time.monotonic(), self._timing)

    def client(self, node: str) -> HttpService | None:
        """How to speak to the program of this id."""
        for entry in self.entries(departed=True):
            if entry.report is not None and entry.report.id == node:
                return self._targets[entry.key].client
        return None

    def below(self) -> tuple[str, ...]:
        """Ids of the schedulers that builds may reach through us."""
        reports = [entry.report for entry in self.entries() if entry.report is not None]
        schedulers = [report for report in reports if report.role == "scheduler"]
        below = {report.id for report in schedulers if report.id != self._me}
        for report in schedulers:
            below.update(report.below)
        return tuple(sorted(below))

    # Coming and going

    def find(self, key: str, urls: tuple[str, ...], how: str) -> None:
        """There may be a node at one of these URLs; found in one way more, or elsewhere than
        before.
        """
        target = self._targets.get(key)
        if target is not None and target.urls == urls and not target.departed:
            ways = tuple(sorted({*target.entry.found, how}))
            target.entry = replace(target.entry, found=ways)
            return
        if target is not None:
            self._stop(target)
        entry = Entry(key=key, url=urls[0], found=(how,), since=time.monotonic())
        if target is not None and target.entry.report is not None:
            entry = replace(entry, report=target.entry.report, answered=target.entry.answered)
        target = self._targets[key] = Target(urls, self._client(urls[0]), entry)
        target.task = asyncio.create_task(self._poll(target))
        target.task.add_done_callback(_complain)

    def say_goodbye(self, key: str) -> None:
        """A goodbye was heard: after its last report, or a moment, it is not called any more."""
        target = self._targets.get(key)
        if target is not None:
            asyncio.get_running_loop().call_later(_GOODBYE, self._depart, target)

    def sweep(self, in_use: frozenset[str]) -> None:
        """Forget what left or has not answered for too long; `in_use`: nodes that builds of ours
        are on.
        """
        now = time.monotonic()
        for key, target in tuple(self._targets.items()):
            entry = target.entry
            quiet = now - (entry.answered if entry.answered is not None else entry.since)
            used = entry.report is not None and entry.report.id in in_use
            gone = target.departed and not used
            forgotten = quiet > self._settings.forget_after and "settings" not in entry.found
            if gone or forgotten:
                self._stop(target)
                del self._targets[key]
                self.changed.touch()

    def disbelieve(self, node: str, error: str) -> None:
        """A call to this node failed: it gets nothing until it has answered again."""
        for target in self._targets.values():
            if target.entry.report is not None and target.entry.report.id == node:
                target.entry = replace(target.entry, error=error)

    async def close(self) -> None:
        """Stop polling."""
        for target in self._targets.values():
            self._stop(target)
            await target.client.close()

    # Polling

    async def _poll(self, target: Target) -> None:
        """For as long as the target is of use."""
        token: str | None = None
        measured = 0.0
        attempt = 0
        while True:
            if time.monotonic() - measured > _MEASURE:
                token = None
            asked = time.monotonic()
            try:
                report = await target.client.status(
                    self._caller, after=token, wait=self._settings.hold if token else 0
                )
            except PoolError as error:
                token = None
                attempt += 1
                self._unanswered(target, error)
                await asyncio.sleep(self._settings.retry)
                await self._next_url(target, attempt)
                continue
            if token is None:
                measured = time.monotonic()
                target.entry = replace(target.entry, latency=measured - asked)
            token = report.token
            if self._answered(target, report):
                return

    def _answered(self, target: Target, report: Report) -> bool:
        """Take a report in; True where it was the last one."""
        before = target.entry
        target.entry = replace(
            before, report=report, answered=time.monotonic(), error="", failures=0
        )
        self._on_report(report)
        self.changed.touch()
        if report.leaving and "settings" not in before.found:
            self._depart(target)
            return True
        if report.leaving:
            target.entry = replace(target.entry, report=None, error="it was shut down")
        return False

    def _unanswered(self, target: Target, error: PoolError) -> None:
        before = target.entry
        target.entry = replace(before, error=error.detail, failures=before.failures + 1)
        if before.failures == 0:
            log.info("%s: %s", before.url, error.detail)
        self.changed.touch()

    async def _next_url(self, target: Target, attempt: int) -> None:
        """A program with several addresses: try the next one."""
        if len(target.urls) == 1:
            return
        url = target.urls[attempt % len(target.urls)]
        old, target.client = target.client, self._client(url)
        target.entry = replace(target.entry, url=url)
        await old.close()

    def _depart(self, target: Target) -> None:
        if self._targets.get(target.entry.key) is target and not target.departed:
            target.departed = True
            if target.task is not asyncio.current_task():
                self._stop(target)
            self.changed.touch()

    def _stop(self, target: Target) -> None:
        if target.task is not None:
            target.task.cancel()

    def _client(self, url: str) -> HttpService:
        return HttpService(url, program=self._me, patience=self._settings.patience)


def _complain(task: "asyncio.Task[None]") -> None:
    """A poller never ends by an error; where one does, that is a bug worth a trace."""
    if not task.cancelled() and (error := task.exception()):
        log.error("polling ended", exc_info=error)

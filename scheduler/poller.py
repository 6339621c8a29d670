"""The pool: every address that may be a node, polled for as long as it is worth trying.

Level-triggered: each answer is the node's whole state as far as it concerns us. What a report means
for builds is not decided here; `on_report` is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial

from msgspec.structs import replace

from protocol.client import HttpService
from protocol.errors import PoolError
from protocol.messages import Report
from protocol.service import Caller
from protocol.watch import Watch
from scheduler.config import SchedulerSettings
from scheduler.core.plain import PLAIN
from scheduler.core.quarantine import Health, quarantined
from scheduler.core.roster import REMEMBERED, Entry, Standing, Timing, leaders, standing
from scheduler.known import Known
from scheduler.plain.attempts import PlainAttempts
from scheduler.plain.node import PlainNode, plain_id
from scheduler.race import first_answer
from scheduler.stores.base import Store
from scheduler.target import NodeClient, Target

log = logging.getLogger(__name__)

_GOODBYE = 0.7  # seconds that a program that said goodbye has for its last report
_MEASURE = 30.0  # seconds between polls that are not held, which measure the latency
_ELSEWHERE = "it has not answered since it was found anew"
_SELDOM = 10.0  # how many times as long as at first a dead address is left in peace
_HEAD_START = 0.1  # seconds that an address has before the next one is tried beside it


class Pool:
    """All targets by key. For use on the event loop."""

    def __init__(self, caller: Caller, settings: SchedulerSettings, store: Store) -> None:
        """`caller`: this scheduler, as nodes know it."""
        self.changed = Watch()  # moves when a node appears, answers otherwise than before, or goes
        self.known = Known(store, self.changed.touch)
        self.plain = PlainAttempts(store)
        self.health: dict[str, Health] = {}  # node -> how it fared with our builds
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_node: Callable[[str], Collection[str]] = lambda node: ()  # our builds on a node
        self._caller = caller
        self._me = caller.program
        self._settings = settings
        self._timing = Timing(settings.silent_after, settings.lost_after)
        self._targets: dict[str, Target] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._heard = time.monotonic()  # when any node answered last
        self._counted = self._heard  # nobody's silence counts from before this

    def remember(self) -> None:
        """Ask after the nodes that are known from before this start."""
        for node in self.known.all():
            if node.urls and (node.role, node.kind) != ("node", PLAIN):  # those are in the settings
                self.find(node.id, node.urls, REMEMBERED)

    # What is there

    def entries(self, *, departed: bool = False) -> tuple[Entry, ...]:
        """One entry for each program, and one for each address that never answered."""
        return leaders(tuple(t.entry for t in self._targets.values() if departed or not t.departed))

    def standing(self, entry: Entry) -> Standing:
        """The entry's state as of now."""
        now = time.monotonic()
        return standing(entry, self._me, now, self._timing, self._held_back(entry, now))

    def _held_back(self, entry: Entry, now: float) -> Standing | None:
        node = entry.program
        known = self.known.of(node)
        if known is not None and known.cordoned is not None:
            in_use = len(self.on_node(node)) or (entry.report.used if entry.report else 0)
            drained = known.draining and not in_use
            return Standing("drained" if drained else "cordoned", known.cordoned)
        health = self.health.get(node)
        words = quarantined(health, now) if health is not None else None
        return None if words is None else Standing("quarantined", words)

    def lost(self, in_use: frozenset[str]) -> frozenset[str]:
        """Ids of the nodes whose builds may be placed elsewhere; `in_use`: those that have some.
        One that nobody knows the address of any more is lost too.
        """
        states = {
            entry.program: self.standing(entry).state for entry in self.entries(departed=True)
        }
        lost = {node for node in in_use if states.get(node) == "lost"}
        if time.monotonic() - self._counted >= self._timing.lost_after:
            lost |= {node for node in in_use if states.get(node, "unanswered") == "unanswered"}
        return frozenset(lost)

    def count_anew(self) -> None:
        """Nobody's silence counts from before this moment: it was we who did not listen."""
        now = self._counted = time.monotonic()
        for target in self._targets.values():
            target.entry = replace(target.entry, counted=now, failures=0)

    def client(self, node: str) -> NodeClient | None:
        """How to speak to the program of this id."""
        for entry in self.entries(departed=True):
            if entry.program == node:
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
        if target is not None and not target.departed and target.entry.url in urls:
            ways = tuple(sorted({*target.entry.found, how}))
            target.entry = replace(target.entry, found=ways)
            target.urls = urls
            if target.entry.failures:  # it makes itself heard: it may be back
                self._poll_anew(target)
            return
        entry = Entry(key=key, url=urls[0], found=(how,), since=time.monotonic(), id=_id_in(key))
        if target is not None:
            self._close(target)
            known = target.entry
            ways = (*known.found, how) if REMEMBERED in known.found else (how,)
            entry = replace(known, url=urls[0], found=tuple(sorted({*ways})), error=_ELSEWHERE)
        target = self._targets[key] = Target(urls, entry, self._connect)
        self._poll_anew(target)

    def find_plain(self, url: str) -> None:
        """Settings name this server, which speaks the documented API only."""
        now, name = time.monotonic(), plain_id(url)
        entry = Entry(key=url, url=url, found=("settings",), since=now, id=name)
        target = self._targets[url] = Target((url,), entry, self._connect_plain)
        self._poll_anew(target)

    def say_goodbye(self, key: str) -> None:
        """A goodbye was heard, and may be anybody's: who does not answer any more a moment later
        has left. Of a node that was silent before it says nothing; its record went out of date.
        """
        target = self._targets.get(key)
        if target is not None and (target.entry.report is None or not target.entry.failures):
            asyncio.get_running_loop().call_later(_GOODBYE, self._doubt, target)

    def _doubt(self, target: Target) -> None:
        if self._targets.get(target.entry.key) is target and not target.departed:
            target.goodbye = True
            self._poll_anew(target)

    def sweep(self, in_use: frozenset[str]) -> None:
        """Forget what left or has not answered for too long; `in_use`: nodes that builds of ours
        are on.
        """
        now = time.monotonic()
        heard = {t.entry.report.id for t in self._targets.values() if t.entry.report is not None}
        for target in tuple(self._targets.values()):
            entry = target.entry
            if entry.found == (REMEMBERED,) and entry.report is None and entry.program in heard:
                self._drop(target)  # it is elsewhere now
                continue
            quiet = now - (entry.answered if entry.answered is not None else entry.since)
            forgotten = quiet > self._settings.forget_after and "settings" not in entry.found
            if (target.departed or forgotten) and entry.program not in in_use:
                self._drop(target)
                self.known.left(entry.program)

    def disbelieve(self, node: str, error: str) -> None:
        """A call to this node failed: it gets nothing until it has answered again."""
        for target in self._targets.values():
            if target.entry.report is not None and target.entry.report.id == node:
                target.entry = replace(target.entry, error=error)

    def forget(self, node: str) -> None:
        """Poll the program of this id no more, until it is found again."""
        for target in tuple(self._targets.values()):
            if target.entry.program == node:
                self._drop(target)

    async def close(self) -> None:
        """Stop polling."""
        while self._targets:
            self._close(self._targets.popitem()[1])
        await asyncio.gather(*self._closing)
        await self.known.close()
        await self.plain.close()

    def _drop(self, target: Target) -> None:
        self._close(target)
        del self._targets[target.entry.key]
        self.changed.touch()

    def _close(self, target: Target) -> None:
        closing = asyncio.create_task(target.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # Polling

    def _poll_anew(self, target: Target) -> None:
        """Ask now, wherever the polling was."""
        if target.task is not None:
            target.task.cancel()
        target.task = asyncio.create_task(self._poll(target))
        target.task.add_done_callback(_complain)

    async def _poll(self, target: Target) -> None:
        """For as long as the target is of use."""
        token: str | None = None
        measured = 0.0
        while True:
            if time.monotonic() - measured > _MEASURE:
                token = None
            asked = time.monotonic()
            try:
                if token is None:
                    report = await self._ask_everywhere(target)
                else:
                    report = await target.client.status(
                        self._caller, after=token, wait=self._settings.hold
                    )
            except PoolError as error:
                token = None
                self._unanswered(target, error)
                await asyncio.sleep(self._pause(target.entry))
                continue
            if token is None:
                measured = time.monotonic()
                clock = report.clock - time.time() if report.clock else None
                target.entry = replace(target.entry, latency=measured - asked, clock=clock)
            token = report.token
            self._answered(target, report)
            if report.leaving:
                token = None
                await asyncio.sleep(self._settings.retry)

    def _pause(self, entry: Entry) -> float:
        """Seconds until the next try: longer and longer for an address that is as good as dead."""
        tries = self._settings.lost_after / self._settings.retry
        return self._settings.retry * min(_SELDOM, max(1.0, entry.failures / tries))

    async def _ask_everywhere(self, target: Target) -> Report:
        """A report by whichever of its addresses answers; that one is used from now on."""
        last = target.entry.url
        urls = (last, *(url for url in target.urls if url != last))
        asks = [partial(target.client_at(url).status, self._caller) for url in urls]
        number, report = await first_answer(asks, _HEAD_START)
        target.entry = replace(target.entry, url=urls[number])
        return report

    def _answered(self, target: Target, report: Report) -> None:
        """Take a report in; a program that leaves goes off the roster, unless settings name it."""
        now = time.monotonic()
        if now - self._heard > self._timing.silent_after:
            self.count_anew()  # nobody was heard for so long: our own link was down
        self._heard = now
        before = target.entry
        ways = tuple(way for way in before.found if way != REMEMBERED) or before.found
        target.entry = replace(
            before, found=ways, report=report, answered=now, error="", failures=0
        )
        if not report.leaving:
            self.known.heard(report, before.url, ways)
        self.on_report(report)
        target.goodbye = False
        target.departed = report.leaving and "settings" not in before.found
        if report.leaving and not target.departed:
            target.entry = replace(target.entry, report=None, error="it was shut down")
        self.changed.touch()

    def _unanswered(self, target: Target, error: PoolError) -> None:
        before = target.entry
        target.entry = replace(before, error=error.detail, failures=before.failures + 1)
        target.departed = target.departed or target.goodbye
        if before.failures == 0:
            log.info("%s: %s", before.url, error.detail)
        self.changed.touch()

    def _connect(self, url: str) -> HttpService:
        return HttpService(url, caller=self._caller, patience=self._settings.patience)

    def _connect_plain(self, url: str) -> PlainNode:
        return PlainNode(url, self._me, self._settings, self.plain)


def _id_in(key: str) -> str:
    """What a program was found by is its id, unless it is a URL."""
    return "" if "/" in key else key


def _complain(task: "asyncio.Task[None]") -> None:
    """A poller never ends by an error; where one does, that is a bug worth a trace."""
    if not task.cancelled() and (error := task.exception()):
        log.error("polling ended", exc_info=error)

"""The pool: every address that may be a node, for as long as it is worth trying, and what it said
last.

Level-triggered: each answer is the node's whole state as far as it concerns us. What a report means
for builds is not decided here; `on_report` is told. How a node is asked is in
`scheduler/pool/polling.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from msgspec.structs import replace

from protocol.concurrency.watch import Watch
from protocol.errors import PoolError, Unproven, Unreachable
from protocol.model.build import Build
from protocol.model.messages import Report
from protocol.ports.service import Caller
from protocol.remote.client import HttpService
from protocol.remote.guard import Guard
from scheduler.config import SchedulerSettings
from scheduler.core.plain import PLAIN
from scheduler.core.quarantine import Rule
from scheduler.core.roster import REMEMBERED, Entry, Standing, Timing, leaders, standing
from scheduler.plain.attempts import PlainAttempts
from scheduler.plain.node import PlainNode, plain_id
from scheduler.pool.claims import Claims
from scheduler.pool.held_back import HeldBack
from scheduler.pool.known import Known
from scheduler.pool.polling import Polling
from scheduler.pool.proof import Pass, Proof, node_reach
from scheduler.pool.target import NodeClient, Target
from scheduler.stores.base import Store

log = logging.getLogger(__name__)

_GOODBYE = 0.7  # seconds that a program that said goodbye has for its last report
_ELSEWHERE = "it has not answered since it was found anew"


class Pool:
    """All targets by key. For use on the event loop."""

    def __init__(
        self, caller: Caller, settings: SchedulerSettings, store: Store, own: Pass | None = None
    ) -> None:
        """`caller`: this scheduler, as nodes know it; `own`: what makes it one of its pool."""
        self.changed = Watch()  # moves when a node appears, answers otherwise than before, or goes
        self.known = Known(store, self.changed.touch)
        self.plain = PlainAttempts(store)
        rule = Rule(settings.quarantine_after, settings.quarantine, settings.quarantine_limit)
        self.held_back = HeldBack(self.known, rule)
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_node: Callable[[str], Collection[str]] = lambda node: ()  # our builds on a node
        self._caller = caller
        self._me = caller.program
        self._settings = settings
        self._timing = Timing(settings.silent_after, settings.lost_after)
        self.guard = Guard(node_reach(settings), own=frozenset)  # nodes may be on this machine
        self._named: set[str] = set()  # URLs that settings name: called wherever they lead
        self._targets: dict[str, Target] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._proof = Proof(settings.unproven, own, self.known)
        self._polling = Polling(caller, settings, self._answered, self._unanswered, self._proof)
        self.claims = Claims(caller, self._connect, self.changed.touch)
        self._heard = time.monotonic()  # when any node answered last
        self._counted = self._heard  # nobody's silence counts from before this

    def remember(self) -> None:
        """Ask after the nodes that are known from before this start."""
        for node in self.known.all():
            if node.urls and (node.role, node.kind) != ("node", PLAIN):  # those are in the settings
                self.find(node.id, node.urls, REMEMBERED)

    # What is there

    @property
    def proves(self) -> bool:
        """Whether programs of this pool prove who they are."""
        return self._proof.is_kept

    def entries(self, *, departed: bool = False) -> tuple[Entry, ...]:
        """One entry for each program, and one for each address that never answered."""
        asked = (t.entry for t in self._targets.values() if departed or not t.departed)
        return leaders((*asked, *self.claims.entries()))

    def standing(self, entry: Entry) -> Standing:
        """The entry's state as of now."""
        now = time.monotonic()
        held_back = self.held_back.standing(entry, now, self.on_node)
        return standing(entry, self._me, now, self._timing, held_back)

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

    def client_of(self, build: Build) -> NodeClient:
        """How to speak to the node that has the build's attempt. Raises Unreachable where none has,
        or nobody knows where it is.
        """
        client = None if build.node is None else self.client(build.node.id)
        if client is None:
            name = build.node.name if build.node is not None else "none"
            raise Unreachable(f"the node that has it ({name}) is not in the pool now")
        return client

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
        if how == "settings":
            self._named.update(urls)
        target = self._targets.get(key)
        if target is not None and not target.departed and target.entry.url in urls:
            ways = tuple(sorted({*target.entry.found, how}))
            target.entry = replace(target.entry, found=ways)
            target.urls = urls
            if target.entry.failures:  # it makes itself heard: it may be back
                self._polling.anew(target)
            return
        entry = Entry(key=key, url=urls[0], found=(how,), since=time.monotonic(), id=_id_in(key))
        if target is not None and target.proven and _is_proving(target.entry.url):
            # Whoever says that it is elsewhere: who it is, it proves where it is found.
            target.urls = tuple(dict.fromkeys((target.entry.url, *urls)))
            if target.entry.failures:
                self._polling.anew(target)
            else:
                self.claims.heard(target.entry, urls, how)
            return
        if target is not None:
            self._close(target)
            known = target.entry
            ways = (*known.found, how) if REMEMBERED in known.found else (how,)
            entry = replace(known, url=urls[0], found=tuple(sorted({*ways})), error=_ELSEWHERE)
        target = self._targets[key] = Target(urls, entry, self._connect)
        self._polling.anew(target)
        self._bound_strangers()

    def _bound_strangers(self) -> None:
        """Anybody on the LAN can make up addresses: of those that never answered the ones that were
        found first go, where there are too many.
        """
        strangers = [t for t in self._targets.values() if t.is_stranger]
        for target in strangers[: -self._settings.stranger_limit]:
            self._drop(target)

    def find_plain(self, url: str) -> None:
        """Settings name this server, which speaks the documented API only."""
        now, name = time.monotonic(), plain_id(url)
        entry = Entry(key=url, url=url, found=("settings",), since=now, id=name)
        target = self._targets[url] = Target((url,), entry, self._connect_plain)
        self._polling.anew(target)

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
            self._polling.anew(target)

    def sweep(self, in_use: frozenset[str]) -> None:
        """Forget what left or has not answered for too long; `in_use`: nodes that builds of ours
        are on.
        """
        self.claims.sweep(self._settings.forget_after)
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

    def ask_anew(self, node: str) -> None:
        """What this program has to prove is another matter now: what it proved before is gone."""
        for target in self._targets.values():
            if node in (target.entry.program, target.proven):
                self._closing.add(task := asyncio.create_task(target.expect(target.proven)))
                task.add_done_callback(self._closing.discard)
                self._polling.anew(target)
        self.changed.touch()

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
        await self.claims.close()
        await self.guard.close()
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

    # What is heard

    def _answered(self, target: Target, report: Report) -> None:
        """Take a report in; a program that leaves goes off the roster, unless settings name it."""
        now = time.monotonic()
        if now - self._heard > self._timing.silent_after:
            self.count_anew()  # nobody was heard for so long: our own link was down
        self._heard = now
        before = target.entry
        ways = tuple(way for way in before.found if way != REMEMBERED) or before.found
        target.entry = replace(
            before, found=ways, report=report, answered=now, error="", failures=0, unproven=False
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
        target.entry = replace(
            before,
            error=error.detail,
            failures=before.failures + 1,
            unproven=isinstance(error, Unproven),
        )
        target.departed = target.departed or target.goodbye
        if before.failures == 0:
            log.info("%s: %s", before.url, error.detail)
        self.changed.touch()

    def _connect(self, url: str, program: str) -> HttpService:
        secured = self._proof.secured(url, program)
        return HttpService(
            url,
            caller=self._caller,
            patience=self._settings.patience,
            secured=secured,
            guard=None if url in self._named else self.guard,
            ticketed=secured is not None and self._settings.transfers == "plain",
        )

    def _connect_plain(self, url: str, program: str) -> PlainNode:
        return PlainNode(url, self._me, self._settings, self.plain)


def _is_proving(url: str) -> bool:
    return url.startswith("https:")


def _id_in(key: str) -> str:
    """What a program was found by is its id, unless it is a URL."""
    return "" if "/" in key else key

"""Schedulers, nodes, clients, and everything that goes wrong between them; what must hold of all
this is in `machine_watcher.py`.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from protocol.model.build import Stage
from protocol.model.messages import Report
from protocol.model.recipe import Command, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import Caller
from tests.chaos.machine_engine import End, Machine
from tests.chaos.machine_loop import LIFE, Life, StillLoop, replaced
from tests.chaos.machine_network import Network, Wire
from tests.chaos.machine_programs import (
    StoreFile,
    attempted,
    find,
    hear,
    new_node,
    new_scheduler,
    run,
    stand_ins,
)
from tests.chaos.machine_watcher import Accepted, Violation, Watcher

REQUEST = BuildRequest(Recipe((Command("c", text="x"),)))
CLIENT = Caller(owner="client")
_LOGS = ("node", "scheduler", "protocol")
_ROUNDS = 400  # messages that may follow from one another without time passing
_PATIENCE = 300.0  # seconds in which every build ends when nothing goes wrong any more


class Complaints(logging.Handler):
    """Errors that programs log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See Handler."""
        if not LIFE.get().dead:
            self.lines.append(logging.Formatter().format(record))


class World:
    """All of it. The methods are the things that can happen."""

    def __init__(self, schedulers: int, nodes: int) -> None:
        self.loop = StillLoop()
        self.network = Network()
        self.machines = {name: Machine(name) for name in ("n1", "n2", "n3")[:nodes]}
        self.files = {name: StoreFile(f"{name}-store") for name in ("s1", "s2")[:schedulers]}
        self.programs = (*self.files, *self.machines)
        self.lives: dict[str, Life] = {}
        self.parts: dict[str, Any] = {}
        self.accepted: list[Accepted] = []
        self.cancelled: set[str] = set()  # builds that a user has asked to end
        self.stores = 0  # that were lost
        self.backups: dict[str, StoreFile] = {}
        self.keepable: dict[str, set[str]] = {}  # scheduler -> builds that outlive its store
        self.gone: list[str] = []  # programs that have ended by themselves
        self.watcher = Watcher(self)
        self._complaints = Complaints()
        wire = type("BoundWire", (Wire,), {"network": self.network})
        self._replaced = replaced(stand_ins(self.loop, self.machines, wire))

    def open(self) -> None:
        """Start every program."""
        self._replaced.__enter__()
        for name in _LOGS:
            logging.getLogger(name).addHandler(self._complaints)
            logging.getLogger(name).propagate = False
        self.network.on_send = self.watcher.on_send
        for machine in self.machines.values():
            machine.on_start = self.watcher.starting(machine)
        for name in (*self.machines, *self.files):
            self.start(name)

    def close(self) -> None:
        """End every program."""
        for life in self.lives.values():
            life.kill()
        for name in _LOGS:
            logging.getLogger(name).removeHandler(self._complaints)
            logging.getLogger(name).propagate = True
        self._replaced.__exit__(None, None, None)

    # Programs

    def start(self, name: str, *, made: bool = True) -> None:
        """A program that is down begins anew."""
        if name in self.lives:
            return
        life = self.lives[name] = Life(self.loop, name)
        life.begin(self._run(name, life, made=made))
        self.loop.settle()

    async def _run(self, name: str, life: Life, *, made: bool) -> None:
        if name in self.machines:
            node = self.parts[name] = new_node(self.machines[name], life)
            await node.start()
            self.network.services[name] = (life, node.service)
            self.announce(name)
            cleaning = node.cleaner.keep_cleaning(node.settings.clean_every)
            await run((cleaning, node.state.keep_looking(), node.runner.keep_filling()))
        file = self.files[name]
        on_put = self.watcher.on_put(name, file)
        scheduler = self.parts[name] = new_scheduler(name, file, life, on_put, made=made)
        scheduler.dispatcher.pool.on_report = self.watcher.hearing(scheduler)
        for machine in self.machines:
            find(scheduler, machine)
        await run(scheduler.begin())

    def announce(self, node: str) -> None:
        """Every scheduler hears that there is this node."""
        for name in self.files:
            if name in self.lives and name in self.parts:
                self.lives[name].begin(self._found(name, node))

    async def _found(self, scheduler: str, node: str) -> None:
        find(self.parts[scheduler], node)

    def crash(self, name: str, *, half: bool = False) -> None:
        """Killed; with `half` what it was about to write is written."""
        life = self.lives.pop(name, None)
        if life is None:
            return
        if half and life.writes:
            life.writes.popleft().do()
        life.kill()
        self.parts.pop(name, None)
        self.network.forget(name)
        self.loop.settle()

    def leave(self, name: str) -> None:
        """A node is told to go."""
        if (life := self.lives.get(name)) and name in self.network.services:
            life.begin(self._left(name))
            self.loop.settle()

    async def _left(self, name: str) -> None:
        await self.parts[name].leave()
        self.loop.call_soon(self.crash_later, name)

    def crash_later(self, name: str) -> None:
        """It has ended; called from within the loop, where it cannot be removed."""
        self.gone.append(name)

    def back_up(self, name: str) -> None:
        """What a scheduler's store holds now is put aside."""
        self.backups[name] = self.files[name].copy("")

    def lose_store(self, name: str, *, restored: bool = False) -> None:
        """A scheduler's store is gone with the scheduler; its identity is not. `restored`: there
        is a backup.
        """
        self.crash(name)
        self.stores += 1
        backup = self.backups.get(name, StoreFile("")) if restored else StoreFile("")
        self.files[name] = backup.copy(f"{name}-store-{self.stores}")
        self.watcher.on_restored(self.files[name])
        self.keepable[name] = self._kept_of(name)
        self.start(name, made=False)

    def _kept_of(self, scheduler: str) -> set[str]:
        records = [kept.record for m in self.machines.values() for kept in m.records.values()]
        return {r.build.id for r in records if r.build.origin == scheduler and r.forward}

    # Clients

    def create(self, name: str, key: str = "") -> None:
        """A client asks a scheduler, or a node, for a build."""
        if name in self.files or name in self.network.services:
            self._client(name, lambda part: self._created(name, part, key))

    async def _created(self, name: str, part: Any, key: str) -> None:
        build = await part.service.submit(CLIENT, REQUEST, key=key)
        store = self.files[name].id if name in self.files else ""
        if not LIFE.get().dead:
            self.watcher.on_accepted(Accepted(build.id, name, store, key))

    def cancel(self, which: int) -> None:
        """A client ends a build that it was answered."""
        if self.accepted:
            one = self.accepted[which % len(self.accepted)]
            self._client(one.program, lambda part: self._cancelled(part, one.build))

    async def _cancelled(self, part: Any, build: str) -> None:
        self.cancelled.add(build)
        await part.service.cancel(CLIENT, build)

    def _client(self, name: str, ask: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        if name in self.lives and name in self.parts:
            self.lives[name].begin(attempted(ask(self.parts[name])))
            self.loop.settle()

    # Messages and time

    def deliver(self, which: int) -> None:
        """One message arrives."""
        if calls := self.network.deliverable():
            self.network.deliver(calls[which % len(calls)])
            self.loop.settle()

    def hear(self, which: int) -> None:
        """A scheduler hears a report again, or one that it had not waited for."""
        reports = [(life, report) for life, report in self.network.reports[-30:] if not life.dead]
        if reports:
            life, report = reports[-1 - which % len(reports)]
            life.begin(self._heard(life.program, report))
            self.loop.settle()

    async def _heard(self, scheduler: str, report: Report) -> None:
        hear(self.parts[scheduler], report)

    def flow(self) -> None:
        """Messages arrive, in order, until there are none."""
        for _ in range(_ROUNDS):
            calls = self.network.deliverable(late=False)
            if not calls:
                return
            self.network.deliver(calls[0])
            self.loop.settle()
        raise Violation(f"messages without end: {self.network.deliverable()}")

    def pass_time(self, seconds: float, *, work: bool = True) -> None:
        """Time passes; with `work` messages arrive meanwhile where nothing is cut."""
        end = self.loop.now + seconds
        due: float | None = self.loop.now
        while due is not None and due <= end:
            self.loop.advance(due)
            if work:
                self.flow()
            self.bury()
            due = self.loop.next_timer()
        self.loop.advance(end)

    def bury(self) -> None:
        """Programs that have ended by themselves."""
        while self.gone:
            self.crash(self.gone.pop())

    # The end

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more: every build ends."""
        self.network.cut.clear()
        for life in tuple(self.lives.values()):
            life.spoilt = None
            life.catch_up()
        self.loop.settle()
        self.pass_time(2)  # whoever was told to go has gone
        if not any(name in self.lives for name in self.machines):
            self.start(next(iter(self.machines)))
        for name in self.files:
            self.start(name, made=False)
        for name in self.network.services:
            self.announce(name)
        self.loop.settle()
        began = self.loop.now
        while self.loop.now < began + _PATIENCE:
            for name, machine in self.machines.items():
                for box in machine.running() if name in self.lives else []:
                    machine.end(box, End.WELL)
            self.pass_time(3)
            self.check()
            if self.loop.now > began + 20 and not self.unended():
                self.watcher.at_rest()
                return
        raise Violation(f"builds do not end: {self.unended()}")

    def unended(self) -> list[str]:
        """What has not ended, of what can."""
        builds = [r.build for file in self.files.values() for r in file.records.values()]
        for name in self.network.services:
            builds += [k.record.build for k in self.machines[name].records.values()]
        return [
            f"{b.id[-4:]} of {b.origin} attempt {b.attempt} {b.stage.value} on {b.node}: {b.reason}"
            for b in builds
            if b.stage is not Stage.STOPPED
        ]

    def check(self) -> None:
        """What must hold in every state."""
        if complaints := self.loop.errors + self._complaints.lines:
            self.watcher.no(f"a program complains: {complaints}")
        self.watcher.check()

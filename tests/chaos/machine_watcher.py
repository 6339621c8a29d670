"""What must never happen: `Watcher` looks at every write, every message and every container that
starts, and at the state between two events.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from protocol.model.build import Build, Result, Stage
from protocol.model.messages import Report
from protocol.model.record import Record
from scheduler.app import Scheduler
from tests.chaos.machine_engine import Box, End, Machine, artifact_mark
from tests.chaos.machine_network import Call
from tests.chaos.machine_programs import SCHEDULER, StoreFile

if TYPE_CHECKING:
    from tests.chaos.machine_world import World

_GONE = ("reboot", "engine")
"""How a container ended that the engine has lost. Where the node had not yet written down that it
ran, it begins anew: nobody can say that it did.
"""
_ENDS = {Result.SUCCEEDED: (End.WELL,), Result.FAILED: (End.USER, End.OWN)}
"""How a container ended -> what may be said of the build."""


class Violation(AssertionError):
    """What must never happen has."""


class Accepted(Struct):
    """A create that a client was answered."""

    build: str
    program: str
    store: str  # id of the scheduler's store; empty: a node took it
    key: str


class Watcher:
    """What must never happen."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._told: dict[tuple[str, str], Build] = {}  # (store, build) -> as it stopped
        self._seen: dict[tuple[str, str], int] = {}  # (node, build) -> highest attempt begun
        self.problems: list[str] = []

    def check(self) -> None:
        """Raise what was seen since; look at what is there."""
        self._unlost()
        self._no_strangers()
        if self.problems:
            raise Violation(self.problems[0])

    def no(self, problem: str) -> None:
        """This must not be."""
        self.problems.append(problem)

    # Writes

    def on_put(self, name: str, file: StoreFile) -> Callable[[Record], None]:
        """A scheduler's record is about to be on disk."""

        def look(record: Record) -> None:
            build = record.build
            if build.origin != name:
                self.no(f"{name} has a record of {build.origin}'s build")
            if build.attempt > SCHEDULER.attempts:
                self.no(f"attempt {build.attempt} of {build.id}")
            before = self._told.get((file.id, build.id))
            if before is not None and _end(before) != _end(build):
                self.no(f"two results: {_end(before)}, {_end(build)}")
            if build.stage is Stage.STOPPED and before is None:
                self._told[file.id, build.id] = build
                self._is_true(build)

        return look

    def on_restored(self, file: StoreFile) -> None:
        """What it says has been told."""
        for record in file.records.values():
            if record.build.stage is Stage.STOPPED:
                self._told[file.id, record.build.id] = record.build

    def _is_true(self, build: Build) -> None:
        """The result is what happened."""
        if build.result is Result.CANCELLED and build.id not in self._world.cancelled:
            self.no(f"{build.id} was cancelled by nobody: {_story(build)}")
        if build.result is Result.LOST and build.attempt < SCHEDULER.attempts:
            self.no(f"{build.id} was given up early: {_story(build)}")
        ends = _ENDS.get(build.result) if build.result is not None else None
        if ends is None:
            return
        journal = self._world.machines[build.node.id].journal if build.node is not None else []
        if not any((end.value, build.id, build.attempt) in journal for end in ends):
            self.no(f"{build.result} of an attempt that did not end so: {_story(build)}")

    def on_accepted(self, accepted: Accepted) -> None:
        """A client was answered."""
        world = self._world
        for other in world.accepted:
            same = (other.program, other.store) == (accepted.program, accepted.store)
            if same and other.key == accepted.key != "" and other.build != accepted.build:
                self.no(f"two builds with one key: {other}, {accepted}")
        world.accepted.append(accepted)

    # Messages

    def on_send(self, call: Call) -> None:
        """A scheduler speaks to a node."""
        records = self._world.files[call.life.program].records
        match call.verb:
            case "submit":
                forward = call.arguments[2]
                record = records.get(forward.id)
                if record is None or record.build.attempt < forward.attempt:
                    self.no(f"forwarded before it was on disk: {forward}")
            case "cancel":
                self._may_cancel(call, records.get(call.arguments[1]))
            case "acknowledge":
                ledger = self._world.parts[call.life.program].dispatcher.ledger
                for key, _ in call.arguments[1].attempts:
                    record = records.get(key)
                    if record is None or _place(record.build) != _place(ledger.get(key)):
                        self.no(f"acknowledged before it was on disk: {key}")

    def _may_cancel(self, call: Call, record: Record | None) -> None:
        _, key, attempt = call.arguments
        if key in self._world.cancelled:
            return
        if record is None:
            self.no(f"cancels what it does not know: {key}.{attempt}")
            return
        build = record.build
        elsewhere = build.node is None or build.node.id != call.node
        superseded = build.attempt > attempt or (build.attempt == attempt and elsewhere)
        if build.stage is not Stage.STOPPED and not superseded:
            self.no(f"cancels {key}.{attempt} on {call.node}, which is wanted: {_story(build)}")

    def hearing(self, scheduler: Scheduler) -> Callable[[Report], None]:
        """A scheduler hears a report: what it had given up, or forgotten, and not replaced is the
        build's again.
        """
        heard = scheduler.dispatcher.pool.on_report

        def look(report: Report) -> None:
            heard(report)
            ledger = scheduler.dispatcher.ledger
            for there in report.builds:
                record = ledger.get(there.id) if there.id in ledger else None
                if record is None or Stage.STOPPED in (record.stage, there.stage):
                    continue
                if record.stage is Stage.QUEUED and there.attempt >= record.attempt:
                    self.no(f"{there.id}.{there.attempt} is not taken up again: {_story(record)}")

        return look

    # Containers

    def starting(self, machine: Machine) -> Callable[[Box], None]:
        """A container starts."""

        def look(box: Box) -> None:
            seen = [what for what, *which in machine.journal if which == [box.build, box.attempt]]
            ran = machine.records[box.build].record.build.stage in (Stage.RUNNING, Stage.COLLECTING)
            if seen and (ran or seen[-1] not in _GONE):
                self.no(f"{machine.name} begins {box.build}.{box.attempt} again: {seen}")
            last = self._seen.get((machine.name, box.build), 0)
            if box.attempt < last:
                self.no(f"{machine.name} begins {box.build}.{box.attempt} after {last}")
            self._seen[machine.name, box.build] = box.attempt

        return look

    # States

    def _unlost(self) -> None:
        """What was acknowledged is on disk."""
        world = self._world
        for one in world.accepted:
            if one.program in world.files:
                file = world.files[one.program]
                if file.id == one.store and one.build not in file.records:
                    self.no(f"lost: {one}")
            elif one.build not in world.machines[one.program].records:
                self.no(f"lost: {one}")

    def _no_strangers(self) -> None:
        """Direct builds end as their users want."""
        for machine in self._world.machines.values():
            for kept in machine.records.values():
                build = kept.record.build
                by_whom = build.result is Result.CANCELLED and build.id not in self._world.cancelled
                if kept.record.forward is None and by_whom:
                    self.no(f"a direct build was cancelled: {_story(build)}")

    def at_rest(self) -> None:
        """Every build has ended: once, and with all that belongs to it."""
        world = self._world
        for one in world.accepted:
            file = world.files.get(one.program)
            if file and one.build not in file.records and one.build in self._must_be(one.program):
                self.no(f"lost with the store: {one}")
        for file in world.files.values():
            for record in file.records.values():
                self._has_artifact(record.build)
        for name in world.network.services:
            if boxes := world.machines[name].boxes:
                self.no(f"left behind on {name}: {list(boxes)}")
        self.check()

    def _must_be(self, scheduler: str) -> set[str]:
        """Builds that the nodes that live can tell of."""
        told = [self._world.machines[name].records for name in self._world.network.services]
        return self._world.keepable.get(scheduler, set()) & {key for kept in told for key in kept}

    def _has_artifact(self, build: Build) -> None:
        if build.result is not Result.SUCCEEDED or build.node is None:
            return
        there = self._world.machines[build.node.id].artifacts.get(build.id)
        marked = artifact_mark(build.node.id, build.id, build.attempt)
        if there is None or there.sha256 != marked or build.artifacts != (there,):
            self.no(f"its artifact is not there: {_story(build)}: {there}")


def _end(build: Build) -> tuple[Any, ...]:
    return (build.stage, build.result, build.attempt, build.artifacts)


def _place(build: Build) -> tuple[Any, ...]:
    """What an acknowledgement may not run ahead of."""
    return (build.stage in (Stage.QUEUED, Stage.STOPPED), build.attempt, build.result)


def _story(build: Build) -> str:
    steps = ", ".join(f"{step.event} ({step.cause})" for step in build.history)
    where = build.node.id if build.node else "no node"
    return f"{build.id[-4:]}.{build.attempt} {build.stage.value} on {where}: {steps}"

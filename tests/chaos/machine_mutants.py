"""Mistakes that the machine must find: each takes one safeguard out of the programs."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from node import runner
from node import service as node_service
from node.core.resume import Way
from protocol.model.build import Build, Stage
from protocol.model.messages import Acknowledgement, Report
from protocol.model.request import Forward
from scheduler.core import reconcile as reconciling
from scheduler.core import steps
from scheduler.core.reconcile import Action, Adopt, Cancel, Resend
from scheduler.dispatch import following
from scheduler.dispatch.attempts import Attempts
from scheduler.dispatch.following import Follower
from scheduler.ledger import Ledger

_reconcile, _followed = reconciling.reconcile, steps.followed


def _unknown_is_cancelled(
    wanted: Iterable[Build], known: Mapping[str, Build], report: Report
) -> tuple[Action, ...]:
    actions = _reconcile(wanted, known, report)
    return tuple(
        Cancel(action.reported.id, action.reported.attempt)
        if isinstance(action, Adopt) and action.reported.id not in known
        else action
        for action in actions
    )


def _nothing_is_sent_again(
    wanted: Iterable[Build], known: Mapping[str, Build], report: Report
) -> tuple[Action, ...]:
    actions = _reconcile(wanted, known, report)
    return tuple(action for action in actions if not isinstance(action, Resend))


def _any_attempt_is_admitted(known: Build | None, forward: Forward) -> bool:
    return known is None or known.attempt != forward.attempt


def _any_attempt_is_the_records(record: Build, there: Build, node: str) -> bool:
    return record.stage is not Stage.STOPPED and record.node is not None


def _any_attempt_is_followed(build: Build, reported: Build, now: float, limit: int) -> Build:
    return _followed(build, replace(reported, attempt=build.attempt), now, limit)


async def _acknowledged_unsaved(
    self: Any, node: str, attempts: tuple[tuple[str, int], ...]
) -> None:
    if client := self._pool.client(node):
        await client.acknowledge(self._caller, Acknowledgement(attempts, self._caller.store))


async def _nobody_waits(self: Any, build_id: str) -> None:
    pass


def _everything_begins(build: Build, **facts: bool) -> Way:
    return Way.GO_ON if facts["has_container"] and facts["has_folder"] else Way.BEGIN


MUTANTS: dict[str, list[tuple[Any, str, Any]]] = {
    "an unknown attempt is cancelled": [(following, "reconcile", _unknown_is_cancelled)],
    "a lost forward is not sent again": [(following, "reconcile", _nothing_is_sent_again)],
    "the fence admits lower attempts": [(node_service, "admits", _any_attempt_is_admitted)],
    "attempts are not told apart": [
        (reconciling, "_is_newer", lambda record, there: False),
        (reconciling, "_is_the_records", _any_attempt_is_the_records),
        (steps, "followed", _any_attempt_is_followed),
    ],
    "nothing is found again": [(Attempts, "found_again", lambda self, reported, node: None)],
    "acknowledged before it is saved": [(Follower, "_acknowledged", _acknowledged_unsaved)],
    "forwarded before it is saved": [(Ledger, "saved", _nobody_waits)],
    "a node begins again what had run": [(runner, "way_on", _everything_begins)],
}
"""What is wrong -> (where, name, what takes its place)."""

"""Sends attempts to nodes, and makes of each answer what our record says next.

An attempt leaves when it is on disk that it does. What the answer leaves open - none came, or one
that makes no sense - the node's next report decides.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from protocol.errors import Busy, Conflict, Denied, Invalid, PoolError, Unavailable, Unreachable
from protocol.model.build import Build, Stage
from protocol.model.messages import Report
from protocol.model.request import Forward, given_secrets
from protocol.ports.service import Caller
from protocol.trust.seal import Seal
from scheduler.dispatch.attempts import Attempts
from scheduler.dispatch.sources import SourceGone, Sources, SourceSilent
from scheduler.pool.poller import Pool

_TRIES = 3
"""Times that one attempt is sent to a node that does not have it, before it is taken for failed."""
_HOLD = 0.1
"""Seconds for which a node is passed over that had no room; doubled with each time in a row."""
_HOLD_MOST = 10.0


class _Full(NamedTuple):
    """A node said that it has no room."""

    report: Report  # its newest then
    refusals: int  # in a row, before this one
    until: float  # monotonic; it is asked again after that


class Forwarder:
    """Attempts on their way to nodes, and what is remembered of how nodes took them."""

    def __init__(
        self, caller: Caller, pool: Pool, attempts: Attempts, sources: Sources, seal: Seal
    ) -> None:
        """`caller`: this scheduler, as nodes know it."""
        self._seal = seal
        self.on_the_way: set[str] = set()  # builds whose forward is not answered yet
        self._caller = caller
        self._pool = pool
        self._ledger = attempts.ledger
        self._attempts = attempts
        self._sources = sources
        self._tries: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._full: dict[str, _Full] = {}  # of each node that had no room
        # node -> build that it never takes -> why
        self._never: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, build: Build, *, first: bool = False) -> None:
        """Ask its node to take the build's attempt, unless that is under way. `first`: nobody can
        have asked it before; else an earlier forward may have been heard, whatever this one hears.
        """
        if build.id in self.on_the_way:
            return
        key = (build.id, build.attempt)
        if self._tries[key] >= _TRIES:
            self._attempts.failed(build, f"its node did not take it in {_TRIES} tries")
            return
        self._tries[key] += 1
        self.on_the_way.add(build.id)
        task = asyncio.create_task(self._forward(build, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_full(self, report: Report) -> bool:
        """Whether the node refused a build for want of room a moment ago, or has not reported
        since.
        """
        full = self._full.get(report.id)
        return full is not None and (full.report is report or time.monotonic() < full.until)

    def never_takes(self, node: str) -> Mapping[str, str]:
        """The builds that the node will not take, ever, and why, in its words."""
        return dict(self._never.get(node, {}))

    def forget(self, build: Build) -> None:
        """Nothing need be remembered of a build that has stopped."""
        for attempt in range(1, build.attempt + 1):
            self._tries.pop((build.id, attempt), None)
        for never in self._never.values():
            never.pop(build.id, None)

    async def close(self) -> None:
        """Stop waiting for answers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(self, build: Build, first: bool) -> None:
        assert build.node is not None
        node = build.node.id
        try:
            await self._ledger.saved(build.id)
        except PoolError as error:  # nothing has left
            if first:
                self._declined(build, f"it could not be written down: {error.detail}", first)
            self.on_the_way.discard(build.id)
            return
        try:
            if await self._is_given(build, first):
                taken = await self._ask(build)
                self._full.pop(node, None)
                self._attempts.follow(taken, node)
        except Busy as error:
            self._had_no_room(node)
            self._declined(build, error.detail, first)
        except Unreachable as error:
            self._pool.disbelieve(node, error.detail)
            if first:  # otherwise its next report decides
                self._declined(build, error.detail, first)
        except Unavailable as error:  # it may have heard us: its next report decides
            self._pool.disbelieve(node, error.detail)
        except (Conflict, Denied, Invalid) as error:  # this build, on that node: never
            self._never[node][build.id] = error.detail
            self._declined(build, error.detail, first)
        except PoolError as error:
            self._attempts.failed(build, f"{build.node.name} failed to take it: {error.detail}")
        finally:
            self.on_the_way.discard(build.id)
            self._pool.changed.touch()

    async def _is_given(self, build: Build, first: bool) -> bool:
        """Whether the node has what the build needs now, and somebody still wants the attempt."""
        try:
            await self._sources.give(build, self._pool.client_of(build))
        except SourceGone as error:
            self._attempts.refused(build, str(error))
            return False
        except SourceSilent as error:
            self._sources.hold(build, str(error))
            self._declined(build, str(error), first)
            return False
        if build.id not in self._ledger:
            return False
        now = self._ledger.get(build.id)
        return now.attempt == build.attempt and now.stage not in (Stage.QUEUED, Stage.STOPPED)

    async def _ask(self, build: Build) -> Build:
        above = self._ledger.forward_of(build.id)
        forward = Forward(
            id=build.id,
            origin=self._caller.program,
            attempt=build.attempt,
            owner=build.owner,
            path=(*(above.path if above else ()), self._caller.program),
            store=self._caller.store,
            key=build.key,
            retry_of=build.retry_of,
        )
        assert build.node is not None
        forward = replace(forward, seal=self._seal.of(build.request, forward, build.node.id))
        secrets = given_secrets(build.request, self._ledger.secrets_of(build.id))
        client = self._pool.client_of(build)
        return await client.submit(self._caller, build.request, forward, secrets=secrets)

    def _had_no_room(self, node: str) -> None:
        """It turned busy since its report: it is passed over until it reports anew, and for longer
        each time that it says so in a row, whatever it reports.
        """
        refusals = self._full[node].refusals + 1 if node in self._full else 0
        hold = min(_HOLD * 2**refusals, _HOLD_MOST)
        for entry in self._pool.entries():
            if entry.report is not None and entry.report.id == node:
                self._full[node] = _Full(entry.report, refusals, time.monotonic() + hold)
        asyncio.get_running_loop().call_later(hold, self._pool.changed.touch)

    def _declined(self, build: Build, cause: str, first: bool) -> None:
        """Back to the queue. The attempt is not used up, unless an earlier forward of it may have
        been heard: its number is then never given to another node.
        """
        self._tries.pop((build.id, build.attempt), None)
        if first:
            self._attempts.declined(build, cause)
        else:
            self._attempts.given_up(build, cause)

"""How a program that may be a node is asked for its report, again and again: held while nothing
changes, by whichever of its addresses answers, seldom where it is as good as dead.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from protocol.errors import PoolError, Unproven
from protocol.model.messages import Report
from protocol.ports.service import Caller
from scheduler.config import SchedulerSettings
from scheduler.core.roster import Entry
from scheduler.pool.proof import Proof
from scheduler.pool.race import first_answer
from scheduler.pool.target import Target

log = logging.getLogger(__name__)

_MEASURE = 30.0  # seconds between polls that are not held, which measure the latency
_SELDOM = 10.0  # how many times as long as at first a dead address is left in peace
_HEAD_START = 0.1  # seconds that an address has before the next one is tried beside it


class Polling:
    """Of every target. For use on the event loop."""

    def __init__(
        self,
        caller: Caller,
        settings: SchedulerSettings,
        answered: Callable[[Target, Report], None],
        unanswered: Callable[[Target, PoolError], None],
        proof: Proof,
    ) -> None:
        """`caller`: this scheduler, as nodes know it; the others are told of each poll's end."""
        self._proof = proof
        self._caller = caller
        self._settings = settings
        self._answered = answered
        self._unanswered = unanswered

    def anew(self, target: Target) -> None:
        """Ask now, wherever the polling was, and go on asking until the target is closed."""
        if target.task is not None:
            target.task.cancel()
        target.task = asyncio.create_task(self._poll(target))
        target.task.add_done_callback(_complain)

    async def _poll(self, target: Target) -> None:
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
                if not self._proof.check(target.entry.url, target.proven, report):
                    await target.expect(report.id)
                    token = None
                    continue
            except PoolError as error:
                token = None
                self._unanswered(target, error)
                if isinstance(error, Unproven) and "/" in target.entry.key:
                    await target.expect("")  # another program may be there now
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
        asks = [partial(self._ask, target, url) for url in urls]
        number, report = await first_answer(asks, _HEAD_START)
        target.entry = replace(target.entry, url=urls[number])
        return report

    async def _ask(self, target: Target, url: str) -> Report:
        return await target.client_at(url).status(self._caller)


def _complain(task: "asyncio.Task[None]") -> None:
    """A poller never ends by an error; where one does, that is a bug worth a trace."""
    if not task.cancelled() and (error := task.exception()):
        log.error("polling ended", exc_info=error)

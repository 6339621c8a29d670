"""Tells receivers of each change of a build's state, and asks whether builds are still wanted.

Only the program that a client gave the build to does so. What there is to tell follows from the
build alone (`protocol/model/notice_rules.py`); a change is told when it is on disk, and how far
each notice is goes to disk with the build, so that a program that starts again goes on where it
was: in order, each change once at least.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Protocol

from protocol.builds.board import Board
from protocol.builds.callout import Callout
from protocol.errors import NotFound, PoolError
from protocol.model import notice_rules as rules
from protocol.model.build import Build, NoticeRecord, Stage
from protocol.model.networks import reach
from protocol.model.request import Secrets
from protocol.program.settings import ProgramSettings
from protocol.remote.guard import Guard

log = logging.getLogger(__name__)

_ANSWER = 64 << 10  # bytes of an answer to `cancel_url`


class Ledger(Protocol):
    """What notices need of a program's record of its builds."""

    board: Board

    async def saved(self, build_id: str) -> None:
        """Return when the build's newest stage is on disk. Raises NotFound, Unavailable."""

    def secrets_of(self, build_id: str) -> Secrets:
        """Those that are still needed. Raises NotFound."""
        ...

    async def note_told(self, build_id: str, notices: tuple[NoticeRecord, ...]) -> None:
        """How far its notices are. Raises NotFound, Unavailable."""


Cancel = Callable[[str, str], Awaitable[None]]
"""Ends a build by its id, with a reason. Raises PoolError."""


class Notices:
    """The notices of a program's own builds. For use on the event loop."""

    def __init__(self, me: str, ledger: Ledger, settings: ProgramSettings, cancel: Cancel) -> None:
        """`me`: the program's id, which the builds have as their origin that are its own."""
        self._me = me
        self._ledger = ledger
        self._settings = settings
        self._cancel = cancel
        allowed = reach(settings.notice_networks, "notice_networks")
        self._telling, self._asking = (
            Callout(settings.notice_timeout, settings.notice_limit, Guard(allowed))
            for _ in range(2)
        )
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Go on with what an earlier life left untold; hear of every change from now on."""
        self._ledger.board.observe = self._look
        for build in self._ledger.board:
            self._look(build)

    async def close(self) -> None:
        """Stop telling; what is untold is told in the next life."""
        self._ledger.board.observe = lambda build: None
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._telling.close()
        await self._asking.close()

    def _look(self, build: Build) -> None:
        """See to what this build needs, unless that is under way."""
        guidance = build.request.guidance
        if build.origin != self._me or not (guidance.notices or guidance.cancel_url):
            return
        for index in rules.outstanding(build):
            self._do((build.id, index), self._tell, build.id, index)
        if guidance.cancel_url is not None and build.stage is not Stage.STOPPED:
            self._do((build.id, "cancel"), self._ask, build.id, guidance.cancel_url)

    def _do(self, key: Hashable, work: Callable[..., Coroutine[Any, Any, None]], *of: Any) -> None:
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._done(key, work, *of))

    async def _done(
        self, key: Hashable, work: Callable[..., Coroutine[Any, Any, None]], *of: Any
    ) -> None:
        try:
            await work(*of)
        except NotFound:
            pass  # the build was forgotten
        except Exception:
            log.exception("notices of build %s", of[0])
        finally:
            del self._tasks[key]

    # Telling

    async def _tell(self, build_id: str, index: int) -> None:
        """Deliver what one notice has to tell, one change after another, until there is none."""
        while True:
            build = self._ledger.board.get(build_id)
            change = rules.pending(build, index)
            if change is None:
                return
            try:
                await self._ledger.saved(build_id)
                why = await self._sent(build, index, change)
                failures = await self._note(build_id, index, why)
            except NotFound:
                raise
            except PoolError as error:  # the disk: it is told again rather than not at all
                log.warning("how far notices of build %s are: %s", build_id, error.detail)
                failures = 1
            if failures:
                await asyncio.sleep(rules.pause(failures, self._settings.notice_pause))

    async def _sent(self, build: Build, index: int, change: rules.Change) -> str:
        """Why the receiver does not have it; empty where it does."""
        notice = build.request.guidance.notices[index]
        assert notice.url is not None
        key = ""
        if notice.secret is not None:
            key = self._ledger.secrets_of(build.id).get(notice.secret, "")
            if not key:
                return rules.NO_KEY
        content = rules.body(build, change, self._settings.public_url)
        headers = rules.headers(build, change, content, key, time.time())
        try:
            status = await self._telling.post(notice.url, content, headers)
        except PoolError as error:
            return error.detail
        return "" if 200 <= status < 300 else f"it answered {status}"

    async def _note(self, build_id: str, index: int, why: str) -> int:
        """Put on record what became of the try; the number of failures in a row."""
        build = self._ledger.board.get(build_id)
        tries = self._settings.notice_tries
        if not why:
            after = rules.delivered(build, index)
        elif why == rules.NO_KEY:
            after = rules.abandoned(build, index, why)
        else:
            after = rules.failed(build, index, why, tries)
        if gave_up := after[index].gave_up:
            log.warning("notice %d of build %s is given up: %s", index, build_id, gave_up)
        await self._ledger.note_told(build_id, after)
        return after[index].failures

    # Asking

    async def _ask(self, build_id: str, url: str) -> None:
        """Ask again and again whether the build is wanted, until it has stopped."""
        while True:
            await asyncio.sleep(self._settings.cancel_every)
            if self._ledger.board.get(build_id).stage is Stage.STOPPED:
                return
            try:
                if rules.says_unwanted(*await self._asking.get(url, _ANSWER)):
                    await self._cancel(build_id, rules.UNWANTED)
                    return
            except NotFound:
                raise
            except PoolError as error:
                log.info("whether build %s is wanted: %s", build_id, error.detail)

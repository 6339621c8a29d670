"""Follows what one plain node has of ours: asks for the status of each build, counts its image when
it has stopped, and decides when an attempt is given up.

An attempt is lost where its node does not know it any more, tells other things of it than before,
or tells nothing that makes sense for `lost_after`.
"""

import asyncio
import hashlib
import time

from msgspec import Struct
from msgspec.structs import replace

from protocol.concurrency.watch import Watch
from protocol.errors import Invalid, NotFound, PoolError, Unavailable
from protocol.model.build import Artifact, Build, Result, Stage
from protocol.model.lifecycle import RESULTS
from protocol.remote.response import ResponseStream
from scheduler.core.plain import Phase, PlainAttempt
from scheduler.core.plain_api import (
    BuildDocument,
    at_stage,
    file_name,
    on_node,
    read,
    stage_of,
    verdict,
    waiting,
)
from scheduler.plain.attempts import PlainAttempts
from scheduler.plain.exchange import PlainExchange
from scheduler.plain.streams import counted

LINGER = 3600.0
"""Seconds after which a build that nobody wants any more has no slot, though it has not stopped."""
_TRIES = 3  # looks in a row that must have failed before an attempt is lost
_IMAGE_LIMIT = 1 << 40  # bytes of an image
_COUNTING = 3600.0  # seconds that it may take to come here once
_UNHEARD = "the answer to its create was lost: nobody can say whether it runs there"


class _Trouble(Struct, frozen=True):
    """Looks in a row that told nothing."""

    since: float  # monotonic seconds
    count: int = 0


class Watcher:
    """What is known of each attempt on one node. For use on the event loop."""

    def __init__(
        self, http: PlainExchange, me: str, lost_after: float, attempts: PlainAttempts
    ) -> None:
        """`me`: this scheduler's id; `lost_after`: seconds without a word of an attempt."""
        self.changed = Watch()
        self.complaint = ""  # what made no sense last; empty since a build went well
        self._http = http
        self._me = me
        self._lost_after = lost_after
        self._attempts = attempts
        self._shown: dict[tuple[str, int], Build] = {}
        self._troubles: dict[tuple[str, int], _Trouble] = {}
        self._counting: dict[tuple[str, int], asyncio.Task[None]] = {}

    def shown(self, attempt: PlainAttempt, *, sending: bool = False) -> Build:
        """The attempt as a report shows it. `sending`: its create is under way."""
        known = self._shown.get(attempt.key)
        if known is None and attempt.phase is Phase.SENT and not sending:
            self._lose(attempt, _UNHEARD)
            known = self._shown[attempt.key]
        return known or waiting(attempt, self._me)

    def complain(self, words: str) -> None:
        """Something made no sense: the roster says so until a build has gone well."""
        self.complaint = words
        self.changed.touch()

    async def look(self, attempt: PlainAttempt) -> None:
        """Ask how it is. Never raises PoolError."""
        key = attempt.key
        if attempt.phase is Phase.UNWANTED and time.time() - attempt.since > LINGER:
            self._attempts.put(replace(attempt, phase=Phase.DONE))
            return
        if not attempt.status or key in self._counting or self._has_stopped(key):
            return
        try:
            document = await self._http.get(attempt.status, BuildDocument)
            if (now := self._attempts.get(key)) is not None:
                self._take_in(now, document)
        except NotFound:
            self._lose(attempt, "it does not know the build any more")
        except PoolError as error:
            self._note(attempt, error.detail)
        else:
            if key not in self._counting:
                self._troubles.pop(key, None)

    def settled(self, attempt: PlainAttempt) -> None:
        """Its end is on record: it is reported no more."""
        shown = self._shown.get(attempt.key)
        if shown is None or shown.stage is not Stage.STOPPED:
            return
        if shown.result is Result.LOST:
            self.forget(attempt)
        else:
            self._attempts.put(replace(attempt, phase=Phase.DONE))

    def forget(self, attempt: PlainAttempt) -> None:
        """Nothing of it is to be had any more."""
        self._attempts.forget(attempt)
        for known in (self._shown, self._troubles):
            known.pop(attempt.key, None)
        self.changed.touch()

    def dethrone(self, node: str, newer: PlainAttempt) -> None:
        """The node gave this attempt a status URL: whatever had the same is gone there."""
        for attempt in self._attempts.on(node):
            if attempt.status == newer.status and attempt.key != newer.key:
                self._lose(attempt, "its node gave its number to another build")

    async def log_of(self, attempt: PlainAttempt) -> bytes:
        """The whole log, as it is now. Raises Unavailable where that is not what was told of it."""
        try:
            document = await self._http.get(attempt.status, BuildDocument)
            _, log = read(document, attempt.names)
        except (Invalid, NotFound) as error:
            raise Unavailable(f"its node does not tell the log: {error.detail}") from error
        if _differs(attempt, log):
            raise Unavailable("its node has forgotten the build")
        return log

    async def close(self) -> None:
        """Stop counting."""
        for task in self._counting.values():
            task.cancel()
        await asyncio.gather(*self._counting.values(), return_exceptions=True)

    # What an answer means

    def _take_in(self, attempt: PlainAttempt, document: BuildDocument) -> None:
        """Raises Invalid where it makes no sense."""
        commands, log = read(document, attempt.names)
        if _differs(attempt, log):
            self._lose(attempt, "it tells other things of the build than before")
            return
        if len(log) > attempt.seen:
            digest = hashlib.sha256(log).hexdigest()
            attempt = self._attempts.put(replace(attempt, seen=len(log), digest=digest))
        build = replace(
            at_stage(waiting(attempt, self._me), stage_of(document, commands)),
            commands=commands,
            log_size=len(log),
        )
        if build.stage is not Stage.COLLECTING:
            self._show(attempt, build)
        elif attempt.phase is Phase.UNWANTED:
            self._attempts.put(replace(attempt, phase=Phase.DONE))
            self.changed.touch()
        else:
            self._collect(attempt, build, document.download)

    def _collect(self, attempt: PlainAttempt, build: Build, download: str | None) -> None:
        """It has stopped: its image is counted, once, then that is its end."""
        if download and attempt.artifact is None:
            try:
                image = on_node(self._http.url, download, "download")
            except Invalid as error:
                self._lose(attempt, error.detail)
                return
            attempt = self._attempts.put(replace(attempt, image=image))
            self._show(attempt, build)
            task = asyncio.create_task(self._count(attempt))
            self._counting[attempt.key] = task
            task.add_done_callback(lambda _: self._counting.pop(attempt.key, None))
            return
        artifacts = () if attempt.artifact is None else (attempt.artifact,)
        event, reason = verdict(replace(build, artifacts=artifacts))
        self.complaint = ""
        self._show(
            attempt,
            replace(
                build,
                artifacts=artifacts,
                stage=Stage.STOPPED,
                result=RESULTS[event],
                reason=reason,
            ),
        )

    async def _count(self, attempt: PlainAttempt) -> None:
        """Size and digest of the image, by having it come here; the next look ends the build."""
        try:
            async with asyncio.timeout(_COUNTING):
                response = await self._http.open(attempt.image, {})
                stream = ResponseStream(response, response.content_length)
                try:
                    size, digest = await counted(stream, _IMAGE_LIMIT)
                finally:
                    await stream.close()
        except (PoolError, TimeoutError) as error:
            self._note(attempt, f"its image does not come: {error or 'it takes too long'}")
            return
        if (now := self._attempts.get(attempt.key)) is not None:
            artifact = Artifact(file_name(attempt.image), size, digest)
            self._attempts.put(replace(now, artifact=artifact))
        self._troubles.pop(attempt.key, None)
        self.changed.touch()

    def _show(self, attempt: PlainAttempt, build: Build) -> None:
        if self._shown.get(attempt.key) != build:
            self._shown[attempt.key] = build
            self.changed.touch()

    def _has_stopped(self, key: tuple[str, int]) -> bool:
        known = self._shown.get(key)
        return known is not None and known.stage is Stage.STOPPED

    # What went wrong

    def _note(self, attempt: PlainAttempt, words: str) -> None:
        """A look told nothing; too many of them, for too long, and the attempt is lost."""
        now = time.monotonic()
        before = self._troubles.get(attempt.key) or _Trouble(now)
        trouble = self._troubles[attempt.key] = replace(before, count=before.count + 1)
        if trouble.count >= _TRIES and now - trouble.since >= self._lost_after:
            self._lose(attempt, words)
        elif self.complaint != words:
            self.complain(words)

    def _lose(self, attempt: PlainAttempt, words: str) -> None:
        """The attempt came to nothing there; one that is not wanted is forgotten for that."""
        attempt = self._attempts.get(attempt.key) or attempt
        self.complain(f"build {attempt.build}: {words}")
        if attempt.phase in (Phase.UNWANTED, Phase.DONE):
            self.forget(attempt)
            return
        build = self._shown.get(attempt.key) or waiting(attempt, self._me)
        ended = replace(build, stage=Stage.STOPPED, result=Result.LOST, reason=words)
        self._show(attempt, ended)


def _differs(attempt: PlainAttempt, log: bytes) -> bool:
    """Whether this log does not begin with what was told before."""
    told = log[: attempt.seen]
    return bool(attempt.seen) and hashlib.sha256(told).hexdigest() != attempt.digest

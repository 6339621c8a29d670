"""A plain node as the scheduler sees every node: the verbs of `NodeClient` over the documented
image-creator API, so that reports, reconciling and acknowledging work as ever.

An attempt is sent to it once. The intent is on disk before the create leaves, the status URL after:
an attempt whose answer was lost is never sent again, it is reported as lost.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from secrets import token_hex
from urllib.parse import urlsplit

from msgspec.structs import replace

from protocol.errors import (
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PoolError,
    Unavailable,
    Unreachable,
)
from protocol.model.build import Build, Position, Stage
from protocol.model.messages import API_VERSION, Acknowledgement, Report
from protocol.model.request import BuildRequest, Forward, Secrets
from protocol.ports.service import ByteRange, ByteStream, Caller, OpenArtifact, OpenLog
from protocol.transfer.streams import no_log
from scheduler.config import SchedulerSettings
from scheduler.core.plain import LACKS, PLAIN, Phase, PlainAttempt, beyond
from scheduler.core.plain_api import ServerDocument, on_node, specification, status_url
from scheduler.plain.attempts import PlainAttempts
from scheduler.plain.exchange import PlainExchange
from scheduler.plain.streams import GrowingLog, open_image
from scheduler.plain.watcher import Watcher

_SLOWNESS = 10
"""How many times as long as other nodes it may take for an answer: the documented server does one
thing after the other, and copies an image while nobody else is answered.
"""
_REST = 5
"""How many times as long as a poll took it is left in peace before the next one: each brings the
whole output of every build.
"""
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def plain_id(url: str) -> str:
    """The id of the plain node at this URL; it has no key that would make one."""
    return hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()


class PlainNode:
    """A `NodeClient` at the URL of a plain node."""

    def __init__(
        self, url: str, me: str, settings: SchedulerSettings, attempts: PlainAttempts
    ) -> None:
        """`me`: this scheduler's id."""
        self.id = plain_id(url)
        self.name = _UNFIT.sub("-", urlsplit(url).netloc).strip("-")
        self._settings = settings
        self._attempts = attempts
        self._http = PlainExchange(url, settings.patience * _SLOWNESS)
        self._watcher = Watcher(self._http, me, settings.lost_after, attempts)
        self._changed = self._watcher.changed
        self._sending: set[tuple[str, int]] = set()
        self._creates = 0  # so many were sent; one that came after a `ready` uses that up
        self._server = ServerDocument("busy", 0)
        self._free = False  # it said `ready`, and has been given nothing since
        self._pause = settings.plain_poll
        self._boot = token_hex(4)
        self._reports = 0
        self._told = 0  # changes that the last report had
        self._last: Report | None = None

    async def close(self) -> None:
        """Stop what is under way."""
        await self._watcher.close()
        await self._http.close()

    # Builds

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
    ) -> Build:
        """See BuildService. An attempt that was sent before is not sent again."""
        assert forward is not None
        if words := beyond(request):
            raise Denied(f"{self.name} speaks an API that cannot express {words}")
        known = self._attempts.of(forward.id, forward.attempt, self.id)
        if known is not None:
            return self._watcher.shown(known, sending=known.key in self._sending)
        names = tuple(command.name for command in request.recipe.commands)
        attempt = PlainAttempt(forward.id, forward.attempt, self.id, names, time.time())
        with self._under_way(attempt):
            try:
                await self._attempts.add(attempt)
            except Unavailable as error:
                raise Unreachable(f"it could not be written down: {error.detail}") from error
            status = await self._created(attempt, request)
        now = self._attempts.get(attempt.key) or attempt
        phase = Phase.LIVE if now.phase is Phase.SENT else now.phase
        now = self._attempts.put(replace(now, phase=phase, status=status))
        self._watcher.dethrone(self.id, now)
        return self._watcher.shown(now)

    @contextmanager
    def _under_way(self, attempt: PlainAttempt) -> Iterator[None]:
        self._sending.add(attempt.key)
        self._creates += 1
        try:
            yield
        finally:
            self._sending.discard(attempt.key)
            self._changed.touch()

    async def _created(self, attempt: PlainAttempt, request: BuildRequest) -> str:
        """Path and query of the status URL that answers the create. Raises Unavailable where it may
        have been heard, other errors where it certainly was not taken: then nothing is kept of it.
        """
        try:
            location = await self._http.create(specification(request))
            return on_node(self._http.url, status_url(location), "status")
        except Unreachable:
            self._watcher.forget(attempt)
            raise
        except (Invalid, Unavailable) as error:
            words = f"a create was not answered as documented: {error.detail}"
            self._watcher.complain(words)
            raise Unavailable(words) from error
        except PoolError as error:
            self._watcher.forget(attempt)
            self._watcher.complain(error.detail)
            fetched = any(command.text is None for command in request.recipe.commands)
            if fetched and type(error) is PoolError:  # servers that know no URLs say it so
                raise Denied(error.detail) from error
            raise

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """Raises NotFound: nobody there knows what was asked for."""
        raise NotFound(f"{self.name} is a plain node: it tells no requests", field="id")

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """The API has no cancel: the build runs on, and has its slot until it has stopped."""
        known = self._attempts.of(build_id, attempt, self.id)
        if known is None:
            raise NotFound(f"there is no build {build_id[:64]!r} on {self.name}", field="id")
        sending = known.key in self._sending
        build = self._watcher.shown(known, sending=sending)
        if build.stage is not Stage.STOPPED and known.phase in (Phase.SENT, Phase.LIVE):
            self._attempts.put(replace(known, phase=Phase.UNWANTED, since=time.time()))
            self._changed.touch()
        return build

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """Raises Conflict: what it keeps, and how long, is its own matter."""
        raise Conflict(f"{self.name} is a plain node: it keeps builds for as long as it likes")

    async def delete(self, caller: Caller, build_id: str) -> None:
        """Forget the build here; there is nothing that it can be told."""
        for attempt in self._attempts.on(self.id):
            if attempt.build == build_id:
                self._watcher.forget(attempt)

    async def missing(self, caller: Caller, digests: Collection[str]) -> frozenset[str]:
        """All of them: it takes no uploads."""
        return frozenset(digests)

    async def upload(
        self, caller: Caller, stream: ByteStream, *, sha256: str = "", size: int | None = None
    ) -> str:
        """Raises Conflict: there is no way to give it anything."""
        raise Conflict(f"{self.name} is a plain node: it takes no uploads")

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        for build, attempt in acknowledgement.attempts:
            known = self._attempts.of(build, attempt, self.id)
            if known is not None and known.phase in (Phase.SENT, Phase.LIVE):
                self._watcher.settled(known)
        self._changed.touch()

    # Logs and artifacts

    async def open_log(
        self,
        caller: Caller,
        build_id: str,
        position: Position,
        *,
        limit: int | None = None,
        follow: bool = False,
    ) -> OpenLog:
        """See BuildService. It grows when a command has ended."""
        attempt = self._held(build_id, position.attempt or None)
        if not attempt.status:
            return no_log(attempt.attempt)
        log = await self._watcher.log_of(attempt)
        start = min(position.offset, len(log))

        async def more(offset: int) -> bool:
            while (now := self._attempts.get(attempt.key)) is not None and now.seen <= offset:
                over = self._watcher.shown(now).stage is Stage.STOPPED
                if over or now.phase is not Phase.LIVE:
                    return False
                await self._changed.wait(self._changed.count, None)
            return now is not None

        async def anew() -> bytes:
            return await self._watcher.log_of(self._held(build_id, attempt.attempt))

        growing = GrowingLog(anew, log, start, limit, more if follow else None)
        return OpenLog(attempt.attempt, start, growing)

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService. A server that knows no ranges is read from its beginning."""
        return await open_image(self._http, self._held(build_id, None), name, part)

    def _held(self, build: str, attempt: int | None) -> PlainAttempt:
        known = self._attempts.of(build, attempt, self.id)
        if known is None:
            raise Unavailable(f"{self.name} has forgotten the build")
        return known

    # The node itself

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService. Such a server holds no polls: it is asked again and again here."""
        deadline = time.monotonic() + wait
        if self._last is not None and after == self._last.token:
            await self._changed.wait(self._told, min(wait, self._pause))
        while True:
            await self._poll()
            report = self._report()
            self._told = self._changed.count
            left = deadline - time.monotonic()
            if report.token != after or left <= 0:
                return report
            await self._changed.wait(self._told, min(left, self._pause))

    async def _poll(self) -> None:
        began, creates = time.monotonic(), self._creates
        server = await self._http.get("/status", ServerDocument)
        followed = [
            attempt
            for attempt in self._attempts.on(self.id)
            if attempt.phase in (Phase.LIVE, Phase.UNWANTED)
        ]
        await asyncio.gather(*map(self._watcher.look, followed))
        self._server = server
        self._free = server.status == "ready" and creates == self._creates and not self._sending
        self._pause = max(self._settings.plain_poll, _REST * (time.monotonic() - began))

    def _report(self) -> Report:
        """What a node of ours would state."""
        kept = [one for one in self._attempts.on(self.id) if one.key not in self._sending]
        builds = [self._watcher.shown(one) for one in kept if one.phase in (Phase.SENT, Phase.LIVE)]
        used = sum(one.phase is Phase.UNWANTED for one in kept)
        used += sum(build.stage is not Stage.STOPPED for build in builds)
        free = self._free and used < self._settings.plain_slots
        busy = "" if self._server.status == "ready" else "it says that it is busy"
        stated = Report(
            id=self.id,
            boot=self._boot,
            name=self.name,
            role="node",
            version="",
            api=API_VERSION,
            architecture="",
            status=self._server.status,
            priority=self._server.priority,
            token="",
            reason="; ".join(filter(None, (busy, self._watcher.complaint))),
            slots=max(1, used + free),
            used=used,
            builds=tuple(builds),
            kind=PLAIN,
            lacks=LACKS,
        )
        if self._last is None or stated != replace(self._last, token=""):
            self._reports += 1
        self._last = replace(stated, token=f"{self._boot}.{self._reports}")
        return self._last

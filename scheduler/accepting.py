"""Which builds the scheduler takes: those of clients while its queue has room, those of a scheduler
above while a node has.
"""

import time
from collections.abc import Awaitable, Callable
from secrets import token_bytes

from msgspec.structs import replace

from protocol.concurrency.locks import Locks
from protocol.errors import Busy, Conflict
from protocol.model.build import Build, build_id, new_build
from protocol.model.checks import check_addresses, check_request, check_secrets
from protocol.model.idempotency import check_same
from protocol.model.messages import PATH_LIMIT
from protocol.model.networks import reach
from protocol.model.references import filled_like
from protocol.model.request import BuildRequest, Forward, Secrets
from protocol.ports.service import LOCAL, Caller
from protocol.program.identity import Identity
from scheduler.as_node import AsNode
from scheduler.config import SchedulerSettings
from scheduler.dispatch.dispatcher import Dispatcher


class Accepting:
    """For use on the event loop."""

    def __init__(
        self,
        me: Identity,
        settings: SchedulerSettings,
        dispatcher: Dispatcher,
        as_node: AsNode,
        cancel: Callable[[Caller, str], Awaitable[Build]],
    ) -> None:
        self._me = me
        self._settings = settings
        self._dispatcher = dispatcher
        self._pool = dispatcher.pool
        self._ledger = dispatcher.ledger
        self._board = dispatcher.ledger.board
        self._sources = dispatcher.sources
        self._as_node = as_node
        self._cancel = cancel
        self._locks = Locks()  # one create at a time for a key, one forward for a build

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None,
        key: str,
        secrets: Secrets | None,
        *,
        retry_of: str = "",
    ) -> Build:
        """See BuildService. `retry_of`: the build whose request it is."""
        check_secrets(request, secrets or {}, forwarded=forward is not None)
        check_request(request, self._settings.images, exchanges=forward is not None)
        if forward is not None:
            async with self._locks[forward.id]:
                return await self._from_above(request, forward, secrets)
        self.check_addresses(request)
        if not key:
            return await self._new(caller, request, "", secrets, retry_of)
        await self._dispatcher.recovered.wait()  # a node may know the key, where our store is new
        async with self._locks[caller.owner, key]:
            known = self._ledger.made_with((caller.owner, key))
            if known is None:
                return await self._new(caller, request, key, secrets, retry_of)
            check_same(known, filled_like(request, known.request))
            return known

    def check_addresses(self, request: BuildRequest) -> None:
        """Raises Denied for a URL that we would not call."""
        check_addresses(request, reach(self._settings.notice_networks, "notice_networks"), None)

    async def acceptable(self, request: BuildRequest, owner: str) -> BuildRequest:
        """A client's request with all digests. Raises what `submit` does."""
        self._dispatcher.quotas.check(owner)
        if self._ledger.waiting >= self._settings.waiting_limit:
            raise Busy(
                f"{self._ledger.waiting} builds wait already",
                retry_after=round(min(600, self._dispatcher.prospects.next_start() or 30)) or 1,
            )
        return await self._sources.accepted(request)

    async def _new(
        self,
        caller: Caller,
        request: BuildRequest,
        key: str,
        secrets: Secrets | None,
        retry_of: str,
    ) -> Build:
        request = await self.acceptable(request, caller.owner)
        with self._dispatcher.quotas.one_coming(caller.owner):
            now = time.time()
            build = new_build(
                build_id(now, token_bytes(10)),
                request,
                origin=self._me.id,
                owner=caller.owner,
                now=now,
                key=key,
                retry_of=retry_of,
            )
            await self._ledger.add(build, None, secrets)
        self._pool.changed.touch()
        return build

    async def _from_above(
        self, request: BuildRequest, forward: Forward, secrets: Secrets | None
    ) -> Build:
        """A scheduler uses us as its node: taken while a node is ready, refused otherwise, as a
        node does.
        """
        if self._me.id in forward.path or len(forward.path) > PATH_LIMIT:
            raise Conflict(
                "the build came by this scheduler before, or by too many",
                field="forward.path",
                expected=f"at most {PATH_LIMIT} schedulers, each once",
            )
        known = self._board.get(forward.id) if forward.id in self._board else None
        last = self._ledger.forward_of(forward.id)
        if known is not None and last is None and known.origin == forward.origin:
            adopted = self._ledger.replaced(known, forward, secrets)  # when our store was new
            await self._ledger.saved(known.id)
            return self._ledger.as_asked(adopted)
        if known is not None:
            if last is None or last.origin != forward.origin or forward.attempt < last.attempt:
                raise Conflict("this build is here already", field="forward.attempt")
            if forward.attempt == last.attempt:
                return self._ledger.as_asked(known)
        request = await self._sources.accepted(request, forwarded=True)
        if known is not None:
            known = await self._cancel(LOCAL, known.id)
        if reason := self._as_node.why_busy():
            raise Busy(f"{self._as_node.name} takes no build: {reason}", retry_after=1)
        build = new_build(
            forward.id,
            request,
            origin=forward.origin,
            owner=forward.owner,
            now=time.time(),
            attempt=known.attempt if known is not None else 0,
            key=forward.key,
            retry_of=forward.retry_of,
        )
        if known is None:
            await self._ledger.add(build, forward, secrets)
        else:  # its history says which of our nodes have had it
            history = (*known.history, *build.history)
            build = replace(build, history=history, revision=known.revision + 1)
            self._ledger.replaced(build, forward, secrets)
            await self._ledger.saved(build.id)
        self._pool.changed.touch()
        return self._ledger.as_asked(build)

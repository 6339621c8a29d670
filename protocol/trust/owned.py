"""The build service as each caller may see it: an owner's builds are the owner's, and for everybody
else they are not there. Operators see all, and so do programs of the pool.
"""

import asyncio

from msgspec.structs import replace

from protocol.errors import NotFound, PoolError
from protocol.model.build import Artifact, Build, Position
from protocol.model.messages import (
    Acknowledgement,
    BuildPage,
    BuildQuery,
    Changes,
    Explanation,
    Report,
)
from protocol.model.request import BuildRequest, Forward, Reference, Secrets, contents
from protocol.ports.service import (
    BuildService,
    ByteRange,
    Caller,
    OpenArtifact,
    OpenLog,
    Role,
)

SEE_ALL = frozenset({Role.OPERATOR, Role.ADMIN, Role.PROGRAM})
"""Roles for which it does not matter whose a build is."""


def seen_by(caller: Caller) -> str | None:
    """Whose builds the caller may hear of; None: everybody's."""
    return None if caller.role in SEE_ALL else caller.owner


class OwnedService:
    """A `BuildService` over another one. What it adds to each verb: NotFound for a build of another
    owner, in the words of one that was never there.
    """

    def __init__(self, service: BuildService) -> None:
        self._service = service

    async def _check(self, caller: Caller, build_id: str) -> None:
        """Raises NotFound where the build is none of the caller's."""
        if caller.role not in SEE_ALL:
            build = await self._service.get(caller, build_id)
            if build.owner != caller.owner:
                raise _unknown(build_id)

    async def _check_named(self, caller: Caller, request: BuildRequest) -> None:
        """The same for the builds whose artifacts a request takes; names the field."""
        for field, content in contents(request):
            if isinstance(content, Reference):
                try:
                    await self._check(caller, content.build)
                except NotFound as error:
                    raise NotFound(
                        error.detail, field=f"{field}.build", expected="a known build"
                    ) from error

    async def submit(
        self,
        caller: Caller,
        request: BuildRequest,
        forward: Forward | None = None,
        key: str = "",
        secrets: Secrets | None = None,
    ) -> Build:
        """See BuildService."""
        await self._check_named(caller, request)
        return await self._service.submit(caller, request, forward, key, secrets)

    async def preview(self, caller: Caller, request: BuildRequest) -> Explanation:
        """See BuildService."""
        await self._check_named(caller, request)
        return await self._service.preview(caller, request)

    async def retry(
        self, caller: Caller, build_id: str, key: str = "", secrets: Secrets | None = None
    ) -> Build:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.retry(caller, build_id, key, secrets)

    async def pin(self, caller: Caller, build_id: str, pinned: bool) -> Build:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.pin(caller, build_id, pinned)

    async def delete(self, caller: Caller, build_id: str) -> None:
        """See BuildService."""
        await self._check(caller, build_id)
        await self._service.delete(caller, build_id)

    async def get(
        self, caller: Caller, build_id: str, *, after: int | None = None, wait: float = 0
    ) -> Build:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.get(caller, build_id, after=after, wait=wait)

    async def list(self, caller: Caller, query: BuildQuery) -> BuildPage:
        """See BuildService. Of builds of others there are none."""
        if caller.role not in SEE_ALL:
            if query.owner not in (None, caller.owner):
                return BuildPage(())
            query = replace(query, owner=caller.owner)
        return await self._service.list(caller, query)

    async def cancel(
        self, caller: Caller, build_id: str, attempt: int | None = None, *, superseded: bool = False
    ) -> Build:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.cancel(caller, build_id, attempt, superseded=superseded)

    async def open_log(
        self,
        caller: Caller,
        build_id: str,
        position: Position,
        *,
        limit: int | None = None,
        follow: bool = False,
    ) -> OpenLog:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.open_log(caller, build_id, position, limit=limit, follow=follow)

    async def artifacts(self, caller: Caller, build_id: str) -> tuple[Artifact, ...]:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.artifacts(caller, build_id)

    async def open_artifact(
        self, caller: Caller, build_id: str, name: str, part: ByteRange | None = None
    ) -> OpenArtifact:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.open_artifact(caller, build_id, name, part)

    async def status(self, caller: Caller, *, after: str | None = None, wait: float = 0) -> Report:
        """See BuildService. Nobody is told of images and labels: they may have names in them."""
        report = await self._service.status(caller, after=after, wait=wait)
        if caller.role is Role.NOBODY:
            return replace(report, images=(), labels=(), below=())
        return report

    async def changes(self, caller: Caller, *, cursor: str = "", wait: float = 0) -> Changes:
        """See BuildService. Held on while only builds of others have changed."""
        if caller.role in SEE_ALL:
            return await self._service.changes(caller, cursor=cursor, wait=wait)
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            left = max(0.0, until - clock())
            found = await self._service.changes(caller, cursor=cursor, wait=left)
            own = tuple(build for build in found.builds if build.owner == caller.owner)
            if own or found.more or found.gone or found.reset or clock() >= until:
                return replace(found, builds=own)
            cursor = found.cursor

    async def explain(self, caller: Caller, build_id: str) -> Explanation:
        """See BuildService."""
        await self._check(caller, build_id)
        return await self._service.explain(caller, build_id)

    async def acknowledge(self, caller: Caller, acknowledgement: Acknowledgement) -> None:
        """See BuildService."""
        await self._service.acknowledge(caller, acknowledgement)


def _unknown(build_id: str) -> PoolError:
    return NotFound(f"there is no build {build_id[:64]!r} here", field="id")

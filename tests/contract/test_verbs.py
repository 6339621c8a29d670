"""The contract of what may be done with a build besides running it: preview, retry, pin, delete."""

import pytest
from msgspec.structs import replace

from protocol.errors import Conflict, Denied, Invalid, NotFound
from protocol.model.build import Position, Result, State
from protocol.model.messages import BuildQuery
from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL, BuildService, Caller
from tests.contract.test_build_service import contract, everywhere
from tests.programs import ended, request, until


@everywhere
@contract
async def test_a_preview_says_what_would_become_of_a_build(implementation, tmp_path):
    """Where it would begin, or why it would wait and in which place; nothing is accepted."""
    async with implementation(tmp_path) as subject:
        service, wanted = subject.service, request(subject.scripts.hang)
        told = await service.preview(LOCAL, wanted)
        assert (told.id, told.status, told.history) == ("", State.WAITING, ())
        assert told.reason
        assert (await service.list(LOCAL, BuildQuery())).builds == ()
        builds = [await service.submit(LOCAL, wanted) for _ in range(3)]
        for build in builds[:2]:
            await until(service, build.id, lambda build: build.state is State.RUNNING)
        told = await service.preview(LOCAL, wanted)
        assert told.place == 2
        assert "slot" in told.reason
        for build in reversed(builds):
            await service.cancel(LOCAL, build.id)


@everywhere
@contract
async def test_a_preview_refuses_what_a_create_would_refuse(implementation, tmp_path):
    """With the same error, naming the field."""
    from protocol.model.recipe import Command, ImageBase, Recipe
    from protocol.model.request import BuildRequest

    async with implementation(tmp_path) as subject:
        wanted = BuildRequest(Recipe((Command("c", text="x"),), base=ImageBase("a b")))
        for verb in (subject.service.preview, subject.service.submit):
            with pytest.raises((Invalid, Denied)) as refused:
                await verb(LOCAL, wanted)
            assert refused.value.field == "recipe.base.name"


@everywhere
@contract
async def test_a_stopped_build_is_repeated(implementation, tmp_path):
    """A new build of the same request, that says whose it is; with a key, once; the caller's own,
    whoever's the first was. One that has not stopped is not.
    """
    async with implementation(tmp_path) as subject, subject.called_by(Caller("ann")) as anns:
        service, ann = subject.service, Caller("ann")
        running = await service.submit(LOCAL, request(subject.scripts.hang, note="again"))
        with pytest.raises(Conflict):
            await service.retry(LOCAL, running.id)
        await service.cancel(LOCAL, running.id)
        first = await ended(service, running.id)
        second = await anns.retry(ann, first.id, key="k")
        assert second.id != first.id
        assert (second.request, second.retry_of) == (first.request, first.id)
        assert (second.owner, second.key) == ("ann", "k")
        assert (await anns.retry(ann, first.id, key="k")).id == second.id
        await service.cancel(LOCAL, second.id)
        assert (await ended(service, second.id)).retry_of == first.id


@everywhere
@contract
async def test_a_build_with_secrets_is_repeated_with_secrets(implementation, tmp_path):
    """They are not kept: they are to be given again, all of them and no others."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        wanted = replace(request(subject.scripts.hello), secrets=("one", "two"))
        values = {"one": "a value", "two": "another"}
        first = await ended(service, (await service.submit(LOCAL, wanted, secrets=values)).id)
        with pytest.raises(Conflict) as refused:
            await service.retry(LOCAL, first.id)
        assert refused.value.field == "secrets"
        with pytest.raises(Invalid) as missing:
            await service.retry(LOCAL, first.id, secrets={"one": "a value"})
        assert missing.value.field == "secrets.two"
        second = await service.retry(LOCAL, first.id, secrets=values)
        assert (await ended(service, second.id)).result is Result.SUCCEEDED


@everywhere
@contract
async def test_a_pin_is_seen_and_undone(implementation, tmp_path):
    """Of a build that waits, runs or has stopped; whoever waits for the build hears of it."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        accepted = await service.submit(LOCAL, request(subject.scripts.hang))
        build = await until(service, accepted.id, lambda build: build.log_size >= 6)
        assert not build.pinned
        pinned = await service.pin(LOCAL, build.id, True)
        assert pinned.pinned
        assert pinned.revision > build.revision
        assert (await service.pin(LOCAL, build.id, True)).pinned
        await service.cancel(LOCAL, build.id)
        build = await ended(service, build.id)
        assert (build.result, build.pinned) == (Result.CANCELLED, True)
        assert not (await service.pin(LOCAL, build.id, False)).pinned
        assert not (await service.get(LOCAL, build.id)).pinned


@everywhere
@contract
async def test_a_deleted_build_is_gone(implementation, tmp_path):
    """With its log and artifacts; not while it runs, nor while it is pinned."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        wanted = request(subject.scripts.artifact, output=IsoOutput())
        build = await ended(service, (await service.submit(LOCAL, wanted)).id)
        running = await service.submit(LOCAL, request(subject.scripts.hang))
        await service.pin(LOCAL, build.id, True)
        for kept in (build.id, running.id):
            with pytest.raises(Conflict):
                await service.delete(LOCAL, kept)
        await service.pin(LOCAL, build.id, False)
        await service.delete(LOCAL, build.id)
        await _is_gone(service, build.id, build.artifacts[0].name)
        listed = (await service.list(LOCAL, BuildQuery())).builds
        assert [other.id for other in listed] == [running.id]
        await service.cancel(LOCAL, running.id)


async def _is_gone(service: BuildService, build_id: str, artifact: str) -> None:
    for verb in (
        service.get(LOCAL, build_id),
        service.delete(LOCAL, build_id),
        service.retry(LOCAL, build_id),
        service.pin(LOCAL, build_id, True),
        service.open_log(LOCAL, build_id, Position()),
        service.open_artifact(LOCAL, build_id, artifact),
    ):
        with pytest.raises(NotFound):
            await verb

"""The contract of blobs, and of builds that take bytes from elsewhere: one suite, run against
everything that implements them.
"""

import os

import pytest

from protocol.errors import Conflict, Invalid, NotFound, Unavailable
from protocol.model.build import Build, Result
from protocol.model.messages import BuildQuery
from protocol.model.recipe import (
    ArtifactContent,
    BuiltBase,
    Content,
    DockerfileBase,
    InputFile,
    IsoOutput,
    TextContent,
    UploadedContent,
)
from protocol.model.request import BuildRequest, contents
from protocol.ports.service import LOCAL, BuildService
from tests.contract.test_build_service import Subject, contract, everywhere
from tests.programs import ended, request, until
from tests.streams import Given, digest_of


def with_inputs(wanted: BuildRequest, *files: Content) -> BuildRequest:
    """The request with these as its inputs."""
    from msgspec.structs import replace

    inputs = tuple(InputFile(f"file{index}", content) for index, content in enumerate(files))
    return replace(wanted, recipe=replace(wanted.recipe, inputs=inputs))


async def built(subject: Subject) -> Build:
    """A build that has made an artifact."""
    wanted = request(subject.scripts.artifact, output=IsoOutput())
    accepted = await subject.service.submit(LOCAL, wanted)
    return await ended(subject.service, accepted.id)


@everywhere
@contract
async def test_what_was_uploaded_is_not_missing(implementation, tmp_path):
    """With digest and size, or without; in many pieces, or none at all."""
    async with implementation(tmp_path) as subject:
        blobs = subject.service
        for data in (b"", b"small", os.urandom(3_000_000)):
            digest = digest_of(data)
            assert await blobs.missing(LOCAL, [digest, "0" * 64]) == {digest, "0" * 64}
            assert await blobs.upload(LOCAL, Given(data)) == digest
            assert await blobs.missing(LOCAL, [digest, "0" * 64]) == {"0" * 64}
            again = await blobs.upload(LOCAL, Given(data), sha256=digest, size=len(data))
            assert again == digest
        assert await blobs.missing(LOCAL, []) == frozenset()


@everywhere
@contract
async def test_what_is_not_what_was_said_is_not_kept(implementation, tmp_path):
    """Another digest, another size, no digest at all, a source that broke off."""
    async with implementation(tmp_path) as subject:
        blobs, data = subject.service, os.urandom(200_000)
        for said in ("0" * 64, "rubbish"):
            with pytest.raises(Invalid) as refused:
                await blobs.upload(LOCAL, Given(data), sha256=said)
            assert refused.value.field == "sha256"
        with pytest.raises((Invalid, Unavailable)):
            await blobs.upload(LOCAL, Given(data), size=len(data) + 1)
        with pytest.raises(Unavailable) as broken:
            await blobs.upload(LOCAL, Given(data, breaks=True))
        assert broken.value.detail == "the source broke off"
        assert await blobs.missing(LOCAL, [digest_of(data)]) == {digest_of(data)}


@everywhere
@contract
async def test_an_input_is_uploaded_and_used(implementation, tmp_path):
    """The build runs, and the request names the digest."""
    async with implementation(tmp_path) as subject:
        service, data = subject.service, os.urandom(100_000)
        digest = await service.upload(LOCAL, Given(data))
        wanted = with_inputs(request(subject.scripts.hello), UploadedContent(digest))
        build = await ended(service, (await service.submit(LOCAL, wanted)).id)
        assert (build.result, build.reason) == (Result.SUCCEEDED, "")
        assert build.request == wanted


@everywhere
@contract
async def test_an_upload_that_is_not_here_is_refused(implementation, tmp_path):
    """Naming the field, wherever it stands; nothing is accepted."""
    async with implementation(tmp_path) as subject:
        here, away = UploadedContent(digest_of(b"here")), UploadedContent("0" * 64)
        await subject.service.upload(LOCAL, Given(b"here"))
        base = DockerfileBase(TextContent("FROM x"), context=(InputFile("a", away),))
        plain = request(subject.scripts.hello)
        for wanted, field in (
            (with_inputs(plain, here, away), "recipe.inputs[1].content.sha256"),
            (_based(plain, base), "recipe.base.context[0].content.sha256"),
        ):
            with pytest.raises(Invalid) as refused:
                await subject.service.submit(LOCAL, wanted)
            assert refused.value.field == field
        assert (await subject.service.list(LOCAL, BuildQuery())).builds == ()


def _based(wanted: BuildRequest, base: DockerfileBase | BuiltBase) -> BuildRequest:
    from msgspec.structs import replace

    return replace(wanted, recipe=replace(wanted.recipe, base=base))


@everywhere
@contract
async def test_an_artifact_of_one_build_is_an_input_of_another(implementation, tmp_path):
    """Its digest is filled in when the build is accepted; with the right one it is the same, and so
    is the repeated create.
    """
    async with implementation(tmp_path) as subject:
        service, first = subject.service, await built(subject)
        (artifact,) = first.artifacts
        taken = ArtifactContent(first.id, artifact.name)
        wanted = with_inputs(request(subject.scripts.hello), taken)
        accepted = await service.submit(LOCAL, wanted, key="twice")
        build = await ended(service, accepted.id)
        assert (build.result, build.reason) == (Result.SUCCEEDED, "")
        filled = ArtifactContent(first.id, artifact.name, artifact.sha256)
        assert [content for _, content in contents(build.request)] == [filled]
        assert (await service.submit(LOCAL, wanted, key="twice")).id == build.id
        same = with_inputs(request(subject.scripts.hello), filled)
        assert (await service.submit(LOCAL, same, key="twice")).id == build.id


@everywhere
@contract
async def test_an_artifact_that_cannot_be_had_is_refused(implementation, tmp_path):
    """An unknown build, one that has not stopped, another name, another digest: each names the
    field, and nothing is accepted.
    """
    async with implementation(tmp_path) as subject:
        service, first = subject.service, await built(subject)
        running = await service.submit(LOCAL, request(subject.scripts.hang))
        await until(service, running.id, lambda build: build.log_size >= 6)
        before = len((await service.list(LOCAL, BuildQuery())).builds)
        name, plain = first.artifacts[0].name, request(subject.scripts.hello)
        for content, error, field in (
            (ArtifactContent("0" * 32, name), NotFound, "build"),
            (ArtifactContent(running.id, name), Conflict, "build"),
            (ArtifactContent(first.id, "other.iso"), NotFound, "name"),
            (ArtifactContent(first.id, name, "0" * 64), Conflict, "sha256"),
        ):
            await _refused(
                service, with_inputs(plain, content), error, f"inputs[0].content.{field}"
            )
        base = _based(plain, BuiltBase("0" * 32))
        await _refused(service, base, NotFound, "base.build")
        assert len((await service.list(LOCAL, BuildQuery())).builds) == before
        await service.cancel(LOCAL, running.id)


async def _refused(
    service: BuildService, wanted: BuildRequest, error: type[Exception], field: str
) -> None:
    for verb in (service.submit, service.preview):
        with pytest.raises(error) as refused:
            await verb(LOCAL, wanted)
        assert refused.value.field == f"recipe.{field}"

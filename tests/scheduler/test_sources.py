"""What a build takes from elsewhere reaches its node before its forward does; where it cannot be
had, the build waits with that reason, or ends with it.
"""

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from protocol.model.build import Artifact, Build, Result, Stage, State
from protocol.model.recipe import ArtifactContent, InputFile, IsoOutput, UploadedContent
from protocol.model.request import BuildRequest, Needs, uploads
from protocol.ports.service import LOCAL
from protocol.storage.blob_folder import Pipe
from tests.programs import (
    Program,
    a_client,
    a_node,
    a_scheduler,
    ended,
    ready,
    request,
    roster_until,
    until,
)
from tests.streams import Given, digest_of

pytestmark = pytest.mark.gen_test(timeout=60)


def taking(*contents: ArtifactContent | UploadedContent, on: str = "") -> BuildRequest:
    """A build with these inputs; `on`: the label of its node."""
    wanted = request("print hello", needs=Needs(labels=(on,) if on else ()))
    inputs = tuple(InputFile(f"file{index}", content) for index, content in enumerate(contents))
    return replace(wanted, recipe=replace(wanted.recipe, inputs=inputs))


async def made(program: Program, on: str = "", size: int = 3_000_000) -> tuple[Build, Artifact]:
    """A build that has made an artifact, and that."""
    needs = Needs(labels=(on,) if on else ())
    wanted = request(f"artifact {size}", output=IsoOutput(), needs=needs)
    build = await ended(program.service, (await program.service.submit(LOCAL, wanted)).id)
    return build, build.artifacts[0]


def blob(program: Program, digest: str) -> bytes | None:
    """What the node has under this digest in its folder."""
    path: Path = program.parts.service._place.blobs._folder / digest
    return path.read_bytes() if path.exists() else None


async def test_an_upload_is_on_the_node_before_the_build_is(tmp_path) -> None:
    """Of all that is uploaded, the node gets what the build names."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        data = os.urandom(2_000_000)
        digest = await program.service.upload(LOCAL, Given(data))
        other = await program.service.upload(LOCAL, Given(b"other"))
        accepted = await program.service.submit(LOCAL, taking(UploadedContent(digest)))
        build = await ended(program.service, accepted.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
        assert blob(node, digest) == data
        assert blob(node, other) is None


async def test_an_artifact_travels_to_the_node_of_the_next_build(tmp_path) -> None:
    """From the node that has it, past the scheduler, which does not keep it; the request that
    arrives has its digest.
    """
    async with (
        a_node(tmp_path, labels=("one",)) as one,
        a_node(tmp_path, labels=("two",)) as two,
        a_scheduler(tmp_path, one.url, two.url) as program,
    ):
        await ready(program, 2)
        first, artifact = await made(program, on="one")
        wanted = taking(ArtifactContent(first.id, artifact.name), on="two")
        build = await ended(program.service, (await program.service.submit(LOCAL, wanted)).id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
        data = blob(two, artifact.sha256)
        assert data is not None
        assert digest_of(data) == artifact.sha256
        there = await two.service.get(LOCAL, build.id)
        assert uploads(there.request) == {artifact.sha256}
        assert not list((tmp_path / program.parts.name / "blobs").iterdir())


async def test_an_artifact_does_not_travel_to_where_it_is(tmp_path) -> None:
    """Its node has it already."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        first, artifact = await made(program)
        sent = await node.service.missing(LOCAL, [artifact.sha256])
        assert sent == frozenset()
        wanted = taking(ArtifactContent(first.id, artifact.name))
        build = await ended(program.service, (await program.service.submit(LOCAL, wanted)).id)
        assert build.result is Result.SUCCEEDED
        artifacts = tmp_path / node.parts.node.name / "artifacts"
        (path,) = artifacts.glob("*/*.iso")
        assert path.samefile(tmp_path / node.parts.node.name / "blobs" / artifact.sha256)


async def test_uploads_and_artifacts_travel_through_two_schedulers(tmp_path) -> None:
    """The artifact's build is known to the outer one only, as it ran on a node of its own."""
    async with (
        a_node(tmp_path, labels=("above",)) as above,
        a_node(tmp_path, labels=("below",)) as below,
        a_scheduler(tmp_path, below.url) as inner,
        a_scheduler(tmp_path, above.url, inner.url) as outer,
    ):
        await ready(inner)
        await ready(outer, 2)
        first, artifact = await made(outer, on="above")
        digest = await outer.service.upload(LOCAL, Given(b"small"))
        taken = ArtifactContent(first.id, artifact.name)
        wanted = taking(taken, UploadedContent(digest), on="below")
        build = await ended(outer.service, (await outer.service.submit(LOCAL, wanted)).id)
        assert (build.result, build.reason) == (Result.SUCCEEDED, "")
        assert blob(below, digest) == b"small"
        assert digest_of(blob(below, artifact.sha256) or b"") == artifact.sha256


async def test_a_build_waits_for_the_node_that_has_its_input(tmp_path) -> None:
    """With that reason; it is placed when the node answers again."""
    async with (
        a_node(tmp_path, labels=("two",)) as two,
        a_scheduler(tmp_path, two.url, lost_after=60) as program,
    ):
        async with a_node(tmp_path, home="one", labels=("one",)) as one:
            program.parts.discovery.named((one.url,))
            await ready(program, 2)
            first, artifact = await made(program, on="one")
        await roster_until(program, lambda roster: len(_ready(roster)) == 1)
        wanted = taking(ArtifactContent(first.id, artifact.name), on="two")
        accepted = await program.service.submit(LOCAL, wanted)
        build = await until(program.service, accepted.id, lambda build: "is on" in build.reason)
        assert (build.state, build.attempt) == (State.WAITING, 0)
        assert f"the artifact {artifact.name} of build {first.id} is on one" in build.reason
        told = await program.service.explain(LOCAL, build.id)
        assert told.reason == build.reason
        async with a_node(tmp_path, home="one", labels=("one",)) as one:
            program.parts.discovery.named((one.url,))
            build = await ended(program.service, build.id)
            assert build.result is Result.SUCCEEDED


def _ready(roster) -> list[str]:
    return [node.name for node in roster.nodes if node.state == "ready"]


async def test_a_source_that_breaks_off_sends_the_build_back_to_the_queue(tmp_path) -> None:
    """The attempt is not used up, the node is not blamed, and it is tried again later."""
    async with (
        a_node(tmp_path, labels=("one",)) as one,
        a_node(tmp_path, labels=("two",)) as two,
        a_scheduler(tmp_path, one.url, two.url) as program,
    ):
        await ready(program, 2)
        first, artifact = await made(program, on="one")
        opening = one.service.open_artifact
        tries = 0

        async def broken(*args, **options):
            nonlocal tries
            tries += 1
            opened = await opening(*args, **options)
            if tries > 1:
                return opened
            await opened.stream.close()
            return replace(opened, stream=Given(bytes(1000), breaks=True))

        one.service.open_artifact = broken
        wanted = taking(ArtifactContent(first.id, artifact.name), on="two")
        accepted = await program.service.submit(LOCAL, wanted)
        build = await ended(program.service, accepted.id)
        assert (build.result, build.attempt, tries) == (Result.SUCCEEDED, 1, 2)
        (declined,) = [step for step in build.history if step.event == "decline"]
        assert "broke off" in declined.cause
        states = {node.state for node in program.parts.listing.roster().nodes}
        assert states == {"ready"}


async def test_an_artifact_that_is_not_kept_any_more_ends_the_build(tmp_path) -> None:
    """Refused, with that reason; also an upload that is gone from the scheduler's folder."""
    async with (
        a_node(tmp_path, labels=("one",)) as one,
        a_node(tmp_path, labels=("two",)) as two,
        a_scheduler(tmp_path, one.url, two.url) as program,
    ):
        await ready(program, 2)
        first, artifact = await made(program, on="one")
        await one.service.keeping.drop_files(await one.service.get(LOCAL, first.id))
        wanted = taking(ArtifactContent(first.id, artifact.name), on="two")
        build = await ended(program.service, (await program.service.submit(LOCAL, wanted)).id)
        assert build.result is Result.REFUSED
        assert f"the artifact {artifact.name} of build {first.id} is not kept" in build.reason
        digest = await program.service.upload(LOCAL, Given(b"x"))
        blobs = program.parts.dispatcher.sources.blobs
        later = taking(UploadedContent(digest), on="three")
        waiting = await program.service.submit(LOCAL, later)
        await until(program.service, waiting.id, lambda build: "three" in build.reason)
        blobs.expire(1e12, ())
        async with a_node(tmp_path, labels=("three",)) as three:
            program.parts.discovery.named((three.url,))
            build = await ended(program.service, waiting.id)
        assert build.result is Result.REFUSED
        assert digest in build.reason


async def test_a_build_that_is_cancelled_on_the_way_is_not_forwarded(tmp_path) -> None:
    """Its bytes arrive, and nobody wants it any more."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as program:
        await ready(program)
        digest = await program.service.upload(LOCAL, Given(b"x"))
        uploading, going = asyncio.Event(), asyncio.Event()
        upload = node.service.upload

        async def slow(*args, **options):
            uploading.set()
            await going.wait()
            return await upload(*args, **options)

        node.service.upload = slow
        accepted = await program.service.submit(LOCAL, taking(UploadedContent(digest)))
        await uploading.wait()
        build = await program.service.cancel(LOCAL, accepted.id)
        assert build.result is Result.CANCELLED
        going.set()
        forwarder = program.parts.dispatcher._forwarder
        await asyncio.gather(*forwarder._tasks)
        assert accepted.id not in node.parts.ledger
        assert (await program.service.get(LOCAL, accepted.id)).stage is Stage.STOPPED


async def test_a_node_that_fails_while_it_is_given_the_bytes_uses_up_no_attempt(tmp_path) -> None:
    """Nothing was forwarded: the build goes to another one."""
    async with (
        a_node(tmp_path, priority=9) as one,
        a_node(tmp_path) as two,
        a_scheduler(tmp_path, one.url, two.url) as program,
        a_client(program.url) as client,
    ):
        await ready(program, 2)
        digest = await client.upload(LOCAL, Given(b"x"))

        one.service.missing = _unavailable
        build = await client.submit(LOCAL, taking(UploadedContent(digest)))
        build = await ended(client, build.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
        assert build.node is not None
        assert build.node.id == two.id


async def _unavailable(*args, **options):
    from protocol.errors import Unavailable

    raise Unavailable("its disk does not answer")


async def test_a_source_that_stalls_is_blamed_and_not_the_node_that_waits(
    tmp_path, monkeypatch
) -> None:
    """The build goes back to the queue with that reason, and is tried again."""
    monkeypatch.setattr("scheduler.dispatch.sources._PATIENCE", 0.3)
    async with (
        a_node(tmp_path, labels=("one",)) as one,
        a_node(tmp_path, labels=("two",)) as two,
        a_scheduler(tmp_path, one.url, two.url) as program,
    ):
        await ready(program, 2)
        first, artifact = await made(program, on="one", size=1000)
        opening = one.service.open_artifact

        async def stuck(*args, **options):
            one.service.open_artifact = opening
            opened = await opening(*args, **options)
            await opened.stream.close()
            pipe = Pipe()
            await pipe.put(b"x")
            return replace(opened, stream=pipe)

        one.service.open_artifact = stuck
        wanted = taking(ArtifactContent(first.id, artifact.name), on="two")
        accepted = await program.service.submit(LOCAL, wanted)
        build = await ended(program.service, accepted.id)
        assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
        (declined,) = [step for step in build.history if step.event == "decline"]
        assert "nothing came for" in declined.cause

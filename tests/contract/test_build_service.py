"""The contract of the build service: one suite, run against everything that implements it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from protocol.errors import Conflict, Denied, Invalid, NotFound, Unsatisfiable
from protocol.model.build import Build, Position, Result, Stage, State
from protocol.model.messages import Acknowledgement, BuildQuery
from protocol.model.recipe import Command, ImageBase, IsoOutput, Recipe
from protocol.model.request import BuildRequest, Forward
from protocol.ports.service import LOCAL, BuildService, ByteRange, Caller, Role
from tests.programs import a_client, a_node, a_scheduler, ended, log_of, ready, request, until


class Scripts(Struct, frozen=True):
    """The same deeds in the language of each engine."""

    hello: str = "print hello"
    fail: str = "print sorry\nexit 3"
    hang: str = "print begun\nhang"
    artifact: str = "artifact 5000"


DUMMY = Scripts()
SHELL = Scripts(
    hello="#!/bin/sh\necho hello\n",
    fail="#!/bin/sh\necho sorry\nexit 3\n",
    hang="#!/bin/sh\necho begun\nexec sleep 1000\n",
    artifact="#!/bin/sh\nmkdir -p /toiso\nhead -c 5000 /dev/urandom > /toiso/x.iso\n"
    "printf '#!/bin/sh\\nprintf %%s /toiso/x.iso' > /toiso/iso_path.sh\n"
    "chmod +x /toiso/iso_path.sh\n",
)


class Subject(Struct, frozen=True):
    """An implementation under test."""

    service: BuildService
    scripts: Scripts = DUMMY
    url: str = ""  # of the program, where the service is a client of it

    @asynccontextmanager
    async def called_by(self, caller: Caller) -> AsyncIterator[BuildService]:
        """The service as another program of the pool calls it."""
        if not self.url:
            yield self.service
            return
        async with a_client(self.url, caller) as client:
            yield client


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Subject]:
    """The node on the dummy engine."""
    async with a_node(folder, slots=2) as program:
        yield Subject(program.service)


@asynccontextmanager
async def docker_node(folder: Path) -> AsyncIterator[Subject]:
    """The node on Docker."""
    async with a_node(folder, slots=2, engine="docker") as program:
        yield Subject(program.service, SHELL)


@asynccontextmanager
async def scheduler(folder: Path) -> AsyncIterator[Subject]:
    """The scheduler over two nodes."""
    async with (
        a_node(folder, slots=1) as one,
        a_node(folder, slots=1) as two,
        a_scheduler(folder, one.url, two.url) as program,
    ):
        await ready(program, 2)
        yield Subject(program.service)


@asynccontextmanager
async def client_of_node(folder: Path) -> AsyncIterator[Subject]:
    """The HTTP client in front of a node."""
    async with a_node(folder, slots=2) as program, a_client(program.url) as client:
        yield Subject(client, url=program.url)


@asynccontextmanager
async def client_of_scheduler(folder: Path) -> AsyncIterator[Subject]:
    """The HTTP client in front of a scheduler."""
    async with (
        a_node(folder, slots=2) as one,
        a_scheduler(folder, one.url) as program,
        a_client(program.url) as client,
    ):
        await ready(program)
        yield Subject(client, url=program.url)


IMPLEMENTATIONS = [
    node,
    pytest.param(docker_node, marks=pytest.mark.system),
    scheduler,
    client_of_node,
    client_of_scheduler,
]

everywhere = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
contract = pytest.mark.gen_test(timeout=60)


@everywhere
@contract
async def test_a_build_goes_from_waiting_to_stopped(implementation, tmp_path):
    """Accepted at once, then run; in the end each command has its exit code, and the log what
    they wrote.
    """
    async with implementation(tmp_path) as subject:
        scripts = subject.scripts
        accepted = await subject.service.submit(LOCAL, request(scripts.hello, scripts.hello))
        assert accepted.state is not State.STOPPED
        build = await ended(subject.service, accepted.id)
        assert (build.result, build.reason) == (Result.SUCCEEDED, "")
        assert [command.exit_code for command in build.commands] == [0, 0]
        assert await log_of(subject.service, build.id) == b"hello\nhello\n"
        assert [(c.start, c.end) for c in build.commands] == [(0, 6), (6, 12)]
        assert build.node is not None
        assert build.usage is not None
        stages = [step.stage for step in build.history]
        assert stages[0] is Stage.QUEUED
        assert stages[-4:] == [Stage.PREPARING, Stage.RUNNING, Stage.COLLECTING, Stage.STOPPED]


@everywhere
@contract
async def test_a_failed_command_makes_the_build_failed_and_ends_it(implementation, tmp_path):
    """Without keep_going the commands that follow never run: exit code 125, and an output that
    says why.
    """
    async with implementation(tmp_path) as subject:
        scripts = subject.scripts
        accepted = await subject.service.submit(LOCAL, request(scripts.fail, scripts.hello))
        build = await ended(subject.service, accepted.id)
        assert build.result is Result.FAILED
        assert "'command 0' ended with 3" in build.reason
        assert [command.exit_code for command in build.commands] == [3, 125]
        log = await log_of(subject.service, build.id)
        assert log.startswith(b"sorry\n")
        assert b"hello" not in log


@everywhere
@contract
async def test_with_keep_going_the_commands_that_follow_run(implementation, tmp_path):
    """The build is failed all the same, and its artifact is there."""
    async with implementation(tmp_path) as subject:
        scripts = subject.scripts
        wanted = request(scripts.fail, scripts.artifact, output=IsoOutput(), keep_going=True)
        accepted = await subject.service.submit(LOCAL, wanted)
        build = await ended(subject.service, accepted.id)
        assert build.result is Result.FAILED
        assert [c.exit_code for c in build.commands if not c.added] == [3, 0]
        assert [artifact.size for artifact in build.artifacts] == [5000]


@everywhere
@contract
async def test_an_artifact_has_a_digest_and_is_read_whole_or_in_part(implementation, tmp_path):
    """Ranges from the start, to the end, of the last bytes; outside the artifact: Unsatisfiable,
    with the size.
    """
    async with implementation(tmp_path) as subject:
        service = subject.service
        wanted = request(subject.scripts.artifact, output=IsoOutput())
        build = await ended(service, (await service.submit(LOCAL, wanted)).id)
        (artifact,) = await service.artifacts(LOCAL, build.id)
        assert build.artifacts == (artifact,)
        whole = await read(service, build, None)
        assert len(whole) == artifact.size == 5000
        assert hashlib.sha256(whole).hexdigest() == artifact.sha256
        assert await read(service, build, ByteRange(10, 20)) == whole[10:20]
        assert await read(service, build, ByteRange(4990, 9999)) == whole[4990:]
        assert await read(service, build, ByteRange(-7)) == whole[-7:]
        with pytest.raises(Unsatisfiable) as refused:
            await service.open_artifact(LOCAL, build.id, artifact.name, ByteRange(5000))
        assert refused.value.size == 5000
        with pytest.raises(NotFound):
            await service.open_artifact(LOCAL, build.id, "other.iso")


async def read(service: BuildService, build: Build, part: ByteRange | None) -> bytes:
    """An artifact's bytes, checked against what was said of them."""
    opened = await service.open_artifact(LOCAL, build.id, build.artifacts[0].name, part)
    data = b"".join([piece async for piece in opened.stream])
    await opened.stream.close()
    assert len(data) == opened.end - opened.start
    return data


@everywhere
@contract
async def test_a_running_build_is_cancelled(implementation, tmp_path):
    """It stops with the result cancelled, its output so far is kept; cancelling again changes
    nothing.
    """
    async with implementation(tmp_path) as subject:
        service = subject.service
        accepted = await service.submit(LOCAL, request(subject.scripts.hang))
        await until(service, accepted.id, lambda build: build.log_size >= 6)
        build = await service.cancel(LOCAL, accepted.id)
        build = await ended(service, build.id)
        assert build.result is Result.CANCELLED
        assert build.commands[0].exit_code == 137
        assert (await log_of(service, build.id)).startswith(b"begun\n")
        assert (await service.cancel(LOCAL, build.id)).result is Result.CANCELLED


@everywhere
@contract
async def test_a_build_without_a_slot_waits_and_a_waiting_build_is_cancelled(
    implementation, tmp_path
):
    """It says why it waits, and starts when there is room."""
    async with implementation(tmp_path) as subject:
        service, hang = subject.service, subject.scripts.hang
        running = [await service.submit(LOCAL, request(hang)) for _ in range(2)]
        for build in running:
            await until(service, build.id, lambda build: build.state is State.RUNNING)
        third = await service.submit(LOCAL, request(subject.scripts.hello))
        fourth = await service.submit(LOCAL, request(subject.scripts.hello))
        explanation = await service.explain(LOCAL, fourth.id)
        assert explanation.status is State.WAITING
        assert explanation.place == 2
        assert "slot" in explanation.reason
        assert (await service.cancel(LOCAL, fourth.id)).result is Result.CANCELLED
        await service.cancel(LOCAL, running[0].id)
        assert (await ended(service, third.id)).result is Result.SUCCEEDED
        await service.cancel(LOCAL, running[1].id)


@everywhere
@contract
async def test_the_log_is_followed_while_it_grows(implementation, tmp_path):
    """A reader from any position gets what comes, and the end when the attempt ends."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        accepted = await service.submit(LOCAL, request(subject.scripts.hang))
        opened = await service.open_log(LOCAL, accepted.id, Position(), follow=True)
        pieces = aiter(opened.stream)
        assert (await anext(pieces)).startswith(b"begun")
        behind = await service.open_log(LOCAL, accepted.id, Position(opened.attempt, 3), limit=2)
        assert b"".join([piece async for piece in behind.stream]) == b"un"
        await service.cancel(LOCAL, accepted.id)
        async with asyncio.timeout(10):
            rest = b"".join([piece async for piece in pieces])
        assert b"cancelled" in rest


@everywhere
@contract
async def test_a_position_in_another_attempt_answers_the_newest_from_its_beginning(
    implementation, tmp_path
):
    """A reader of a superseded attempt is told by the attempt's number."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        accepted = await service.submit(LOCAL, request(subject.scripts.hello))
        build = await ended(service, accepted.id)
        opened = await service.open_log(LOCAL, build.id, Position(99, 3))
        assert (opened.attempt, opened.start) == (build.attempt, 0)
        opened = await service.open_log(LOCAL, build.id, Position(build.attempt, 10**9))
        assert opened.start == build.log_size
        assert [piece async for piece in opened.stream] == []


@everywhere
@contract
async def test_get_is_held_until_the_build_changes(implementation, tmp_path):
    """With the revision that the caller has seen; another revision is answered at once."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        accepted = await service.submit(LOCAL, request(subject.scripts.hang))
        build = await until(service, accepted.id, lambda build: build.log_size >= 6)
        held = asyncio.create_task(service.get(LOCAL, build.id, after=build.revision, wait=30))
        assert not (await asyncio.wait({held}, timeout=0.2))[0]
        await service.cancel(LOCAL, build.id)
        async with asyncio.timeout(5):
            assert (await held).revision > build.revision
        at_once = await service.get(LOCAL, build.id, after=0, wait=30)
        assert at_once.state is State.STOPPED


@everywhere
@contract
async def test_builds_are_listed_newest_first_page_by_page(implementation, tmp_path):
    """The cursor goes on where the page ended."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        ids = [(await service.submit(LOCAL, request())).id for _ in range(5)]
        for build_id in ids:
            await ended(service, build_id)
        first = await service.list(LOCAL, BuildQuery(limit=3))
        rest = await service.list(LOCAL, BuildQuery(limit=3, cursor=first.next))
        listed = [build.id for build in (*first.builds, *rest.builds)]
        assert sorted(listed) == sorted(ids)
        assert listed == sorted(listed, reverse=True)
        assert rest.next == ""
        waiting = await service.list(LOCAL, BuildQuery(status=State.WAITING))
        assert waiting.builds == ()


@everywhere
@contract
async def test_changes_since_a_cursor(implementation, tmp_path):
    """Each build once, as it is now; held while nothing changes; a cursor of another life starts
    anew.
    """
    async with implementation(tmp_path) as subject:
        service = subject.service
        one = await ended(service, (await service.submit(LOCAL, request())).id)
        seen = await service.changes(LOCAL)
        assert [build.id for build in seen.builds] == [one.id]
        held = asyncio.create_task(service.changes(LOCAL, cursor=seen.cursor, wait=30))
        assert not (await asyncio.wait({held}, timeout=0.2))[0]
        two = await service.submit(LOCAL, request())
        async with asyncio.timeout(5):
            news = await held
        assert [build.id for build in news.builds] == [two.id]
        again = await service.changes(LOCAL, cursor="0123abcd.7")
        assert {build.id for build in again.builds} == {one.id, two.id}
        with pytest.raises(Invalid):
            await service.changes(LOCAL, cursor="rubbish")
        await ended(service, two.id)


@everywhere
@contract
async def test_what_is_unknown_is_not_found(implementation, tmp_path):
    """Every verb on a build says so."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        for verb in (
            service.get(LOCAL, "0" * 32),
            service.cancel(LOCAL, "0" * 32),
            service.explain(LOCAL, "0" * 32),
            service.artifacts(LOCAL, "0" * 32),
            service.open_log(LOCAL, "0" * 32, Position()),
            service.open_artifact(LOCAL, "0" * 32, "image.iso"),
        ):
            with pytest.raises(NotFound):
                await verb


@everywhere
@contract
async def test_bad_image_names_are_refused_before_anything_starts(implementation, tmp_path):
    """Invalid, naming the field; nothing is accepted."""
    async with implementation(tmp_path) as subject:
        for name in ("-v /:/host", "../x", "UPPER CASE", "a b"):
            wanted = BuildRequest(Recipe((Command("c", text="x"),), base=ImageBase(name)))
            with pytest.raises((Invalid, Denied)) as refused:
                await subject.service.submit(LOCAL, wanted)
            assert refused.value.field == "recipe.base.name"
        assert (await subject.service.list(LOCAL, BuildQuery())).builds == ()


@everywhere
@contract
async def test_status_is_held_until_it_changes(implementation, tmp_path):
    """The token is opaque; readiness is answered at once."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        report = await service.status(LOCAL)
        assert (report.status, report.slots, report.used) == ("ready", 2, 0)
        held = asyncio.create_task(service.status(LOCAL, after=report.token, wait=20))
        accepted = await service.submit(LOCAL, request(subject.scripts.hang))
        async with asyncio.timeout(5):
            assert (await held).token != report.token
        await service.cancel(LOCAL, accepted.id)


@everywhere
@contract
async def test_a_forward_is_taken_once_and_fenced(implementation, tmp_path):
    """The same attempt again answers the same build; a lower one, or a stranger's, is refused; a
    report shows the build to its origin only, until it is acknowledged.
    """
    ours, theirs = "a" * 40, "b" * 40
    origin = Caller(owner="", role=Role.PROGRAM, program=ours)
    stranger = Caller(owner="", role=Role.PROGRAM, program=theirs)
    build_id = "5" * 32
    async with (
        implementation(tmp_path) as subject,
        subject.called_by(origin) as service,
        subject.called_by(stranger) as elsewhere,
    ):
        wanted = request(subject.scripts.hello)
        forward = Forward(build_id, ours, 2, path=(ours,))
        first = await service.submit(origin, wanted, forward)
        again = await service.submit(origin, wanted, forward)
        assert (first.id, first.attempt) == (again.id, again.attempt) == (build_id, 2)
        with pytest.raises(Conflict):
            await service.submit(origin, wanted, Forward(build_id, ours, 1))
        with pytest.raises(Conflict):
            await elsewhere.submit(stranger, wanted, Forward(build_id, theirs, 3))
        await ended(service, build_id)
        reported = (await service.status(origin)).builds
        assert [(build.id, build.attempt) for build in reported] == [(build_id, 2)]
        assert (await elsewhere.status(stranger)).builds == ()
        acknowledgement = Acknowledgement(((build_id, 2),))
        await elsewhere.acknowledge(stranger, acknowledgement)
        assert len((await service.status(origin)).builds) == 1
        await service.acknowledge(origin, acknowledgement)
        assert (await service.status(origin)).builds == ()


@everywhere
@contract
async def test_a_forward_that_came_by_too_many_schedulers_is_refused(implementation, tmp_path):
    """Four at most."""
    async with implementation(tmp_path) as subject:
        forward = Forward("6" * 32, "a" * 40, 1, path=tuple(str(i) * 40 for i in range(5)))
        above = Caller("", Role.PROGRAM, "a" * 40)
        async with subject.called_by(above) as service:
            with pytest.raises(Conflict):
                await service.submit(above, request(), forward)


@everywhere
@contract
async def test_a_key_makes_a_create_repeatable(implementation, tmp_path):
    """The same key and request give the same build, at the same time too; another owner's key is
    another key; another request with it is refused.
    """
    async with (
        implementation(tmp_path) as subject,
        subject.called_by(Caller("ann")) as service,
        subject.called_by(Caller("bob")) as other,
    ):
        ann, bob, wanted = Caller("ann"), Caller("bob"), request(subject.scripts.hello)
        creates = (service.submit(ann, wanted, key="k-1") for _ in range(3))
        first, *others = await asyncio.gather(*creates)
        assert {build.id for build in others} == {first.id}
        assert (first.owner, first.key) == ("ann", "k-1")
        assert (await other.submit(bob, wanted, key="k-1")).id != first.id
        with pytest.raises(Conflict) as refused:
            await service.submit(ann, request(subject.scripts.fail), key="k-1")
        assert refused.value.field == "Idempotency-Key"
        await ended(service, first.id)
        assert (await service.submit(ann, wanted, key="k-1")).id == first.id
        assert len((await service.list(ann, BuildQuery())).builds) == 2


@everywhere
@contract
async def test_a_cancellation_may_name_the_attempt(implementation, tmp_path):
    """Of another attempt it ends nothing."""
    async with implementation(tmp_path) as subject:
        service = subject.service
        accepted = await service.submit(LOCAL, request(subject.scripts.hang))
        build = await until(service, accepted.id, lambda build: build.log_size >= 6)
        build = await service.cancel(LOCAL, build.id, build.attempt + 1)
        assert build.state is State.RUNNING
        build = await service.cancel(LOCAL, build.id, build.attempt)
        assert (await ended(service, build.id)).result is Result.CANCELLED


@everywhere
@contract
async def test_a_store_that_is_not_known_is_told_everything_again(implementation, tmp_path):
    """With the whole request, as it was forwarded; until it is on record there too."""
    build_id, me = "7" * 32, "a" * 40
    old = Caller(owner="", role=Role.PROGRAM, program=me, store="1" * 32)
    new = Caller(owner="", role=Role.PROGRAM, program=me, store="2" * 32)
    async with (
        implementation(tmp_path) as subject,
        subject.called_by(old) as service,
        subject.called_by(new) as again,
    ):
        wanted = request(subject.scripts.hello, note="mine")
        forward = Forward(build_id, me, 1, owner="ann", path=(me,), store=old.store, key="k")
        await service.submit(old, wanted, forward)
        await ended(service, build_id)
        report = await service.status(old)
        assert [build.id for build in report.builds] == [build_id]
        assert report.wholes == {}
        await service.acknowledge(old, Acknowledgement(((build_id, 1),), old.store))
        assert (await service.status(old)).builds == ()
        report = await again.status(new)
        assert [build.result for build in report.builds] == [Result.SUCCEEDED]
        whole = report.wholes[build_id]
        assert (whole.request, whole.forward.owner, whole.forward.key) == (wanted, "ann", "k")
        await again.acknowledge(new, Acknowledgement(((build_id, 1),), new.store))
        assert (await again.status(new)).builds == ()

"""An admitted node that lies: no lie is believed, it gets nothing that was not meant for it, and
the roster says what it was caught at.
"""

import hashlib
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from protocol.errors import Denied, PoolError
from protocol.model.build import (
    Artifact,
    Build,
    NodeReference,
    Position,
    Result,
    State,
    new_build,
)
from protocol.model.messages import Forwarded
from protocol.model.recipe import ArtifactContent, InputFile
from protocol.model.request import BuildRequest, Forward, Needs
from protocol.ports.service import LOCAL
from protocol.program.identity import key_of
from protocol.program.joining import RENEW_PATH
from protocol.remote.client import HttpService
from protocol.remote.connecting import Secured
from protocol.remote.exchange import ANSWER, Exchange
from protocol.trust import certificates
from protocol.trust.certificates import NODE, SCHEDULER, server_name
from tests.programs import ended, request, until
from tests.trust.liar import well_ended
from tests.trust.scene import a_beacon, a_scene, made_by_the_liar, running
from tests.trust.test_pool import in_state
from tests.trust.wire import a_wire

pytestmark = pytest.mark.gen_test(timeout=60)

STRANGE = "f" * 32
"""The id of a build that nobody made."""


def like(build: Build) -> Build:
    """The same, as a node tells of it that has just begun."""
    return new_build(build.id, BuildRequest(), origin=build.origin, owner="", now=1, attempt=1)


class TestAnothersId:
    """Whoever says that it is another node gets nothing, and that node stays as it is."""

    async def test_in_its_status(self, tmp_path: Path) -> None:
        """Found under its own id, it says it is the other."""
        async with a_scene(tmp_path) as scene:
            scene.liar.says(id=scene.victim.id)
            scene.find()
            words = f"it proved to be {scene.liar.id[:16]}, and says it is {scene.victim.id[:16]}"
            await scene.caught("unproven", words)
            await scene.built_by_the_true_one()
            await in_state(scene.scheduler, scene.victim, "ready")

    async def test_at_an_address_that_settings_name(self, tmp_path: Path) -> None:
        """Nobody knows yet who is there: its word for it is tried, and does not hold."""
        async with a_scene(tmp_path) as scene:
            scene.liar.says(id=scene.victim.id)
            scene.scheduler.parts.discovery.named((scene.liar.url,))
            await scene.caught("unproven", "does not prove to be", url=scene.liar.url)
            await scene.built_by_the_true_one()

    async def test_in_its_mdns_record(self, tmp_path: Path) -> None:
        """The address that is not the other's is on the roster, with whom it claims to be."""
        async with a_scene(tmp_path) as scene:
            scene.liar.says(id=scene.victim.id)
            record = a_beacon(scene, scene.victim.id, scene.liar.port)
            scene.scheduler.parts.discovery.found(record)
            name = scene.victim.parts.node.name
            await scene.caught("unproven", f"it says that it is {name}", url=scene.liar.url)
            await scene.built_by_the_true_one()
            await in_state(scene.scheduler, scene.victim, "ready")

    async def test_without_tls(self, tmp_path: Path) -> None:
        """A record that has another's id and no port for members is not called at all."""
        async with a_scene(tmp_path) as scene:
            beacon = replace(a_beacon(scene, scene.victim.id, 0), port=9, addresses=("127.0.0.2",))
            scene.scheduler.parts.discovery.found(beacon)
            await scene.caught("unproven", "no place where it proves", url="http://127.0.0.2:9")
            await scene.built_by_the_true_one()

    async def test_another_address_of_the_same_node(self, tmp_path: Path) -> None:
        """Is no lie: whoever proves there who it is, is on the roster once."""
        async with a_scene(tmp_path) as scene:
            port = int(scene.victim.members_url.rpartition(":")[2])
            pool = scene.scheduler.parts.dispatcher.pool
            async with a_wire("127.0.0.3", "127.0.0.1", port) as wire:
                beacon = a_beacon(scene, scene.victim.id, wire.port)
                beacon = replace(beacon, addresses=("127.0.0.3",))
                scene.scheduler.parts.discovery.found(beacon)
                await wire.used.wait()
                await pool.claims.settled()
                roster = scene.scheduler.parts.listing.roster()
                assert [(one.id, one.state) for one in roster.nodes] == [(scene.victim.id, "ready")]


class TestReports:
    """What a node reports is held against what it was sent."""

    async def test_a_build_that_nobody_made(self, tmp_path: Path) -> None:
        """It is not taken in, the node is not asked for it, and gets nothing while it says so."""
        async with a_scene(tmp_path) as scene:
            invented = new_build(STRANGE, request("x"), origin="x", owner="", now=1, attempt=1)
            scene.liar.says(builds=(well_ended(invented),))
            scene.find()
            await scene.caught("refused", f"it reports build {STRANGE}, which was not sent to it")
            await scene.built_by_the_true_one()
            assert STRANGE not in scene.scheduler.parts.dispatcher.ledger
            assert scene.liar.asked_for() == {"/status"}
            scene.liar.says(builds=())
            await scene.caught("ready", "")

    @pytest.mark.parametrize("attempt", [1, 2])
    @pytest.mark.parametrize("forged", [False, True])
    async def test_the_end_of_anothers_attempt(
        self, tmp_path: Path, attempt: int, forged: bool
    ) -> None:
        """Of one that runs, or of a later one, with what was sent for it or without."""
        async with a_scene(tmp_path) as scene:
            build = await running(scene, "sleep 2", "print true")
            said = well_ended(replace(like(build), attempt=attempt))
            forward = Forward(build.id, scene.scheduler.id, attempt, seal="0" * 64)
            wholes = {build.id: Forwarded(build.request, forward)} if forged else {}
            scene.liar.says(builds=(said,), wholes=wholes)
            scene.find()
            await scene.caught("refused", f"it reports build {build.id}, which was not sent to it")
            build = await ended(scene.scheduler.service, build.id)
            assert (build.result, build.attempt) == (Result.SUCCEEDED, 1)
            assert build.node == NodeReference(scene.victim.id, scene.victim.parts.node.name)
            assert build.log_size > 0
            assert scene.liar.asked_for() == {"/status"}

    async def test_a_later_attempt_than_it_was_sent(self, tmp_path: Path) -> None:
        """It had the first attempt, which it lost, and says that the second one is its own."""
        async with a_scene(tmp_path) as scene:
            scene.find()
            await scene.caught("ready", "")
            accepted = await scene.scheduler.service.submit(LOCAL, request("sleep 3", "print true"))
            await until(scene.scheduler.service, accepted.id, lambda b: b.state is State.RUNNING)
            (given,) = scene.liar.builds_sent()
            lost = replace(scene.liar.ended(given), result=Result.LOST, reason="lost", excused=True)
            scene.liar.says(builds=(lost,))
            build = await until(
                scene.scheduler.service,
                accepted.id,
                lambda b: b.attempt == 2 and b.state is State.RUNNING,
            )
            assert build.node.id == scene.victim.id
            for number in (2, 3):
                scene.liar.says(builds=(replace(scene.liar.ended(given), attempt=number),))
                await scene.caught("refused", "not sent to it")
                scene.liar.says(builds=())
                await scene.caught("ready", "")
            build = await ended(scene.scheduler.service, build.id)
            assert (build.result, build.attempt) == (Result.SUCCEEDED, 2)
            assert build.node.id == scene.victim.id

    async def test_its_own_build_is_its_word(self, tmp_path: Path) -> None:
        """What it was sent it may end."""
        async with a_scene(tmp_path) as scene:
            build = await made_by_the_liar(scene)
            assert (build.result, build.node.id) == (Result.SUCCEEDED, scene.liar.id)


async def test_bytes_that_are_not_what_it_said(tmp_path: Path) -> None:
    """What it made is to be an input of another build: the other node does not take what has
    another digest, that build is refused, and the roster names who served it.
    """
    async with a_scene(tmp_path, quarantine_after=1) as scene:
        told = Artifact("a.bin", 4, hashlib.sha256(b"good").hexdigest())
        first = await made_by_the_liar(scene, told)
        scene.liar.served[f"/api/v1/builds/{first.id}/artifacts/a.bin"] = (told, b"evil")
        wanted = request("print b", needs=Needs(labels=("true",)))
        file = InputFile("a.bin", ArtifactContent(first.id, "a.bin"))
        wanted = replace(wanted, recipe=replace(wanted.recipe, inputs=(file,)))
        accepted = await scene.scheduler.service.submit(LOCAL, wanted)
        build = await ended(scene.scheduler.service, accepted.id)
        assert build.result is Result.REFUSED
        assert "what it needs has changed" in build.reason
        there = scene.victim.parts.service
        with pytest.raises(PoolError):
            await there.get(LOCAL, build.id)
        assert await there.missing(LOCAL, {told.sha256}) == {told.sha256}
        await scene.caught(
            "quarantined", f"other bytes than the artifact a.bin of build {first.id}"
        )
        await scene.built_by_the_true_one()


async def test_what_it_asks_for(tmp_path: Path) -> None:
    """Its certificate is a node's, and its own: it opens no build, gives no order, and brings no
    certificate of another's, nor of a scheduler.
    """
    async with a_scene(tmp_path) as scene:
        build = await running(scene, "sleep 1")
        pool = scene.scheduler.parts.membered.authority.pool
        context = partial(scene.liar.memberships.client, pool)
        for program, role in ((scene.scheduler, SCHEDULER), (scene.victim, NODE)):
            asking = HttpService(
                program.members_url, secured=Secured(context, server_name(role, pool))
            )
            for asked in (
                asking.get(LOCAL, build.id),
                asking.open_log(LOCAL, build.id, Position()),
                asking.submit(LOCAL, request("print x")),
                asking.submit(
                    LOCAL, request("print x"), Forward(STRANGE, scene.scheduler.id, 1, seal="0")
                ),
                asking.cancel(LOCAL, build.id),
            ):
                with pytest.raises(Denied):
                    await asked
            assert (await asking.status(LOCAL)).builds == ()
            await asking.close()
        others = certificates.ask(key_of(tmp_path / scene.victim.parts.node.name))
        secured = Secured(context, server_name(SCHEDULER, pool))
        exchange = Exchange(scene.scheduler.members_url, {}, ANSWER, secured)
        with pytest.raises(Denied, match="one's own key"):
            await exchange.post(RENEW_PATH, {"request": others}, None)
        await exchange.close()
        await ended(scene.scheduler.service, build.id)

"""What a node removes, and how it keeps builds from filling the disk."""

from pathlib import Path
from typing import Any

import pytest

from node.container import labels
from node.disk import Reserve
from node.engines.base import ContainerSpec, Limits
from node.files.workfolder import Plan, WorkFolder
from protocol.errors import NotFound
from protocol.model.build import Build, Result, Stage
from protocol.model.recipe import IsoOutput
from protocol.model.request import Needs
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, request, until

pytestmark = pytest.mark.gen_test(timeout=60)

MIB = 1 << 20


async def built(node: Program, *texts: str, **more: Any) -> Build:
    """A build that has ended."""
    accepted = await node.service.submit(LOCAL, request(*texts, **more))
    return await ended(node.service, accepted.id)


async def test_containers_and_folders_that_no_attempt_uses_are_removed(tmp_path) -> None:
    """What runs keeps its own."""
    async with a_node(tmp_path, slots=2) as node:
        engine, work = node.parts.engine, tmp_path / node.parts.settings.name / "work"
        running = await node.service.submit(LOCAL, request("hang"))
        await until(node.service, running.id, lambda build: build.stage is Stage.RUNNING)
        folder = WorkFolder.create(work / "left.1", Plan((), True, 1000, False), None)
        engine.start(
            ContainerSpec(
                name="left",
                image="x",
                entrypoint=(),
                environment={},
                labels=labels(node.id, "left", 1),
                mounts=folder.mounts,
                limits=Limits(MIB, 1, 10, network=False),
                capabilities=(),
            )
        )
        assert len(engine.containers({})) == 2
        await node.parts.cleaner.clean()
        (kept,) = engine.containers({})
        assert kept.labels["imagepool.build"] == running.id
        assert [path.name for path in work.iterdir()] == [f"{running.id}.1"]


async def test_files_go_after_their_time_and_records_after_theirs(tmp_path) -> None:
    """How a build ended is known for longer than what it made."""
    async with a_node(tmp_path, keep=1e-9, record_keep=3600) as node:
        build = await built(node, "artifact 1000", output=IsoOutput())
        await node.parts.cleaner.clean()
        assert (await node.service.get(LOCAL, build.id)).result is Result.SUCCEEDED
        with pytest.raises(NotFound, match="not kept any more"):
            await node.service.open_artifact(LOCAL, build.id, "image.iso")
        assert not list((tmp_path / node.parts.settings.name / "logs").iterdir())
    async with a_node(tmp_path, keep=1e-9, record_keep=1e-9) as node:
        build = await built(node, "print x")
        await node.parts.cleaner.clean()
        with pytest.raises(NotFound):
            await node.service.get(LOCAL, build.id)


async def test_images_that_nobody_used_for_long_are_removed(tmp_path) -> None:
    """Those that this node pulled, and no others."""
    async with a_node(tmp_path, image_keep=0.01) as node:
        engine = node.parts.engine
        await built(node, "print x")
        engine.obtain("other:1", print)
        await node.parts.records.used_image("pulled:1", 0.0)
        engine.obtain("pulled:1", print)
        await node.parts.cleaner.clean()
        assert "pulled:1" not in engine.images()
        assert "other:1" in engine.images()
        assert await node.parts.records.images() == {}


async def test_a_build_that_writes_more_than_it_may_is_ended(tmp_path) -> None:
    """By what it said that it needs, or what the node allows; the reason says both figures."""
    async with a_node(tmp_path) as node:
        wanted = request("bytes 3000000\nhang", needs=Needs(disk=MIB))
        accepted = await node.service.submit(LOCAL, wanted)
        await until(node.service, accepted.id, lambda build: build.log_size >= 3_000_000)
        await node.parts.disk.look(sizes=True)
        build = await ended(node.service, accepted.id)
        assert build.result is Result.FAILED
        assert "its limit is 1 MiB" in build.reason


async def test_where_the_disk_is_full_the_build_that_wrote_most_is_ended(tmp_path) -> None:
    """And no other."""
    async with a_node(tmp_path, slots=2, disk_floor=1 << 60) as node:
        small, large = [
            (await node.service.submit(LOCAL, request(f"bytes {size}\nhang"))).id
            for size in (100, 2_000_000)
        ]
        await until(node.service, small, lambda build: build.log_size >= 100)
        await until(node.service, large, lambda build: build.log_size >= 2_000_000)
        await node.parts.disk.look(sizes=False)
        build = await ended(node.service, large)
        assert (build.result, "disk is full" in build.reason) == (Result.FAILED, True)
        assert (await node.service.get(LOCAL, small)).stage is Stage.RUNNING


def test_the_reserve_is_held_where_there_is_room_and_given_up_once(tmp_path: Path) -> None:
    """Its room is really taken."""
    reserve = Reserve(tmp_path)
    reserve.hold(free=1 * MIB)
    assert not (tmp_path / "reserve").exists()
    reserve.hold(free=1 << 40)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 8 * MIB
    reserve.release()
    reserve.release()
    assert not (tmp_path / "reserve").exists()


async def test_on_a_full_disk_what_failed_builds_left_goes_before_its_time(tmp_path) -> None:
    """Not what they left just now, and nothing of those that succeeded."""
    async with a_node(tmp_path) as node:
        old = await built(node, "exit 3")
        good = await built(node, "print x")
        logs = tmp_path / node.parts.settings.name / "logs"
        assert len(list(logs.iterdir())) == 2
        assert node.service.keeping.failures(before=old.stopped - 1) == ()
        (failed,) = node.service.keeping.failures(before=old.stopped + 1)
        await node.service.keeping.drop_files(failed)
        assert [path.name for path in logs.iterdir()] == [f"{good.id}.1.log"]

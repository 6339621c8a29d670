"""Two nodes on one engine never touch each other's containers."""

import docker
import pytest

from node.container import LABEL
from protocol.model.build import Result, State
from protocol.ports.service import LOCAL
from tests.programs import a_node, ended, request, until

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=90)]

HANG = "#!/bin/sh\necho begun\nexec sleep 1000\n"


def containers(engine: docker.DockerClient, node: str) -> list[str]:
    """Names of a node's containers, as the engine itself says."""
    found = engine.containers.list(all=True, filters={"label": f"{LABEL}.node={node}"})
    return [container.name for container in found]


async def test_two_nodes_on_one_engine(tmp_path) -> None:
    """One starts, cancels, ends, starts again and cleans up while the other's build runs on;
    nothing is left of either.
    """
    engine = docker.from_env()
    async with a_node(tmp_path, engine="docker") as one:
        kept = await one.service.submit(LOCAL, request(HANG))
        await until(one.service, kept.id, lambda build: build.log_size >= 6)
        running = containers(engine, one.id)
        assert len(running) == 1
        async with a_node(tmp_path, home="two", engine="docker") as two:
            assert containers(engine, one.id) == running
            cancelled = await two.service.submit(LOCAL, request(HANG))
            await until(two.service, cancelled.id, lambda build: build.log_size >= 6)
            assert len(containers(engine, two.id)) == 1
            assert (await two.service.cancel(LOCAL, cancelled.id)).result is Result.CANCELLED
            assert containers(engine, two.id) == []
            left = await two.service.submit(LOCAL, request(HANG))
            await until(two.service, left.id, lambda build: build.log_size >= 6)
        assert len(containers(engine, two.id)) == 1  # a client's build goes on without its node
        async with a_node(tmp_path, home="two", engine="docker") as two:
            assert (await two.service.get(LOCAL, left.id)).state is State.RUNNING
            await two.service.cancel(LOCAL, left.id)
            assert containers(engine, two.id) == []
        assert containers(engine, one.id) == running
        assert (await one.service.get(LOCAL, kept.id)).state is State.RUNNING
        await one.service.cancel(LOCAL, kept.id)
        assert (await ended(one.service, kept.id)).result is Result.CANCELLED
    assert containers(engine, one.id) == []
    engine.close()


async def test_what_a_killed_node_left_is_removed_when_it_starts_again(tmp_path) -> None:
    """By its own label; another node's container stays."""
    engine = docker.from_env()
    image = "codersos/linux-image-creator"
    async with a_node(tmp_path, engine="docker") as one:
        stranger = engine.containers.create(image, "true", labels={f"{LABEL}.node": "f" * 40})
        leftover = engine.containers.create(image, "true", labels={f"{LABEL}.node": one.id})
        try:
            await one.parts.start()
            with pytest.raises(docker.errors.NotFound):
                leftover.reload()
            stranger.reload()
        finally:
            stranger.remove()
    engine.close()

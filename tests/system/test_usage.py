"""What a build used, on the real engine: figures that can be checked, within honest bounds.

Upper bounds are wide: the machine's other work slows a build down, and what it waits for is not
counted.
"""

from collections.abc import Iterator

import pytest

from node.engines.docker import DockerEngine
from node.engines.docker_cgroups import usage_of
from protocol.model.build import Build, Result, Usage
from protocol.model.recipe import Command, ImageBase, NoOutput, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, until
from tests.system import engine as tools

pytestmark = [pytest.mark.system, pytest.mark.gen_test(timeout=90)]

BURN = "yes >/dev/null & sleep 1; kill $!; wait"
# tail keeps its one line in memory, for as long as it is not over
GATE = "until [ -e /toiso/.imagepool/out/go ]; do sleep 0.05; done"
HOLD = f"{{ head -c 100000000 /dev/zero; {GATE}; }} | tail -n 1 >/dev/null"
WRITE = "dd if=/dev/zero of=/file bs=1000000 count=50 2>/dev/null"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image with a shell."""
    try:
        yield tools.make_image(tools.shell_tree(), "ENV PATH=/bin")
    finally:
        tools.remove_everything()


async def submitted(node: Program, image: str, *scripts: str) -> Build:
    """A build of these scripts."""
    commands = tuple(
        Command(f"command {i}", text=f"#!/bin/sh\n{text}\n") for i, text in enumerate(scripts)
    )
    recipe = Recipe(commands, ImageBase(image), output=NoOutput())
    return await node.service.submit(LOCAL, BuildRequest(recipe))


async def used(node: Program, image: str, *scripts: str) -> Usage:
    """What a build of these scripts used."""
    build = await submitted(node, image, *scripts)
    build = await ended(node.service, build.id, 80)
    assert build.result is Result.SUCCEEDED, build.reason
    assert build.usage is not None
    return build.usage


async def test_figures(tmp_path, image) -> None:
    """One second of a processor, 100 MB of memory, 50 MB on disk; each where it is used."""
    async with a_node(tmp_path, engine="docker") as node:
        burnt = await used(node, image, BURN)
        print(f"burning: {burnt}")
        assert 0.3 <= burnt.cpu <= 2.0
        assert burnt.memory < 20_000_000
        assert burnt.disk < 2_000_000
        holding = await submitted(node, image, HOLD)
        await until(
            node.service, holding.id, lambda b: b.usage is not None and b.usage.memory >= 90_000_000
        )
        (out,) = tmp_path.glob(f"*/work/{holding.id}.1/out")
        (out / "go").touch()
        held = (await ended(node.service, holding.id, 80)).usage
        assert held is not None
        print(f"holding: {held}")
        assert 90_000_000 <= held.memory <= 250_000_000
        assert held.disk < 2_000_000
        wrote = await used(node, image, WRITE)
        print(f"writing: {wrote}")
        assert 50_000_000 <= wrote.disk <= 52_000_000
        assert wrote.memory < 20_000_000


async def test_figures_while_it_runs(tmp_path, image) -> None:
    """They grow, and stay when the build is ended from outside."""
    async with a_node(tmp_path, engine="docker") as node:
        build = await submitted(node, image, "while true; do echo x; done")
        build = await until(node.service, build.id, lambda b: b.usage is not None and b.usage.cpu)
        assert build.result is None
        assert build.usage is not None
        ended_build = await node.service.cancel(LOCAL, build.id)
        assert ended_build.usage is not None
        assert ended_build.usage.cpu >= build.usage.cpu > 0
        assert ended_build.usage.disk > 0


async def test_a_node_that_starts_again(tmp_path, image) -> None:
    """The figures go on: they are the container's, not the node's."""
    script = f"echo begun; {BURN}; while [ ! -e /toiso/.imagepool/out/go ]; do sleep 0.1; done"
    async with a_node(tmp_path, engine="docker", home="home") as node:
        build = await submitted(node, image, script)
        await until(node.service, build.id, lambda build: build.log_size > 0)
    async with a_node(tmp_path, engine="docker", home="home") as node:
        seen = await until(node.service, build.id, lambda b: b.usage is not None and b.usage.cpu)
        (work,) = tmp_path.glob(f"home/work/{build.id}.1/out")
        (work / "go").touch()
        build = await ended(node.service, build.id, 60)
        assert build.result is Result.SUCCEEDED
        assert build.usage is not None
        assert seen.usage is not None
        assert build.usage.cpu >= seen.usage.cpu > 0


def test_both_ways_agree(tmp_path, image) -> None:
    """The control group's files, and the engine's own figures where those cannot be seen."""
    engine = DockerEngine()
    plan = tools.plan(tools.script("head -c 50000000 /dev/zero | (sleep 1; tail -n 1)"))
    folder = tools.WorkFolder.create(tmp_path / "attempt", plan, tools.BUSYBOX)
    try:
        with tools.started(engine, folder, image) as container:
            tools.until(lambda: engine.measure(container).memory > 45_000_000)
            client = engine._connection._client()
            theirs, ours = usage_of(client.stats_once(container)), engine.measure(container)
            assert theirs.memory == pytest.approx(ours.memory, rel=0.3)
            assert theirs.cpu == pytest.approx(ours.cpu, rel=0.5, abs=0.2)
            engine.wait(container)
            assert engine.measure(container) == Usage()
    finally:
        engine.close()

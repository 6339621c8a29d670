"""What the node itself says of a build - in its log, its reason, its history - shows no secret,
whatever the words are made of.
"""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from protocol.model.build import Build, Result, Stage
from protocol.model.recipe import FetchedContent, InputFile, OutboxOutput, PathsOutput
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended, log_of, request, until

pytestmark = pytest.mark.gen_test(timeout=60)

SECRETS = {"token": "swordfish"}
STARS = "*" * 9


async def submitted(node: Program, wanted: BuildRequest) -> Build:
    """A build with the secret."""
    return await node.service.submit(LOCAL, replace(wanted, secrets=("token",)), secrets=SECRETS)


async def shows_nothing(node: Program, build: Build) -> None:
    """Neither log nor record; the record that the node keeps says the same."""
    log = (await log_of(node.service, build.id)).decode()
    assert STARS in build.reason
    assert build.history[-1].cause == build.reason
    assert log.endswith(f"[imagepool: {build.reason}]\n")
    kept = node.parts.ledger.kept(build.id).record.build
    for words in (log, build.reason, repr(build.history), kept.reason, repr(kept.history)):
        assert "swordfish" not in words


async def test_the_reason_of_an_end(tmp_path: Path) -> None:
    """Here the path that named no file."""
    async with a_node(tmp_path) as node:
        accepted = await submitted(node, request("file /x 1", output=PathsOutput(("/swordfish",))))
        build = await ended(node.service, accepted.id)
        assert (build.result, build.reason) == (
            Result.FAILED,
            f"no regular file matches '/{STARS}'",
        )
        await shows_nothing(node, build)


async def test_what_is_said_of_inputs(tmp_path: Path) -> None:
    """Where they come from, and why they cannot be had."""
    wanted = request("print x")
    content = FetchedContent("http://127.0.0.1:1/swordfish")
    wanted = replace(wanted, recipe=replace(wanted.recipe, inputs=(InputFile("a", content),)))
    async with a_node(tmp_path) as node:
        accepted = await submitted(node, wanted)
        build = await ended(node.service, accepted.id)
        assert build.result is Result.FAILED
        log = (await log_of(node.service, build.id)).decode()
        assert log.startswith(f"[imagepool: fetching http://127.0.0.1:1/{STARS}]\n")
        await shows_nothing(node, build)


async def test_what_is_said_of_the_outbox(tmp_path: Path) -> None:
    """Which of its entries are passed over."""
    async with a_node(tmp_path) as node:
        accepted = await submitted(node, request("await go", output=OutboxOutput()))
        await until(node.service, accepted.id, lambda build: build.stage is Stage.RUNNING)
        work = tmp_path / node.parts.node.name / "work" / f"{accepted.id}.1"
        os.mkfifo(work / "outbox" / "swordfish")
        (work / "out" / "go").touch()
        build = await ended(node.service, accepted.id)
        assert build.result is Result.SUCCEEDED, build.reason
        log = (await log_of(node.service, build.id)).decode()
        assert f"the outbox holds a FIFO, which is passed over: {STARS}" in log
        assert "swordfish" not in log

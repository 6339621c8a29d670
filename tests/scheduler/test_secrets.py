"""Secrets are for the build alone: no answer, log or file has them afterwards, and a build whose
secrets are lost ends instead of waiting for them.
"""

import asyncio
import logging

import aiohttp
import pytest
from msgspec.structs import replace

from protocol.model.build import Position, Result, State
from protocol.model.messages import BuildQuery
from protocol.model.request import BuildRequest
from protocol.ports.service import LOCAL, Caller, Role
from tests.programs import a_client, a_node, a_scheduler, ended, ready, request, until

pytestmark = pytest.mark.gen_test(timeout=60)

VALUE = "correct-horse-battery-staple"
SECRETS = {"password": VALUE}


def secret_request(*texts: str):
    """A build that is given a secret."""
    return replace(request(*texts), secrets=("password",))


async def test_a_recovered_build_without_its_secrets_ends_when_its_attempt_is_lost(
    tmp_path,
) -> None:
    """Lost, with that reason, though another node is free; the same without secrets goes on."""
    async with a_node(tmp_path, home="other", slots=1) as other:
        async with a_node(tmp_path, home="node", slots=2, priority=5) as node:
            urls = (node.url, other.url)
            async with a_scheduler(tmp_path, *urls, home="scheduler") as program:
                await ready(program, 2)
                wanted = secret_request("hang")
                one = await program.service.submit(LOCAL, wanted, secrets=SECRETS)
                two = await program.service.submit(LOCAL, request("hang"))
                for build in (one, two):
                    await until(
                        program.service, build.id, lambda build: build.state is State.RUNNING
                    )
            for file in (tmp_path / "scheduler").glob("scheduler.db*"):
                file.unlink()
            recovered = a_scheduler(tmp_path, *urls, home="scheduler", recover_least=0.1)
            program = await recovered.__aenter__()
            await program.parts.dispatcher.recovered.wait()
            assert (await program.service.get(LOCAL, one.id)).state is State.RUNNING
        try:
            build = await ended(program.service, one.id)
            assert (build.result, build.attempt) == (Result.LOST, 1)
            assert "secrets" in build.reason
            again = await until(program.service, two.id, lambda build: build.attempt == 2)
            assert again.node is None or again.node.id == other.id
            await program.service.cancel(LOCAL, two.id)
        finally:
            await recovered.__aexit__(None, None, None)


async def test_a_restart_of_the_scheduler_loses_no_secret(tmp_path) -> None:
    """A build that waited has them when it is placed."""
    async with a_scheduler(tmp_path, home="scheduler") as program:
        waiting = await program.service.submit(LOCAL, secret_request("print x"), secrets=SECRETS)
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, home="scheduler") as program,
    ):
        build = await ended(program.service, waiting.id)
        assert build.result is Result.SUCCEEDED


async def test_no_answer_and_no_line_of_a_log_has_a_secret(tmp_path, caplog) -> None:
    """Of the scheduler, its node, and the errors of both; while the build runs and afterwards."""
    caplog.set_level(logging.DEBUG)
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url) as program,
    ):
        await ready(program)
        accepted = await program.service.submit(LOCAL, secret_request("hang"), secrets=SECRETS)
        await until(program.service, accepted.id, lambda build: build.state is State.RUNNING)
        assert node.parts.ledger.secrets_of(accepted.id) == SECRETS
        said = await _everything(node, program, accepted.id)
        await program.service.cancel(LOCAL, accepted.id)
        await ended(program.service, accepted.id)
        said += await _everything(node, program, accepted.id)
        said += await _errors(program, accepted.id)
        assert node.parts.ledger.secrets_of(accepted.id) == {}
        await program.parts.dispatcher.ledger.saved(accepted.id)
        assert program.parts.dispatcher.ledger.secrets_of(accepted.id) == {}
    assert accepted.id in said
    assert "password" in said
    assert VALUE not in said
    assert VALUE not in caplog.text


async def _everything(node, program, build_id: str) -> str:
    """All that the two programs answer of builds, in both formats of each way to ask."""
    caller = Caller(owner="", role=Role.PROGRAM, program=program.id, store="0" * 32)
    said = [repr(await node.service.status(caller))]
    async with aiohttp.ClientSession() as session:
        for url in (node.url, program.url):
            for path in (
                "/status",
                "/metrics",
                "/api/v1/builds",
                "/api/v1/changes",
                f"/api/v1/builds/{build_id}",
                f"/api/v1/builds/{build_id}/explain",
                f"/api/v1/builds/{build_id}/log",
                f"/status/{build_id}",
            ):
                for media in ("application/json", "application/msgpack"):
                    async with session.get(url + path, headers={"Accept": media}) as answer:
                        said.append((await answer.read()).decode("utf-8", "replace"))
    for one in (node, program):
        async with a_client(one.url) as client:
            said.append(repr(await client.list(LOCAL, BuildQuery())))
            opened = await client.open_log(LOCAL, build_id, Position())
            said.append(repr([piece async for piece in opened.stream]))
    return "\n".join(said)


async def _errors(program, build_id: str) -> str:
    """What is said of secrets that are wrong in each way."""
    said = []
    good = {"recipe": {"commands": [{"name": "c", "text": "x"}]}}
    for url, body in (
        ("/api/v1/builds", {**good, "secrets": {"bad name!": VALUE}}),
        ("/api/v1/builds", {**good, "secrets": {"password": [VALUE]}}),
        ("/api/v1/builds", {**good, "secrets": {"password": VALUE * 9000}}),
        ("/api/v1/builds", {**good, "secrets": VALUE}),
        ("/api/v1/builds", {**good, "secret": {"password": VALUE}}),
        ("/api/v1/builds/preview", {**good, "secrets": [VALUE]}),
        (f"/api/v1/builds/{build_id}/retry", {"secrets": {"other": VALUE}}),
        (f"/api/v1/builds/{build_id}/retry", {"secrets": {"password": 5, "other": VALUE}}),
    ):
        async with (
            aiohttp.ClientSession() as session,
            session.post(program.url + url, json=body) as answer,
        ):
            assert answer.status == 400
            said.append(await answer.text())
    return "\n".join(said)


async def test_no_file_has_a_secret_when_the_build_has_stopped(tmp_path) -> None:
    """Neither the scheduler's store nor the node's records, once the programs have ended; before,
    both had it.
    """
    async with (
        a_node(tmp_path, home="node") as node,
        a_scheduler(tmp_path, node.url, home="scheduler") as program,
    ):
        await ready(program)
        accepted = await program.service.submit(LOCAL, secret_request("hang"), secrets=SECRETS)
        await until(program.service, accepted.id, lambda build: build.state is State.RUNNING)
        names = {path.name.partition("-")[0] for path in _with_value(tmp_path)}
        assert names == {"node.db", "scheduler.db"}
        await program.service.cancel(LOCAL, accepted.id)
        await ended(program.service, accepted.id)
    assert _with_value(tmp_path) == []


async def test_no_file_has_a_secret_soon_after_the_build_has_stopped(tmp_path) -> None:
    """While both programs run on: neither their databases nor the logs beside these."""
    soon = {"erase_every": 0.05}
    async with (
        a_node(tmp_path, home="node", **soon) as node,
        a_scheduler(tmp_path, node.url, home="scheduler", **soon) as program,
    ):
        await ready(program)
        accepted = await program.service.submit(LOCAL, secret_request("hang"), secrets=SECRETS)
        await until(program.service, accepted.id, lambda build: build.state is State.RUNNING)
        assert len(_with_value(tmp_path)) >= 2
        await program.service.cancel(LOCAL, accepted.id)
        await ended(program.service, accepted.id)
        async with asyncio.timeout(10):
            for _ in iter(lambda: _with_value(tmp_path), []):
                await asyncio.sleep(0.05)
        names = {path.name for path in tmp_path.rglob("*.db-wal")}
        assert names >= {"node.db-wal", "scheduler.db-wal"}  # it was there that one looked


async def test_secrets_lie_in_pages_of_their_own(tmp_path) -> None:
    """These are overwritten as a whole; where rows are moved from page to page, copies stay. So it
    is however small the record is, as that of a build which waits.
    """
    async with (
        a_node(tmp_path, home="node", slots=0) as node,
        a_scheduler(tmp_path, home="scheduler") as program,
    ):
        wanted = replace(BuildRequest(), secrets=("password",))
        for one, erase in ((node, node.parts.records.erase), (program, program.parts.store.erase)):
            await one.service.submit(LOCAL, wanted, secrets=SECRETS)
            await erase()
        for name in ("node/node.db", "scheduler/scheduler.db"):
            data = (tmp_path / name).read_bytes()
            pages = [data[at : at + 1024] for at in range(0, len(data), 1024)]
            found = [page for page in pages if VALUE.encode() in page]
            assert found
            assert all(page[0] == 0 for page in found)  # the number of the next, not a kind of tree


def _with_value(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if VALUE.encode() in path.read_bytes()]

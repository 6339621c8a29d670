"""`imagepool backup`, and what a restored copy becomes."""

import asyncio
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagepool.cli import cli
from protocol.errors import NotFound
from protocol.model.build import State
from protocol.model.request import Needs
from protocol.ports.service import LOCAL, Caller, Role
from tests.programs import a_node, a_scheduler, ended, ready, request, until
from tests.trust.test_pool import a_member, a_pool, in_state


async def backup(data: Path, target: Path) -> Result:
    """The command, in a process of its own as far as the event loop is concerned."""
    arguments = ["backup", str(target), "--data", str(data)]
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments)


@pytest.mark.gen_test(timeout=60)
async def test_a_copy_that_was_made_meanwhile_is_restored_and_hears_what_it_missed(
    tmp_path,
) -> None:
    """Builds that were forwarded after the copy come back from their nodes, with owner and key;
    what only waited does not.
    """
    copy = tmp_path / "copy"
    wanted, ann = request("print x"), Caller("ann")
    async with a_node(tmp_path) as node:
        async with a_scheduler(tmp_path, node.url, home="s") as pool:
            await ready(pool)
            before = await pool.service.submit(ann, wanted)
            before = await ended(pool.service, before.id)
            copied = await backup(tmp_path / "s", copy)
            assert copied.exit_code == 0, copied.output
            modes = {file.name: file.stat().st_mode & 0o777 for file in copy.iterdir()}
            names = ("scheduler.db", "key.pem", "access.db", "audit.db")
            assert modes == dict.fromkeys(names, 0o600)  # it holds a private key
            after = await pool.service.submit(ann, wanted, key="k")
            after = await ended(pool.service, after.id)
            waiting = await pool.service.submit(ann, request("x", needs=Needs(labels=("gpu",))))
            assert waiting.state is State.WAITING
        shutil.copytree(copy, tmp_path / "s2")
        async with a_scheduler(tmp_path, node.url, home="s2", recover_least=0.5) as pool:
            assert (await pool.service.get(LOCAL, before.id)).result is before.result
            assert (await pool.service.submit(ann, wanted, key="k")).id == after.id
            found = await until(pool.service, after.id, lambda build: build.result is not None)
            assert (found.owner, found.result) == ("ann", after.result)
            with pytest.raises(NotFound):
                await pool.service.get(LOCAL, waiting.id)


@pytest.mark.gen_test(timeout=60)
async def test_a_restored_copy_is_the_same_pool(tmp_path: Path) -> None:
    """Its nodes believe it without joining anew, its tokens are good, and so is the join token."""
    async with a_pool(tmp_path, home="s") as scheduler:
        async with a_member(tmp_path, scheduler, home="n") as node:
            await in_state(scheduler, node, "ready")
        invited = scheduler.parts.door.invitation()
        text, made = await scheduler.parts.people.accounts.make_token("ada", Role.USER)
        copied = await backup(tmp_path / "s", tmp_path / "s2")
        assert copied.exit_code == 0, copied.output
    private = [path for path in (tmp_path / "s2").rglob("*") if path.stat().st_mode & 0o077]
    assert not private
    async with a_pool(tmp_path, home="s2") as scheduler:
        assert scheduler.parts.door.invitation() == invited
        assert scheduler.parts.people.accounts.token(text) == made
        async with a_member(tmp_path, scheduler, home="n", join="") as node:
            await in_state(scheduler, node, "ready")


@pytest.mark.parametrize("case", ["no store", "a target that is there"])
def test_what_is_wrong_is_said(tmp_path, case) -> None:
    """With the exit code of wrong usage, and nothing is written."""
    data, target = tmp_path / "data", tmp_path / "target"
    data.mkdir()
    if case == "a target that is there":
        target.mkdir()
    said = CliRunner().invoke(cli, ["backup", str(target), "--data", str(data)])
    assert said.exit_code == 2
    assert said.output.startswith("Error: ")
    assert list(data.iterdir()) == []

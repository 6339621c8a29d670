"""Builds are their owners': every verb, for the owner, for others, and for those who see all."""

import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import NotFound
from protocol.model.build import Build, Position
from protocol.model.messages import BuildQuery
from protocol.model.recipe import ArtifactContent, Command, InputFile, Recipe
from protocol.model.request import BuildRequest
from protocol.ports.service import BuildService, Caller, Role
from protocol.trust.owned import OwnedService
from tests.programs import a_node, ended, request

pytestmark = pytest.mark.gen_test

ADA, BOB = (Caller(owner=name, role=Role.USER) for name in ("ada", "bob"))
SEERS = [Caller(owner="eve", role=role) for role in (Role.OPERATOR, Role.ADMIN)]

Verb = Callable[[BuildService, Caller, str], Awaitable[Any]]


async def _log(service: BuildService, caller: Caller, key: str) -> None:
    await (await service.open_log(caller, key, Position())).stream.close()


async def _artifact(service: BuildService, caller: Caller, key: str) -> None:
    await (await service.open_artifact(caller, key, "image.iso")).stream.close()


def _taking(key: str) -> BuildRequest:
    """A request that takes what that build made."""
    content = ArtifactContent(key, "image.iso")
    recipe = Recipe((Command("look", text="print x"),), inputs=(InputFile("x", content),))
    return BuildRequest(recipe)


ON_A_BUILD: dict[str, Verb] = {
    "get": lambda service, caller, key: service.get(caller, key),
    "explain": lambda service, caller, key: service.explain(caller, key),
    "artifacts": lambda service, caller, key: service.artifacts(caller, key),
    "open_log": _log,
    "open_artifact": _artifact,
    "submit": lambda service, caller, key: service.submit(caller, _taking(key)),
    "preview": lambda service, caller, key: service.preview(caller, _taking(key)),
    "retry": lambda service, caller, key: service.retry(caller, key),
    "cancel": lambda service, caller, key: service.cancel(caller, key),
    "pin": lambda service, caller, key: service.pin(caller, key, False),
    "delete": lambda service, caller, key: service.delete(caller, key),
}
ELSEWHERE = {"list", "changes"}
"""Verbs that have a test of their own here."""
OF_PROGRAMS = {"status", "acknowledge"}
"""Verbs about this program, or of programs only, which `protocol/api/access.py` keeps."""


def test_every_verb_is_here() -> None:
    """One that is added to the service is added to a table above, or this fails."""
    verbs = {name for name, _ in inspect.getmembers(BuildService, inspect.iscoroutinefunction)}
    assert verbs == set(ON_A_BUILD) | ELSEWHERE | OF_PROGRAMS


async def made(service: BuildService, caller: Caller) -> Build:
    """A build of theirs that has an artifact."""
    asked = request("artifact 100")
    asked = BuildRequest(Recipe(asked.recipe.commands), asked.guidance)
    return await ended(service, (await service.submit(caller, asked)).id)


@pytest.mark.parametrize("verb", list(ON_A_BUILD))
async def test_a_verb_on_a_build(tmp_path: Path, verb: str) -> None:
    """The owner may, others hear that there is no such build, operators may."""
    async with a_node(tmp_path) as node:
        service = OwnedService(node.service)
        call = ON_A_BUILD[verb]
        build = await made(node.service, ADA)
        with pytest.raises(NotFound, match=f"there is no build '{build.id}' here"):
            await call(service, BOB, build.id)
        with pytest.raises(NotFound, match=f"there is no build '{'0' * 32}' here"):
            await call(service, BOB, "0" * 32)
        for caller in (ADA, *SEERS):
            build = await made(node.service, ADA)
            await call(service, caller, build.id)


async def test_lists(tmp_path: Path) -> None:
    """Show one's own, whatever owner is asked for; to operators all."""
    async with a_node(tmp_path) as node:
        service = OwnedService(node.service)
        hers, his = [(await made(node.service, owner)).id for owner in (ADA, BOB)]

        async def listed(caller: Caller, **query: Any) -> set[str]:
            page = await service.list(caller, BuildQuery(**query))
            changes = await service.changes(caller)
            if not query:
                assert {build.id for build in changes.builds} == {b.id for b in page.builds}
            return {build.id for build in page.builds}

        assert await listed(ADA) == await listed(ADA, owner="ada") == {hers}
        assert await listed(ADA, owner="bob") == set()
        assert await listed(BOB) == {his}
        for caller in SEERS:
            assert await listed(caller) == {hers, his}


async def test_changes_of_others_end_no_wait(tmp_path: Path) -> None:
    """Who waits for changes is not told that somebody else's build changed."""
    async with a_node(tmp_path) as node:
        service = OwnedService(node.service)
        cursor = (await service.changes(ADA)).cursor
        await made(node.service, BOB)
        seen = await service.changes(ADA, cursor=cursor, wait=0.3)
        assert seen.builds == ()
        assert seen.cursor != cursor
        hers = await made(node.service, ADA)
        seen = await service.changes(ADA, cursor=seen.cursor, wait=5)
        assert {build.id for build in seen.builds} == {hers.id}


async def test_what_others_delete(tmp_path: Path) -> None:
    """Is told to nobody but them and those who see all."""
    async with a_node(tmp_path) as node:
        service = OwnedService(node.service)
        hers = await made(node.service, ADA)
        cursor = (await service.changes(ADA)).cursor
        await service.delete(ADA, hers.id)
        assert (await service.changes(BOB, cursor=cursor)).gone == ()
        for caller in (ADA, *SEERS):
            assert (await service.changes(caller, cursor=cursor)).gone == (hers.id,)


async def test_what_strangers_see_of_a_program(tmp_path: Path) -> None:
    """Whether it is ready; not which images and labels it has. Those whom it knows see them."""
    async with a_node(tmp_path, labels=("secret-project",)) as node:
        service = OwnedService(node.service)
        known = await service.status(ADA)
        assert known.labels == ("secret-project",)
        told = await service.status(Caller(owner="", role=Role.NOBODY))
        assert (told.status, told.labels, told.images, told.below) == (known.status, (), (), ())

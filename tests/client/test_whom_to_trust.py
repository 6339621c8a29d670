"""A pool that mDNS found may be anybody's: what is told to none but one's own."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from imagepool import AsyncClient
from imagepool.client import asking
from protocol.errors import Conflict, Invalid, Unavailable
from tests.client.pool import a_pool
from tests.client.test_client import recipe

pytestmark = pytest.mark.gen_test(timeout=60)

ROGUE = "http://127.0.0.1.rogue.example:1"
ASKED: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "a secret": lambda client: client.submit(recipe("print x"), secrets={"key": "hush"}),
    "a secret again": lambda client: client.retry("1" * 32, secrets={"key": "hush"}),
    "a password": lambda client: client.put_user("ada", "admin", "correct horse battery"),
    "an invitation": lambda client: client.invitation(),
}


def finds(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have mDNS find that."""

    async def find() -> str:
        return url

    monkeypatch.delenv(asking.URL, raising=False)
    monkeypatch.setattr(asking, "find_scheduler", find)


@pytest.mark.parametrize("what", ASKED)
async def test_whoever_was_found(monkeypatch, what: str) -> None:
    """Gets no secret and no password, and nobody is sent to join them; the words say what to do."""
    finds(monkeypatch, ROGUE)
    async with AsyncClient(persistence=0) as client:
        with pytest.raises(Invalid, match="not for whoever mDNS finds") as caught:
            await ASKED[what](client)
        assert "--url" in caught.value.expected
        with pytest.raises(Unavailable):  # what is no secret is sent
            await client.submit(recipe("print x"))
    async with AsyncClient(ROGUE, persistence=0) as client:
        with pytest.raises(Unavailable):  # somebody said that it is for them
            await ASKED[what](client)


async def test_who_was_found_on_this_machine(monkeypatch, tmp_path: Path) -> None:
    """Is believed, as in all else."""
    async with a_pool(tmp_path) as pool:
        finds(monkeypatch, pool.url)
        async with AsyncClient() as client:
            build = await client.submit(recipe("print x"), secrets={"key": "hush"})
            assert (await client.wait(build.id)).request.secrets == ("key",)
            with pytest.raises(Conflict, match="prove nothing"):  # it has no door at all
                await client.invitation()

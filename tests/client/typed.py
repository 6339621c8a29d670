"""Read by mypy only (tests/client/test_client.py): what users' programs may rely on."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

from imagepool import AsyncClient, Client
from imagepool.client import (
    Artifact,
    Build,
    BuildQuery,
    Event,
    Explanation,
    LogPiece,
    Recipe,
    Roster,
    State,
)


def plain(client: Client) -> None:
    """The plain client's answers."""
    assert_type(client.submit({"commands": []}, key="k"), Build)
    assert_type(client.wait("1", timeout=3), Build)
    assert_type(client.watch("1"), Iterator[Event])
    assert_type(client.log("1", follow=True), Iterator[LogPiece])
    assert_type(client.lines("1"), Iterator[str])
    assert_type(client.download("1", Path("x")), Artifact)
    assert_type(client.builds(BuildQuery(status=State.STOPPED)), Iterator[Build])
    assert_type(client.explain("1"), Explanation)
    assert_type(client.nodes(), Roster)
    with client as same:
        assert_type(same, Client)


async def asynchronous(client: AsyncClient) -> None:
    """The other one's."""
    assert_type(await client.submit(Recipe()), Build)
    async for event in client.watch("1"):
        assert_type(event, Event)


def wrong(client: Client) -> None:
    """Each of these is an error; an ignore that is not needed is one too."""
    client.wait("1", timeout="soon")  # type: ignore[arg-type]
    client.submit()  # type: ignore[call-arg]
    client.explain(1)  # type: ignore[arg-type]
    client.nothing("1")  # type: ignore[attr-defined]

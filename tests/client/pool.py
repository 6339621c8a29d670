"""A pool for tests of its client, and a network before it that fails on purpose."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.local import free_port
from tests.chaos.proxy import Proxy
from tests.programs import Program, a_node, a_scheduler, ready


@asynccontextmanager
async def a_pool(
    folder: Path, scheduling: Mapping[str, Any] = {}, **settings: Any
) -> AsyncIterator[Program]:
    """A scheduler with one node on the dummy engine; settings of the one and of the other."""
    async with (
        a_node(folder, **{"slots": 4, **settings}) as node,
        a_scheduler(folder, node.url, **scheduling) as pool,
    ):
        yield await ready(pool)


@asynccontextmanager
async def a_proxy(pool: Program) -> AsyncIterator[Proxy]:
    """A way to the pool that can be cut."""
    async with Proxy(free_port(), urlsplit(pool.url).port or 0) as proxy:
        yield proxy

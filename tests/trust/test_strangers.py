"""What somebody gets whom nobody knows: to ask to be let in, and no more memory than that takes."""

import gc
import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from protocol.api.reading import STRANGERS
from protocol.ports.service import Role
from protocol.program.joining import AUTHORITY_PATH, JOIN_PATH
from protocol.trust.membership import unproven
from scheduler.app import MEMBERS_ROUTES
from tests.programs import Program, a_node, a_scheduler, ready
from tests.trust.test_pool import a_member, a_pool, in_state

pytestmark = pytest.mark.gen_test(timeout=60)


async def status_of(url: str, method: str = "GET", body: Any = None) -> int:
    """Of an answer to somebody without a certificate or token."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            url,
            data=None if body is None else io.BytesIO(body),
            headers={"Content-Type": "application/json"},
            ssl=unproven(),
        ) as answer,
    ):
        return answer.status


async def refused(program: Program, *open_to_all: str) -> None:
    """Each route but these, and what is no route, is refused alike."""
    paths = {route.path.replace("([A-Za-z0-9]{1,64})", "ab") for route in MEMBERS_ROUTES}
    paths = {path for path in paths if "(" not in path} | {"/api/v1/session", "/healthz"}
    for path in sorted(paths - {*open_to_all}):
        for method in ("GET", "POST"):
            status = await status_of(program.members_url + path, method)
            assert status in (401, 404, 405), (method, path, status)
    assert await status_of(f"{program.members_url}/status") == 401


async def test_without_a_certificate_there_is_only_the_door(tmp_path: Path) -> None:
    """On both programs' listeners for the pool: not even the status is told."""
    async with a_pool(tmp_path) as scheduler, a_member(tmp_path, scheduler) as node:
        await in_state(scheduler, node, "ready")
        await refused(scheduler, AUTHORITY_PATH, JOIN_PATH)
        await refused(node)
        assert await status_of(scheduler.members_url + AUTHORITY_PATH) == 200
        assert await status_of(scheduler.members_url + JOIN_PATH, "POST", b"{}") == 400


@pytest.mark.parametrize("size", [STRANGERS + 1, 12 << 20])
async def test_strangers_fill_no_memory(tmp_path: Path, size: int) -> None:
    """A body of theirs that is longer than any that makes sense is not kept."""
    body = b'{"name": "' + b"x" * size + b'"}'
    async with a_pool(tmp_path) as scheduler:
        url = scheduler.members_url + JOIN_PATH
        assert await status_of(url, "POST", body) == 413
        assert await status_of(url, "POST", body[: STRANGERS // 2] + b'"}') == 400
    async with a_node(tmp_path) as node:
        await node.parts.people.accounts.make_token("root", Role.ADMIN)
        assert await status_of(f"{node.url}/api/v1/session", "POST", body) == 413


async def test_who_is_known_may_say_more(tmp_path: Path) -> None:
    """As much as `body_limit`."""
    body = b'{"name": "' + b"x" * (1 << 20) + b'"}'
    async with a_scheduler(tmp_path) as scheduler:
        assert await status_of(f"{scheduler.url}/api/v1/builds", "POST", body) == 400


async def test_addresses_that_somebody_makes_up(tmp_path: Path) -> None:
    """No more of them are kept than the limit says; who answered is not forgotten for them."""
    async with (
        a_node(tmp_path) as node,
        a_scheduler(tmp_path, node.url, stranger_limit=3) as scheduler,
        a_node(tmp_path) as found,
    ):
        pool = scheduler.parts.dispatcher.pool
        pool.find(found.id, (found.url,), "mdns")
        await ready(scheduler, 2)
        for number in range(10):
            pool.find(f"{number:032x}", (f"http://127.0.0.1:{number + 1}",), "mdns")
        kept = {entry.key for entry in pool.entries()}
        assert kept - {node.url, found.id} == {f"{number:032x}" for number in (7, 8, 9)}
        assert kept > {node.url, found.id}
    gc.collect()  # connections that were left open are warned of, and fail this

"""A program on loopback that nobody has a token of: this machine's people, and what their browser
is made to ask by others.
"""

from pathlib import Path

import aiohttp
import pytest

from tests.programs import Program, a_node, a_scheduler

pytestmark = pytest.mark.gen_test(timeout=60)

READING = ("/api/v1/builds", "/api/v1/changes", "/metrics", "/api/v1/tokens", "/api/v1/audit")
REBOUND = {"Host": "rebound.example"}
"""A name that led to its owner's machine when the page was loaded, and leads here now: to the
browser it is the page's own origin.
"""
OTHERS = (
    REBOUND,
    {**REBOUND, "Origin": "http://rebound.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
)


async def status(program: Program, method: str, path: str, headers: dict[str, str]) -> int:
    """Of one request, with an order where something is posted."""
    body = b'{"recipe": {"commands": []}}' if method == "POST" else None
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, program.url + path, data=body, headers=headers) as answer,
    ):
        await answer.read()
        return answer.status


@pytest.mark.parametrize("headers", OTHERS, ids=str)
async def test_pages_of_others_get_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    """Neither a word nor a build, from either program; the program's own people do."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        for program in (node, scheduler):
            for path in READING:
                assert await status(program, "GET", path, headers) == 401, path
                assert await status(program, "GET", path, {}) == 200, path
            for path in ("/api/v1/builds", "/create", "/api/v1/tokens", "/api/v1/blobs"):
                assert await status(program, "POST", path, headers) in (401, 403), path
            word = {**headers, "Imagepool-Program": "a" * 40}
            assert await status(program, "GET", "/api/v1/builds", word) == 401
            assert len(program.parts.people.accounts.tokens()) == 0
        assert await status(scheduler, "GET", "/", headers) == 401
        assert await status(scheduler, "GET", "/api/v1/nodes", headers) == 401

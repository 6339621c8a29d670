"""Uploads and forms on the wire: what any HTTP client sends and is answered."""

import asyncio
import io
import json
import os
from typing import Any

import aiohttp
import pytest

from protocol.errors import PoolError, Unavailable
from protocol.ports.service import LOCAL
from tests.programs import Program, a_node, ended
from tests.streams import digest_of

pytestmark = pytest.mark.gen_test(timeout=30)

HELLO = {"recipe": {"commands": [{"name": "c", "text": "print hello"}], "output": {"kind": "none"}}}


def kept(program: Program) -> set[str]:
    """What lies in its folder."""
    return {path.name for path in program.parts.service._place.blobs._folder.iterdir()}


async def answer(response: aiohttp.ClientResponse) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    text = await response.text()
    return response.status, json.loads(text) if text else {}


async def test_a_put_is_created_once(tmp_path) -> None:
    """201, then 200; the answer has digest and location; another digest is refused."""
    data = os.urandom(1_000_000)
    digest = digest_of(data)
    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        url = f"{node.url}/api/v1/blobs/{digest}"
        for status in (201, 200):
            async with session.put(url, data=io.BytesIO(data)) as response:
                assert await answer(response) == (status, {"sha256": digest})
                assert response.headers["Location"].endswith(f"/api/v1/blobs/{digest}")
        async with session.put(url, data=data[1:]) as response:
            status, problem = await answer(response)
            assert (status, problem["field"], problem["pointer"]) == (400, "sha256", "/sha256")
        for name in ("A" * 64, "x"):
            async with session.put(f"{node.url}/api/v1/blobs/{name}", data=b"") as response:
                status, problem = await answer(response)
                assert (status, problem["field"]) == (400, "sha256")
        assert kept(node) == {digest}


async def test_a_post_answers_the_digest(tmp_path) -> None:
    """Of a body with or without a length."""

    async def pieces():
        yield b"in "
        yield b"pieces"

    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        url = f"{node.url}/api/v1/blobs"
        async with session.post(url, data=b"whole") as response:
            assert await answer(response) == (201, {"sha256": digest_of(b"whole")})
        async with session.post(url, data=pieces()) as response:
            assert await answer(response) == (201, {"sha256": digest_of(b"in pieces")})
        asked = {"digests": [digest_of(b"whole"), "0" * 64]}
        async with session.post(url + "/missing", json=asked) as response:
            assert await answer(response) == (200, {"missing": ["0" * 64]})
        async with session.post(url + "/missing", json={"digests": ["x"]}) as response:
            status, problem = await answer(response)
            assert (status, problem["field"]) == (400, "digests[0]")


async def test_what_is_too_large_is_refused_at_once(tmp_path) -> None:
    """413, by its length before anything is read, or when it shows; nothing is kept."""

    async def pieces():
        for _ in range(20):
            yield bytes(100_000)

    async with (
        a_node(tmp_path, upload_limit=1_000_000, body_limit=1000) as node,
        aiohttp.ClientSession() as session,
    ):
        url = f"{node.url}/api/v1/blobs"
        headers = {"Content-Length": str(1 << 40), "Expect": "100-continue"}
        async with session.post(url, data=pieces(), headers=headers) as response:
            assert response.status == 413
        async with session.post(url, data=pieces()) as response:
            status, problem = await answer(response)
            assert (status, problem["field"]) == (413, "body")
        async with session.post(url, data=io.BytesIO(bytes(1_000_000))) as response:
            assert response.status == 201
        assert kept(node) == {digest_of(bytes(1_000_000))}


async def test_who_hangs_up_in_the_middle_leaves_nothing(tmp_path) -> None:
    """Neither a file nor a half of one."""
    async with a_node(tmp_path) as node:
        begun: asyncio.Queue[None] = asyncio.Queue()
        ended: asyncio.Queue[PoolError] = asyncio.Queue()
        upload = node.service.upload

        async def watched(*args: Any, **options: Any) -> str:
            await begun.put(None)
            try:
                return await upload(*args, **options)
            except PoolError as error:
                await ended.put(error)
                raise

        node.service.upload = watched
        host, port = node.url.removeprefix("http://").split(":")
        for head in (
            "POST /api/v1/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n",
            "POST /api/v1/builds HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            'Content-Disposition: form-data; name="inputs"; filename="x"\r\n\r\n',
        ):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode() + bytes(3_000_000))
            await writer.drain()
            await begun.get()
            writer.close()
            assert isinstance(await ended.get(), Unavailable)
            assert kept(node) == set()


def form(order: Any, *files: tuple[str, str, bytes]) -> aiohttp.FormData:
    """A create with these files: part, file name, bytes."""
    data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for part, name, content in files:
        data.add_field(part, io.BytesIO(content), filename=name)
    data.add_field("build", order if isinstance(order, str) else json.dumps(order))
    return data


async def test_a_form_brings_the_files_along(tmp_path) -> None:
    """Inputs under their names, behind those that the order names itself; the build runs."""
    large = os.urandom(3_000_000)
    named = {"name": "named", "content": {"kind": "text", "text": "x"}}
    order = {"recipe": {**HELLO["recipe"], "inputs": [named]}}
    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        files = [("inputs", "folder/größe.bin", large), ("inputs", "empty", b"")]
        async with session.post(f"{node.url}/api/v1/builds", data=form(order, *files)) as response:
            status, build = await answer(response)
            assert status == 201
        assert build["request"]["recipe"]["inputs"][1:] == [
            {
                "name": name,
                "content": {"kind": "upload", "sha256": digest_of(data)},
                "executable": False,
            }
            for _, name, data in files
        ]
        assert kept(node) == {digest_of(large), digest_of(b"")}
        assert (await ended(node.service, build["id"])).result.value == "succeeded"


async def test_a_form_brings_a_dockerfile_and_its_context(tmp_path) -> None:
    """With or without the base in the order."""
    files = [("dockerfile", "Dockerfile", b"FROM x"), ("context", "src/a.c", b"int a;")]
    expected = {
        "kind": "dockerfile",
        "dockerfile": {"kind": "upload", "sha256": digest_of(b"FROM x")},
        "context": [
            {
                "name": "src/a.c",
                "content": {"kind": "upload", "sha256": digest_of(b"int a;")},
                "executable": False,
            }
        ],
        "archive": None,
        "path": "Dockerfile",
        "no_cache": False,
        "pull": False,
    }
    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        for base in ({}, {"base": {"kind": "dockerfile", "pull": True}}):
            order = {"recipe": {**HELLO["recipe"], **base}}
            url = f"{node.url}/api/v1/builds"
            async with session.post(url, data=form(order, *files)) as response:
                status, build = await answer(response)
                assert status == 201, build
            wanted = {**expected, "pull": bool(base)}
            assert build["request"]["recipe"]["base"] == wanted
            await node.service.cancel(LOCAL, build["id"])


BAD = [
    (("not json",), "build", 400),
    (([],), "build", 400),
    (({"recipe": {"commands": 5}},), "recipe.commands", 400),
    (({"recipe": 5}, ("inputs", "x", b"1")), "recipe", 400),
    (({"recipe": {"inputs": 5}}, ("inputs", "x", b"1")), "recipe.inputs", 400),
    ((HELLO, ("inputs", "../x", b"1")), "recipe.inputs[0].name", 400),
    ((HELLO, ("inputs", "x", b"1"), ("inputs", "x", b"2")), "recipe.inputs[1].name", 400),
    ((HELLO, ("inputs", "", b"1")), "recipe.inputs[0].name", 400),
    ((HELLO, ("other", "x", b"1")), "body", 400),
    ((HELLO, ("dockerfile", "a", b"1"), ("dockerfile", "b", b"2")), "dockerfile", 400),
    (
        ({"recipe": {"base": {"kind": "image"}}}, ("context", "x", b"1")),
        "context",
        400,
    ),
    (("x" * 20_000,), "build", 413),
    ((HELLO, *(("inputs", f"f{i}", b"") for i in range(1025))), "recipe.inputs", 400),
]


@pytest.mark.parametrize("case", range(len(BAD)))
async def test_a_bad_form(tmp_path, case) -> None:
    """Names the field; no build is there afterwards."""
    parts, field, expected = BAD[case]
    async with a_node(tmp_path, body_limit=10_000) as node, aiohttp.ClientSession() as session:
        url = f"{node.url}/api/v1/builds"
        async with session.post(url, data=form(*parts)) as response:
            status, problem = await answer(response)
            assert (status, problem["field"]) == (expected, field), problem
            assert problem["expected"]
        async with session.get(url) as response:
            assert (await response.json())["builds"] == []


async def test_a_form_without_an_order(tmp_path) -> None:
    """It is said which part is missing."""
    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
        data.add_field("inputs", b"1", filename="x")
        async with session.post(f"{node.url}/api/v1/builds", data=data) as response:
            status, problem = await answer(response)
    assert (status, problem["field"]) == (400, "build")
    assert problem["detail"] == "there is no part build, or nothing in it"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"rubbish", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data"),
        (b"--b--\r\n", "multipart/form-data; boundary=" + "b" * 300),
        (b'--b\r\nContent-Disposition: form-data; name="build"\r\n\r\n{}', None),
        (b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n{}\r\n--b--\r\n', None),
        (b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\n{}\r\n--b--\r\n", None),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\n{}\r\n--b--\r\n", None),
        (b"--b\r\n\r\n{}\r\n--b--\r\n", None),
    ],
)
async def test_a_body_that_is_no_form(tmp_path, body, kind) -> None:
    """No boundary, none that fits, no end, headers without end, no names."""
    headers = {"Content-Type": kind or "multipart/form-data; boundary=b"}
    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        url = f"{node.url}/api/v1/builds"
        async with session.post(url, data=body, headers=headers) as response:
            status, problem = await answer(response)
            assert (status, problem["field"]) == (400, "body"), problem
        assert kept(node) == set()


async def test_the_further_verbs_on_the_wire(tmp_path) -> None:
    """Their methods, codes and bodies."""
    async with a_node(tmp_path) as node, aiohttp.ClientSession() as session:
        url = f"{node.url}/api/v1/builds"
        order = {**HELLO, "secrets": {"key": "value"}}
        async with session.post(url + "/preview", json=order) as response:
            status, told = await answer(response)
            assert (status, told["id"], told["status"]) == (200, "", "waiting")
        async with session.post(url, json=order) as response:
            build = (await answer(response))[1]["id"]
        await ended(node.service, build)
        async with session.post(f"{url}/{build}/retry") as response:
            status, problem = await answer(response)
            assert (status, problem["field"]) == (409, "secrets")
        body = {"secrets": {"key": "value"}}
        async with session.post(f"{url}/{build}/retry", json=body) as response:
            status, again = await answer(response)
            assert (status, again["retry_of"]) == (201, build)
            assert response.headers["Location"].endswith(again["id"])
        for verb, pinned in (("pin", True), ("unpin", False)):
            async with session.post(f"{url}/{build}/{verb}") as response:
                status, told = await answer(response)
                assert (status, told["pinned"]) == (200, pinned)
        for code in (204, 404):
            async with session.delete(f"{url}/{build}") as response:
                assert (await answer(response))[0] == code
        await ended(node.service, again["id"])

"""Artifacts over HTTP: validators, ranges, digests, names; on a node and through a scheduler."""

import base64
import hashlib
import json

import pytest

from protocol.model.recipe import IsoOutput
from protocol.ports.service import LOCAL
from tests.api.test_image_creator import Api
from tests.programs import a_node, a_scheduler, ended, ready, request

SIZE = 5000


@pytest.mark.gen_test(timeout=60)
async def test_an_artifact_is_served_alike_by_node_and_scheduler(http_client, tmp_path):
    """Whole, in part, by HEAD, or not at all where the client has it."""
    async with a_node(tmp_path) as node, a_scheduler(tmp_path, node.url) as scheduler:
        await ready(scheduler)
        wanted = request(f"artifact {SIZE}", output=IsoOutput())
        build = await ended(scheduler.service, (await scheduler.service.submit(LOCAL, wanted)).id)
        path = f"/api/v1/builds/{build.id}/artifacts/image.iso"
        for program in (node, scheduler):
            await check_artifact(Api(http_client, program.url), path, build.artifacts[0].sha256)


async def check_artifact(api: Api, path: str, sha256: str) -> None:
    """Everything that RFC 9110 and RFC 9530 promise of it."""
    whole = await api.call("GET", path)
    digest = base64.b64encode(hashlib.sha256(whole.body).digest()).decode()
    assert (whole.code, len(whole.body)) == (200, SIZE)
    assert whole.headers["ETag"] == f'"{sha256}"'
    assert whole.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert whole.headers["Content-Disposition"] == 'attachment; filename="image.iso"'
    head = await api.call("HEAD", path, headers={"Range": "bytes=1-2"})
    assert (head.code, head.headers["Content-Length"], head.body) == (200, str(SIZE), b"")
    assert head.headers["Repr-Digest"] == whole.headers["Repr-Digest"]
    for tags in (f'"{sha256}"', f'W/"{sha256}"', f'"other", "{sha256}"', "*"):
        known = await api.call("GET", path, headers={"If-None-Match": tags})
        assert (known.code, known.body, known.headers["ETag"]) == (304, b"", f'"{sha256}"')
    assert (await api.call("GET", path, headers={"If-None-Match": '"other"'})).code == 200
    for condition, code in ((f'"{sha256}"', 206), ('"other"', 200), (f'W/"{sha256}"', 200)):
        part = await api.call("GET", path, headers={"Range": "bytes=10-19", "If-Range": condition})
        assert part.code == code
        assert part.body == (whole.body[10:20] if code == 206 else whole.body)
    assert (await api.call("GET", path, headers={"Range": "bytes=-7"})).body == whole.body[-7:]
    outside = await api.call("GET", path, headers={"Range": f"bytes={SIZE}-"})
    assert (outside.code, outside.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


@pytest.mark.gen_test
async def test_a_download_has_a_safe_name(http_client, base_url):
    """Whatever the client calls it: no path, no hidden file, no option, no end of line."""
    api = Api(http_client, base_url)
    status = await api.built("print a")
    url = status["download"].rpartition("/")[0]
    for given, safe in (("..%5C..%0D%0Ax", "x"), (".bashrc", "bashrc"), ("-rf", "rf")):
        answer = await api.call("GET", f"{url}/{given}")
        assert answer.code == 200, answer.body
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith(f'attachment; filename="{safe}'), disposition


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("accept", "code", "media_type"),
    [
        ("", 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/*", 200, "application/json"),
        ("application/msgpack", 200, "application/msgpack"),
        ("application/json;q=0.1, application/msgpack", 200, "application/msgpack"),
        ("application/msgpack;q=0.1, */*", 200, "application/json"),
        ("application/json;q=0, */*", 200, "application/msgpack"),
        ("text/html", 406, "application/problem+json"),
        ("application/json;q=0", 406, "application/problem+json"),
        ("application/json;q=nonsense", 406, "application/problem+json"),
    ],
)
async def test_the_client_chooses_the_media_type(http_client, base_url, accept, code, media_type):
    """Of JSON and msgpack the one that it likes best; 406 where it takes neither, and then nothing
    was done.
    """
    api = Api(http_client, base_url)
    headers = {"Accept": accept} if accept else {}
    answer = await api.call("POST", "/api/v1/builds", body="{}", headers=headers)
    assert answer.code in (code, 201 if code == 200 else code)
    assert answer.headers["Content-Type"] == media_type
    listed = json.loads((await api.call("GET", "/api/v1/builds")).body)["builds"]
    assert len(listed) == (1 if code == 200 else 0)


@pytest.mark.gen_test
async def test_errors_of_paths_and_methods_are_problems(http_client, base_url):
    """Also where there is no route."""
    api = Api(http_client, base_url)
    for method, path, code in (
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/builds/0a", 404),
        ("DELETE", "/api/v1/builds", 405),
    ):
        answer = await api.call(method, path)
        problem = json.loads(answer.body)
        assert (answer.code, problem["status"]) == (code, code)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert problem["type"].startswith("urn:imagepool:")
        assert problem["title"]
        assert problem["detail"]
        assert code != 405 or problem["expected"] == answer.headers["Allow"] == "GET, POST"

"""Bad input: a 4xx whose JSON names the field and what was expected, and nothing is started."""

import json
from typing import Any
from urllib.parse import urlencode

import msgpack
import pytest

from tests.api.test_image_creator import BUILD_ISO, Api, refusal

pytestmark = pytest.mark.gen_test


@pytest.fixture
def api(http_client, base_url) -> Api:
    """The family at its server."""
    return Api(http_client, base_url)


def command(**changes: Any) -> dict[str, Any]:
    """A good command, changed; None takes a key away."""
    good = {"name": "n", "command": "c", "arguments": [], **changes}
    return {key: value for key, value in good.items() if value is not None}


BAD: list[tuple[Any, str, int]] = [
    ({"commands": []}, "redirect", 400),
    ({**BUILD_ISO, "redirect": "ftp://host/"}, "redirect", 400),
    ({**BUILD_ISO, "redirect": "javascript:alert(1)"}, "redirect", 400),
    ({**BUILD_ISO, "redirect": "http:///nohost"}, "redirect", 400),
    ({**BUILD_ISO, "redirect": "http://a/\r\nSet-Cookie: x"}, "redirect", 400),
    ({**BUILD_ISO, "redirect": "http://a\\@b/"}, "redirect", 400),
    ({**BUILD_ISO, "redirect": "//host/"}, "redirect", 400),
    ({**BUILD_ISO, "redirect": ""}, "redirect", 400),
    ({**BUILD_ISO, "redirect": 5}, "redirect", 400),
    ({**BUILD_ISO, "commands": [command(name=None)]}, "commands[0].name", 400),
    ({**BUILD_ISO, "commands": [command(command=None)]}, "commands[0].command", 400),
    ({**BUILD_ISO, "commands": [command(arguments=None)]}, "commands[0].arguments", 400),
    ({**BUILD_ISO, "commands": [command(arguments=["a", 1])]}, "commands[0].arguments[1]", 400),
    ({**BUILD_ISO, "commands": [command(arguments={})]}, "commands[0].arguments", 400),
    ({**BUILD_ISO, "commands": [command(command=["x"])]}, "commands[0].command", 400),
    ({**BUILD_ISO, "commands": [command(command=None, url="file:///x")]}, "commands[0].url", 400),
    ({**BUILD_ISO, "commands": [command()] * 257}, "commands", 400),
    ({**BUILD_ISO, "commands": ["x"]}, "commands[0]", 400),
    ({**BUILD_ISO, "image": "--privileged"}, "image", 400),
    ({**BUILD_ISO, "image": "a b"}, "image", 400),
    ({**BUILD_ISO, "image": ""}, "image", 400),
    ({**BUILD_ISO, "image": "x" * 300}, "image", 400),
    ({**BUILD_ISO, "image": "not/allowed"}, "image", 403),
    ([], "body", 400),
    ("text", "body", 400),
    (None, "body", 400),
]


@pytest.mark.parametrize("node_settings", [{"images": ("debian:*",)}])
@pytest.mark.parametrize(("specification", "field", "code"), BAD)
async def test_a_bad_specification(api, node, node_settings, specification, field, code) -> None:
    """By body, by query and by form alike; no build is there afterwards."""
    text = json.dumps(specification)
    as_json = {"Content-Type": "application/json"}
    refusal(await api.call("POST", "/create", body=text, headers=as_json), code, field)
    form = urlencode({"specification": text})
    refusal(await api.call("POST", f"/create?{form}"), code, field)
    refusal(await api.call("GET", f"/test/create?{form}"), code, field)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    refusal(await api.call("POST", "/create", body=form, headers=headers), code, field)
    listed = json.loads((await api.call("GET", "/api/v1/builds")).body)
    assert listed["builds"] == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"not json", "JSON"),
        (b"{", "JSON"),
        (b'{"redirect": "http://a/", "commands": []} trailing', "JSON"),
        (b'{"redirect": "http://\xff\xfe/"}', "UTF-8"),
        (b"[" * 10_000 + b"]" * 10_000, "deep"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "deep"),
        (b'{"redirect": NaN, "commands": []}', "JSON"),
        (b'{"redirect": "http://a/", "commands": [], "x": "\\ud800 half a character"}', "JSON"),
        (b'{"redirect": ' + b"9" * 5000 + b"}", "JSON"),
        (b"", "JSON"),
        (b"\x00\x01\x02", "JSON"),
    ],
)
async def test_a_body_that_is_no_json(api, body, words) -> None:
    """Not JSON, not UTF-8, nested 10,000 deep."""
    for path in ("/create", "/api/v1/builds"):
        headers = {"Content-Type": "application/json"}
        response = await api.call("POST", path, body=body, headers=headers)
        error = refusal(response, 400, "body")
        assert words in error.get("error", error.get("detail"))


@pytest.mark.parametrize(
    "body", [b"\xc1", b"\x93\x01", b"\xdf\xff\xff\xff\xff", b"\x91" * 10_000, b"\x01\x02"]
)
async def test_a_body_that_is_no_msgpack(api, body) -> None:
    """A byte that means nothing, too short, a map of four billion entries, nested deep, two
    values. The error is told in the media type that the client takes.
    """
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    program = {**headers, "Imagepool-Program": "0123abcd"}
    for path, asking in (
        ("/create", program),
        ("/api/v1/builds", headers),
        ("/api/v1/acknowledgements", program),
    ):
        response = await api.call("POST", path, body=body, headers=asking)
        assert (response.code, response.headers["Content-Type"]) == (400, "application/msgpack")
        error = msgpack.unpackb(response.body)
        assert (error["field"], error["status"]) == ("body", 400)
        assert error["expected"]


@pytest.mark.parametrize("node_settings", [{"body_limit": 1000}])
async def test_a_body_that_is_too_large(api, node_settings) -> None:
    """Refused by its Content-Length before it is read, or where it comes in pieces, when it is
    over.
    """
    body = json.dumps({**BUILD_ISO, "padding": "x" * 2000})
    for path in ("/create", "/api/v1/builds"):
        refusal(await api.call("POST", path, body=body), 413, "body")

        async def pieces(write):
            for _ in range(20):
                await write(b"x" * 100)

        response = await api.client.fetch(
            api.base + path, method="POST", body_producer=pieces, raise_error=False
        )
        refusal(response, 413, "body")


async def test_a_form_of_several_parts(api) -> None:
    """multipart/form-data is not read: 415 says what is."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refusal(await api.call("POST", "/create", body="--x--", headers=headers), 415, "Content-Type")


@pytest.mark.parametrize("path", ["/status/", "/api/v1/builds/", "/download/"])
async def test_an_unknown_build(api, path) -> None:
    """404 that names the field."""
    tail = "/x.iso" if path == "/download/" else ""
    response = await api.call("GET", f"{path}{'0' * 32}{tail}")
    assert response.code == 404
    assert json.loads(response.body)["field"] == "id"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("bytes=5000-", 416),
        ("bytes=-0", 416),
        ("bytes=9999-10000", 416),
        ("bytes=0-4999", 206),
        ("bytes=4999-", 206),
        ("bytes=-9999", 206),
        ("bytes=3-1", 200),
        ("bytes=a-b", 200),
        ("bytes=0-1,3-4", 200),
        ("lines=0-1", 200),
    ],
)
async def test_ranges(api, given, code) -> None:
    """One that cannot be satisfied is 416 with the size; one that makes no sense is passed over
    (RFC 9110).
    """
    status = await api.built("artifact 5000")
    response = await api.call("GET", status["download"], headers={"Range": given})
    assert response.code == code
    if code == 416:
        refusal(response, 416, "Range")
        assert response.headers["Content-Range"] == "bytes */5000"
    elif code == 206:
        assert response.headers["Content-Range"].endswith("/5000")


async def test_if_range(api) -> None:
    """A validator that is not the artifact's digest: the whole, not a part of something else."""
    status = await api.built("artifact 5000")
    whole = await api.call("GET", status["download"])
    for validator, code in ((whole.headers["ETag"], 206), ('"other"', 200)):
        headers = {"Range": "bytes=10-19", "If-Range": validator}
        part = await api.call("GET", status["download"], headers=headers)
        assert part.code == code
    same = await api.call(
        "GET", status["download"], headers={"If-None-Match": whole.headers["ETag"]}
    )
    assert same.code == 304


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"recipe": {"commands": [{"text": "x"}]}}, "recipe.commands[0].name"),
        ({"recipe": {"output": {"kind": "floppy"}}}, "recipe.output.kind"),
        ({"recipe": {}, "guidance": {"priority": 5000}}, "guidance.priority"),
        ({"recipe": {}, "guidance": {"needs": {"memory": 1}}}, "guidance.needs.memory"),
        ({"recipe": {}, "colour": "red"}, "colour"),
        ({"recipe": {"commands": [{"name": "n", "text": "x", "url": "y"}]}}, "recipe.commands[0]"),
        ({"recipe": {"commands": [{"name": "n"}]}}, "recipe.commands[0]"),
        (
            {"recipe": {"commands": [{"name": "n", "url": "file:///x"}]}},
            "recipe.commands[0].url",
        ),
        (
            {"recipe": {"commands": [{"name": "n", "text": "a", "arguments": ["\x00"]}]}},
            "recipe.commands[0].arguments[0]",
        ),
        (
            {"recipe": {"commands": [{"name": "n", "text": "a", "environment": {"A=B": ""}}]}},
            "recipe.commands[0].environment",
        ),
    ],
)
async def test_a_bad_native_request(api, body, field) -> None:
    """An RFC 9457 problem with field, pointer and what was expected."""
    response = await api.call("POST", "/api/v1/builds", body=json.dumps(body))
    error = refusal(response, 400, field)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert error["pointer"].replace("/", "")


async def test_what_is_not_served(api) -> None:
    """Unknown paths are 404, methods 405 with Allow."""
    assert (await api.call("GET", "/nothing")).code == 404
    refused = await api.call("DELETE", "/api/v1/builds")
    assert (refused.code, refused.headers["Allow"]) == (405, "GET, POST")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=99999", "status=done", "limit=-1"])
async def test_a_bad_query(api, query) -> None:
    """The query's field is named."""
    refusal(await api.call("GET", f"/api/v1/builds?{query}"), 400, query.partition("=")[0])


@pytest.mark.parametrize("position", ["x", "1:", "1:-5", "1:2:3", "9" * 50])
async def test_a_bad_position(api, position) -> None:
    """ATTEMPT:OFFSET is expected."""
    status = await api.built()
    path = f"/api/v1/builds/{status['id']}/log?position={position}"
    refusal(await api.call("GET", path), 400, "position")

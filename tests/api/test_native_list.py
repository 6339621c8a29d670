"""The list of builds over HTTP: what may be asked for, and the way from page to page."""

import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.api.test_image_creator import Api, refusal

pytestmark = pytest.mark.gen_test

ORDER: dict[str, Any] = {
    "recipe": {"commands": [{"name": "a", "text": "print a"}], "output": {"kind": "none"}}
}


@pytest.fixture
def api(http_client, base_url) -> Api:
    """A client of the server."""
    return Api(http_client, base_url)


async def submitted(api: Api, owner: str = "ann", **guidance: Any) -> str:
    """The id of a build that has stopped."""
    body = json.dumps({**ORDER, "guidance": guidance})
    headers = {"Imagepool-Owner": owner}
    made = await api.call("POST", "/api/v1/builds", body=body, headers=headers)
    assert made.code == 201, made.body
    build = json.loads(made.body)
    while build["status"] != "stopped":
        held = f"/api/v1/builds/{build['id']}?wait=10&after={build['revision']}"
        build = json.loads((await api.call("GET", held)).body)
    return build["id"]


async def listed(api: Api, *query: tuple[str, str]) -> list[str]:
    """Ids of the builds that are found."""
    answer = await api.call("GET", "/api/v1/builds?" + urlencode(query))
    assert answer.code == 200, answer.body
    return [build["id"] for build in json.loads(answer.body)["builds"]]


async def test_builds_are_found_by_what_they_are(api):
    """By status, result, owner, label, node, creation and note; all that is asked for must be."""
    one = await submitted(api, "ann", labels={"flavour": "nightly"}, note="Twice a week")
    two = await submitted(api, "bob", labels={"flavour": "release", "signed": ""})
    created = json.loads((await api.call("GET", f"/api/v1/builds/{two}")).body)["created"]
    assert await listed(api) == [two, one]
    assert await listed(api, ("sort", "created")) == [one, two]
    assert await listed(api, ("sort", "-changed"), ("limit", "1")) == [two]
    assert await listed(api, ("owner", "ann"), ("status", "stopped")) == [one]
    assert await listed(api, ("owner", "ann"), ("result", "failed")) == []
    assert await listed(api, ("label", "flavour")) == [two, one]
    assert await listed(api, ("label", "flavour=release"), ("label", "signed")) == [two]
    assert await listed(api, ("node", "tester"), ("until", repr(created))) == [one]
    assert await listed(api, ("since", repr(created))) == [two]
    assert await listed(api, ("text", "WEEK")) == [one]
    assert await listed(api, ("id", two[-8:])) == [two]


async def test_the_next_page_is_linked(api):
    """The Link header is followed as it stands, with everything that was asked for."""
    ids = [await submitted(api, "ann", labels={"k": "v"}) for _ in range(3)]
    await submitted(api, "bob")
    url, found = "/api/v1/builds?owner=ann&label=k%3Dv&limit=2&sort=created", []
    for _ in range(2):
        answer = await api.call("GET", url)
        found += [build["id"] for build in json.loads(answer.body)["builds"]]
        if link := answer.headers.get("Link"):
            url = re.fullmatch(r'<(http://[^>]+)>; rel="next"', link)[1]
    assert found == ids
    assert "Link" not in answer.headers
    assert json.loads(answer.body)["next"] == ""


async def test_a_cursor_of_another_order_is_refused(api):
    """And one of another life of the program."""
    for query in ("cursor=abc.1", "cursor=abc&sort=changed", "cursor=0123.1&sort=-changed"):
        refusal(await api.call("GET", f"/api/v1/builds?{query}"), 409, "cursor")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=1001", "limit"),
        ("sort=name", "sort"),
        ("result=good", "result"),
        ("since=yesterday", "since"),
        ("label=a&label=%20", "label[1]"),
        ("cursor=%2F", "cursor"),
        ("since=nan", "since"),
        ("stat=running", "stat"),
        ("status=running&Owner=", "Owner"),
    ],
)
async def test_a_bad_query_names_the_argument(api, query, field):
    """And what was expected of it."""
    refusal(await api.call("GET", f"/api/v1/builds?{query}"), 400, field)


async def test_an_argument_that_there_is_not_is_refused_with_those_that_there_are(api):
    """On every route of /api/v1; who asked for less than all would get all."""
    found = refusal(await api.call("GET", "/api/v1/builds?stat=running"), 400, "stat")
    assert "there is no argument 'stat' here" in found["detail"]
    assert found["expected"].startswith("one of: limit, cursor, id, status")
    none = await api.call("POST", "/api/v1/builds/preview?dry=1", body=json.dumps(ORDER))
    assert refusal(none, 400, "dry")["expected"] == "no arguments"
    build = await submitted(api)
    refusal(await api.call("GET", f"/api/v1/builds/{build}/log?offset=3"), 400, "offset")
    assert (await api.call("GET", f"/status/{build}?since=1")).code == 200

"""The document of the API: it says all that is served, and with the types that validate."""

import json
import re
from typing import Any

import pytest

from node import parts as node_parts
from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.openapi import document
from protocol.api.route import ID, Route
from scheduler import app as scheduler_app
from tests.api.test_image_creator import Api

PROGRAMS = {"node": node_parts.ROUTES, "scheduler": scheduler_app.ROUTES}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_route_says_what_it_takes_and_gives(program: str) -> None:
    """Each method of each route under /api/v1; nothing is said of methods that are not served."""
    routes = [route for route in PROGRAMS[program] if route.path.startswith("/api/v1/")]
    silent = [
        f"{method} {route.path}"
        for route in routes
        for method in route.permissions.keys() ^ route.operations.keys()
    ]
    assert routes
    assert not silent


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_document_is_whole(program: str) -> None:
    """Every reference leads somewhere, every operation has a name of its own and its errors."""
    made = document(PROGRAMS[program])
    text = json.dumps(made)
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in made["components"]["schemas"]
    said = [
        item[method] for item in made["paths"].values() for method in item if method != "parameters"
    ]
    names = [operation["operationId"] for operation in said]
    assert len(set(names)) == len(names)
    assert all("400" in operation["responses"] for operation in said)
    assert made["openapi"].startswith("3.1")


def test_each_program_documents_what_it_serves() -> None:
    """The roster is the scheduler's."""
    node, scheduler = (document(PROGRAMS[name])["paths"] for name in ("node", "scheduler"))
    assert "/api/v1/nodes" in scheduler
    assert "/api/v1/nodes" not in node
    assert node.keys() < scheduler.keys()
    assert "/api/v1/builds/{build}/artifacts/{artifact}" in node


def test_a_route_that_says_nothing_is_documented_by_its_words() -> None:
    """Whoever wrote it."""

    class Brief(Handler):
        """A thing."""

        def put(self) -> None:
            """Make it so."""

    route = Route(f"/api/v1/things/{ID}", Brief, {"PUT": Permission.BUILD})
    (item,) = document((route,))["paths"].items()
    assert item[0] == "/api/v1/things/{thing}"
    assert item[1]["put"]["summary"] == "Make it so."
    assert {"200", "400", "403", "404", "406"} <= item[1]["put"]["responses"].keys()


def test_what_is_validated_is_what_is_said() -> None:
    """Bounds and patterns of the types are in the document."""
    schemas = document(PROGRAMS["node"])["components"]["schemas"]
    assert schemas["Order"]["additionalProperties"] is False
    assert schemas["Guidance"]["properties"]["priority"]["maximum"] == 1000
    view: dict[str, Any] = schemas["BuildView"]
    assert view["properties"]["status"] == {"$ref": "#/components/schemas/State"}
    assert "status" in view["required"]


@pytest.mark.gen_test
async def test_it_is_served(http_client, base_url) -> None:
    """With a page to read it by that names nothing outside."""
    api = Api(http_client, base_url)
    served = json.loads((await api.call("GET", "/api/v1/openapi.json")).body)
    assert served == json.loads(json.dumps(document(node_parts.ROUTES)))
    page = await api.call("GET", "/api/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    for name, policy in (("docs", page), ("docs/reader.js", None), ("docs/reader.css", None)):
        answer = policy or await api.call("GET", f"/api/{name}")
        assert answer.code == 200
        assert b"//" not in re.sub(rb"(?m)^// .*$", b"", answer.body)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

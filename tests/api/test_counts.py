"""How many commands and labels a build may have is the operator's to say."""

import json

import pytest

from tests.api.test_image_creator import BUILD_ISO, Api, refusal

pytestmark = pytest.mark.gen_test

LIMITS = pytest.mark.parametrize("node_settings", [{"command_limit": 2, "label_limit": 1}])
COMMAND = {"name": "n", "command": "c", "arguments": []}


@pytest.fixture
def api(http_client, base_url) -> Api:
    """The family at its server."""
    return Api(http_client, base_url)


@LIMITS
async def test_a_build_with_too_many_is_refused(api, node, node_settings) -> None:
    """By either API, with the field; one that has just as many is taken."""
    three = {**BUILD_ISO, "commands": [COMMAND] * 3}
    labels = {"recipe": {}, "guidance": {"labels": {"a": "", "b": ""}}}
    many = {"recipe": {"commands": [{"name": "n", "text": "c"}] * 3}}
    for path, body, field in (
        ("/create", three, "commands"),
        ("/test/create", three, "commands"),
        ("/api/v1/builds", many, "recipe.commands"),
        ("/api/v1/builds", labels, "guidance.labels"),
        ("/api/v1/builds/preview", many, "recipe.commands"),
    ):
        refusal(await api.call("POST", path, body=json.dumps(body)), 400, field)
    assert not list(node.ledger.board)
    two = json.dumps({**BUILD_ISO, "commands": [COMMAND] * 2})
    taken = await api.call("POST", "/create", body=two)
    assert taken.code == 303

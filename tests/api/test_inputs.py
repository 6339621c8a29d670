"""Names of inputs and of a Dockerfile's context, and what else of a base must be right: a 400 that
names the field, and nothing is started.
"""

import json
from typing import Any

import pytest

from tests.api.test_image_creator import Api, refusal

pytestmark = pytest.mark.gen_test

HOSTILE = [
    "../x",
    "a/../b",
    "a/..",
    "..",
    ".",
    "./a",
    "/etc/x",
    "//x",
    "a//b",
    "a/",
    "",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\x7fb",
    "a\u0085b",
    "a\u2028b",
    "a\\b",
    "..\\x",
    "x" * 300,
    "\u00fc" * 101,
    "/".join("a" * 17),
    "/".join(["x" * 190] * 6),
]
SOUND = ["a", ".hidden", "...", "a b", "a/b/c", "-rf", "*", "$(reboot)", "ünï", "x" * 200, "'\""]


@pytest.fixture
def node_settings() -> dict[str, Any]:
    """Contexts belong to Dockerfiles."""
    return {"dockerfiles": True}


@pytest.fixture
def api(http_client, base_url) -> Api:
    """The API at its server."""
    return Api(http_client, base_url)


def file(name: str) -> dict[str, Any]:
    """An input of this name."""
    return {"name": name, "content": {"kind": "text", "text": "x"}}


def inputs(*names: str) -> dict[str, Any]:
    """A recipe with these inputs."""
    return {"inputs": [file(name) for name in names]}


def context(*names: str) -> dict[str, Any]:
    """A recipe with these in a Dockerfile's context."""
    dockerfile = {"kind": "text", "text": "FROM a"}
    files = [file(name) for name in names]
    return {"base": {"kind": "dockerfile", "dockerfile": dockerfile, "context": files}}


async def create(api: Api, recipe: dict[str, Any], **more: Any) -> Any:
    """The answer to a build of that."""
    body = json.dumps({"recipe": {"output": {"kind": "none"}, **recipe}, **more})
    return await api.call("POST", "/api/v1/builds", body=body)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
async def test_hostile_names(api, node, name) -> None:
    """Whatever is no relative path below the folder, or no name everywhere."""
    refusal(await create(api, inputs(name)), 400, "recipe.inputs[0].name")
    refusal(await create(api, context(name)), 400, "recipe.base.context[0].name")
    assert not tuple(node.ledger.board)


@pytest.mark.parametrize("name", SOUND, ids=ascii)
async def test_sound_names(api, name) -> None:
    """Odd, but names of files."""
    assert (await create(api, inputs(name))).code == 201
    assert (await create(api, context(name))).code == 201


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (["a", "a"], "recipe.inputs[1].name"),
        (["a", "a/b"], "recipe.inputs"),
        (["a/b/c", "a/b"], "recipe.inputs"),
    ],
)
async def test_names_that_clash(api, node, names, field) -> None:
    """Twice the same, or a file that another one has as its folder."""
    refusal(await create(api, inputs(*names)), 400, field)
    assert not tuple(node.ledger.board)


async def test_a_disk_and_an_input_of_one_name(api, node) -> None:
    """Both would be the same file under /inbox/."""
    disk = {"kind": "url", "url": "http://localhost/x"}
    for name in ("base.qcow2", "base.qcow2/x"):
        base = {"kind": "download", "content": disk, "format": "qcow2"}
        refusal(await create(api, {"base": base, **inputs(name)}), 400, "recipe.base.name")
    assert not tuple(node.ledger.board)


async def test_credentials_without_a_colon(api, node) -> None:
    """A registry is told a user and a password; the value is not in the answer."""
    base = {"kind": "image", "name": "a", "credentials": "login"}
    answer = await create(api, {"base": base}, secrets={"login": "swordfish"})
    error = refusal(answer, 400, "secrets.login")
    assert "USER:PASSWORD" in error["expected"]
    assert b"swordfish" not in answer.body
    assert not tuple(node.ledger.board)

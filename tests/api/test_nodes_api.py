"""Nodes over HTTP: what an admin sees and says of them, and that it outlives a restart."""

import json
from typing import Any

import pytest

from protocol.errors import Unavailable
from protocol.model.build import State
from protocol.model.messages import Registration
from protocol.model.request import Needs
from protocol.ports.service import LOCAL
from tests.api.test_image_creator import Api, refusal
from tests.programs import a_node, a_scheduler, ended, ready, request, roster_until, until

pytestmark = pytest.mark.gen_test(timeout=60)


async def said(api: Api, method: str, path: str, body: Any = None) -> None:
    """Do it; it is done."""
    options = {} if body is None else {"body": json.dumps(body)}
    answer = await api.call(method, f"/api/v1/nodes/{path}", **options)
    assert answer.code == 204, answer.body


async def seen(api: Api, node: str) -> dict[str, Any]:
    """The node's line of the roster."""
    answer = await api.call("GET", f"/api/v1/nodes/{node}")
    assert answer.code == 200, answer.body
    return json.loads(answer.body)


async def test_one_node_by_id_or_name(http_client, tmp_path):
    """What is no node is a 404 that says so."""
    async with (
        a_node(tmp_path, name="anvil") as node,
        a_scheduler(tmp_path, node.url) as scheduler,
    ):
        await ready(scheduler)
        api = Api(http_client, scheduler.url)
        assert (await seen(api, "anvil"))["id"] == (await seen(api, node.id))["id"] == node.id
        refusal(await api.call("GET", "/api/v1/nodes/nobody"), 404, "node")
        for path in ("nobody", "nobody/labels", "nobody/priority"):
            refusal(await api.call("DELETE", f"/api/v1/nodes/{path}"), 404, "node")


async def test_a_node_is_drained(http_client, tmp_path):
    """Cordoned while something runs there, drained when nothing does; then it builds again."""
    async with (
        a_node(tmp_path, name="anvil") as node,
        a_scheduler(tmp_path, node.url) as scheduler,
    ):
        await ready(scheduler)
        api = Api(http_client, scheduler.url)
        build = await scheduler.service.submit(LOCAL, request("hang"))
        await until(scheduler.service, build.id, lambda one: one.state is State.RUNNING)
        await said(api, "POST", "anvil/drain", {"reason": "new disk"})
        line = await seen(api, "anvil")
        assert (line["state"], line["reason"], line["builds"]) == (
            "cordoned",
            "new disk",
            [build.id],
        )
        await scheduler.service.cancel(LOCAL, build.id)
        await roster_until(scheduler, lambda roster: roster.nodes[0].state == "drained")
        waiting = await scheduler.service.submit(LOCAL, request("print a"))
        explained = await scheduler.service.explain(LOCAL, waiting.id)
        assert "it is drained: new disk" in explained.reason
        await said(api, "POST", "anvil/uncordon")
        await ended(scheduler.service, waiting.id)


async def test_an_admins_word_on_priority_and_labels(http_client, tmp_path):
    """It counts in placement, is on the roster beside the node's own, and outlives a restart of
    the scheduler; taken back, the node's own counts.
    """
    async with (
        a_node(tmp_path, name="anvil", priority=50, labels=("ssd",)) as node,
        a_node(tmp_path, name="forge", priority=40) as other,
    ):
        async with a_scheduler(tmp_path, node.url, other.url, home="pool") as scheduler:
            await ready(scheduler, 2)
            api = Api(http_client, scheduler.url)
            await said(api, "PUT", "anvil/priority", {"cap": 30})
            build = await scheduler.service.submit(LOCAL, request("print a"))
            ran = await ended(scheduler.service, build.id)
            assert ran.node is not None
            assert ran.node.name == "forge"
            assert (await seen(api, "anvil"))["priority"] == 30
            await said(api, "PUT", "anvil/priority", {"priority": -5})
            await said(api, "PUT", "anvil/labels", {"labels": ["gpu"]})
            needs = Needs(labels=("gpu", "ssd"))
            build = await scheduler.service.submit(LOCAL, request("print a", needs=needs))
            ran = await ended(scheduler.service, build.id)
            assert ran.node is not None
            assert ran.node.name == "anvil"
        async with a_scheduler(tmp_path, node.url, other.url, home="pool") as scheduler:
            await ready(scheduler, 2)
            api = Api(http_client, scheduler.url)
            line = await seen(api, "anvil")
            assert (line["priority"], line["stated_priority"]) == (-5, 50)
            assert (line["labels"], line["stated_labels"]) == (["gpu", "ssd"], ["ssd"])
            await said(api, "PUT", "anvil/labels", {"labels": ["gpu"], "replace": True})
            assert (await seen(api, "anvil"))["labels"] == ["gpu"]
            await said(api, "DELETE", "anvil/labels")
            await said(api, "DELETE", "anvil/priority")
            line = await seen(api, "anvil")
            assert (line["priority"], line["labels"]) == (50, ["ssd"])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("priority", {}, "priority"),
        ("priority", {"priority": 1, "cap": 1}, "priority"),
        ("priority", {"priority": "high"}, "priority"),
        ("priority", {"rank": 1}, "rank"),
        ("labels", {"labels": ["a b"]}, "labels[0]"),
    ],
)
async def test_a_bad_word(http_client, tmp_path, path, body, field):
    """Names the field."""
    async with a_node(tmp_path, name="anvil") as node, a_scheduler(tmp_path, node.url) as pool:
        await ready(pool)
        api = Api(http_client, pool.url)
        answer = await api.call("PUT", f"/api/v1/nodes/anvil/{path}", body=json.dumps(body))
        refusal(answer, 400, field)


async def test_a_node_is_forgotten(http_client, tmp_path, monkeypatch):
    """Not while it answers, not while builds are on it; then for good, whatever was said of it."""
    async with a_node(tmp_path, name="anvil") as node, a_scheduler(tmp_path) as scheduler:
        api, listing = Api(http_client, scheduler.url), scheduler.parts.listing
        listing.register(Registration(node.url))
        await ready(scheduler)
        await said(api, "POST", "anvil/cordon")
        answer = await api.call("DELETE", "/api/v1/nodes/anvil")
        assert "answers" in refusal(answer, 409, "node")["detail"]
        await said(api, "POST", "anvil/uncordon")
        build = await scheduler.service.submit(LOCAL, request("hang"))
        await until(scheduler.service, build.id, lambda one: one.node is not None)

        async def silence(*arguments, **options):
            raise Unavailable("it is quiet here")

        with monkeypatch.context() as quiet:
            quiet.setattr(node.service, "status", silence)
            await roster_until(
                scheduler, lambda roster: roster.nodes[0].state in ("silent", "lost")
            )
            answer = await api.call("DELETE", "/api/v1/nodes/anvil")
            assert "builds" in refusal(answer, 409, "node")["detail"]
            await scheduler.service.cancel(LOCAL, build.id)
            await said(api, "DELETE", "anvil")
            assert listing.roster().nodes == ()
            assert scheduler.parts.store.nodes() == ()

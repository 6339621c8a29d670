"""Builds that wait at a node begin as soon as they can."""

from pathlib import Path

import pytest

from node.engines.errors import EngineDown
from protocol.model.build import Result, State
from protocol.ports.service import LOCAL
from tests.programs import a_node, ended, request

pytestmark = pytest.mark.gen_test(timeout=30)


async def test_an_engine_that_answers_again(tmp_path: Path, monkeypatch) -> None:
    """What came to the node while it did not begins, though no other build ends."""

    def down() -> None:
        raise EngineDown("it is away")

    async with a_node(tmp_path, engine_check=0.02) as node:
        with monkeypatch.context() as away:
            away.setattr(node.parts.engine, "info", down)
            await node.parts.state.look()
            accepted = await node.service.submit(LOCAL, request("print x"))
            assert accepted.state is State.WAITING
            why = await node.service.explain(LOCAL, accepted.id)
            assert why.reason == "its engine does not answer: it is away"
        assert (await ended(node.service, accepted.id, 10)).result is Result.SUCCEEDED

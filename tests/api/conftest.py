"""The API on a real server: a node with the dummy engine, and a scheduler over it, each behind
pytest-tornado's server.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.web import Application

from node.config import NodeSettings
from node.parts import Node
from protocol.program import identity


@pytest.fixture
def node_settings() -> dict[str, Any]:
    """What a test sets on the node."""
    return {}


@pytest.fixture
def node(io_loop, tmp_path: Path, node_settings: dict[str, Any]) -> Iterator[Node]:
    """A node on the dummy engine, its engine looked at."""
    chosen = {
        "engine": "dummy",
        "name": "tester",
        "disk_reserve": 0,
        "drain_limit": 0,
        "mdns": False,
        "fetch_networks": ("loopback",),
        **node_settings,
    }
    with identity.open_data(tmp_path):
        node = Node(NodeSettings(**chosen), tmp_path, identity.load(tmp_path))
        io_loop.run_sync(node.start)
        yield node
        io_loop.run_sync(node.leave)
        io_loop.run_sync(node.close)


@pytest.fixture
def app(node: Node) -> Application:
    """What pytest-tornado serves at `base_url`."""
    return node.web()

"""Container engines. To add one: a module beside these, a factory here and a line in ENGINES."""

from collections.abc import Callable, Mapping
from pathlib import Path

from node.engines.base import Engine
from node.engines.dummy import DummyEngine


def _docker(folder: Path) -> Engine:
    """It has folders of its own."""
    from node.engines.docker import DockerEngine  # imported when asked for: its SDK is slow to load

    return DockerEngine()


ENGINES: Mapping[str, Callable[[Path], Engine]] = {"docker": _docker, "dummy": DummyEngine}
"""Name -> what makes the engine, given the node's data folder."""

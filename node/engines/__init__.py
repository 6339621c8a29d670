"""Container engines. To add one: a module beside these, a factory here and a line in ENGINES."""

from collections.abc import Callable

from node.engines.base import Engine
from node.engines.dummy import DummyEngine


def _docker() -> Engine:
    from node.engines.docker import DockerEngine  # imported when asked for: its SDK is slow to load

    return DockerEngine()


ENGINES: dict[str, Callable[[], Engine]] = {"docker": _docker, "dummy": DummyEngine}
"""Name -> what makes the engine."""

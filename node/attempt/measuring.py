"""What a build uses, measured while it runs: sampled from its container, as the figures go with it.

Counters only grow, and the memory's peak is the largest that was seen: a sample that is missing
costs what was used since the one before.
"""

import contextlib

from msgspec.structs import replace

from node.engines.base import Engine
from node.engines.errors import EngineError
from node.files.workfolder import WorkFolder
from protocol.model.build import Usage


class Meter:
    """Of one attempt. One thread samples."""

    def __init__(self, engine: Engine, container: str, before: Usage | None) -> None:
        """`before`: what an earlier life of the node measured."""
        self._engine = engine
        self._container = container
        self._finished = False
        self.usage = before or Usage()

    def sample(self) -> Usage:
        """Look once: what was used so far. An engine that does not answer is looked at next
        time.
        """
        with contextlib.suppress(EngineError):
            self.usage = larger(self.usage, self._engine.measure(self._container))
        return self.usage

    def finish(self, folder: WorkFolder) -> None:
        """Look at its files, once, when the container has ended and nothing was taken out of its
        folder yet. Blocks.
        """
        if self._finished:
            return
        self._finished = True
        with contextlib.suppress(EngineError, OSError):
            size = self._engine.usage(self._container) + folder.usage()
            self.usage = replace(self.usage, disk=size)


def larger(one: Usage, other: Usage) -> Usage:
    """The larger of each figure."""
    return Usage(
        cpu=max(one.cpu, other.cpu),
        memory=max(one.memory, other.memory),
        read=max(one.read, other.read),
        written=max(one.written, other.written),
        disk=max(one.disk, other.disk),
    )

"""An engine without containers: it plays the text of the commands as a script of its own.

What the script's lines do is told in `node/engines/player.py`. Every image is here but those named
`missing/...` (there is none) and `unreachable/...` (its registry does not answer).
"""

import os
import platform
import threading
from collections.abc import Callable, Mapping

from node.engines.base import (
    Container,
    ContainerRefused,
    ContainerSpec,
    EngineDown,
    EngineInfo,
    Exit,
    ImageUnknown,
    RegistryUnreachable,
)
from node.engines.player import Player
from node.plan import IN, OUT, PLAN, decode_plan


class DummyEngine:
    """See `Engine`. Costs nothing until a build runs; each running build is one thread."""

    runs_programs = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plays: dict[str, Player] = {}
        self._images: set[str] = set()
        self._closed = False

    def info(self) -> EngineInfo:
        """This machine."""
        self._require_open()
        return EngineInfo(
            name="dummy",
            version="1",
            architecture=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            root="",
        )

    def images(self) -> frozenset[str]:
        """The images that were asked for before."""
        self._require_open()
        with self._lock:
            return frozenset(self._images)

    def obtain(self, image: str, progress: Callable[[str], None]) -> None:
        """Every image is here but those whose names say otherwise."""
        self._require_open()
        _require_image(image)
        with self._lock:
            self._images.add(image)

    def start(self, spec: ContainerSpec) -> str:
        """Begin to play the plan found in the mounts."""
        self._require_open()
        _require_image(spec.image)
        folders = {mount.target: mount.source for mount in spec.mounts}
        try:
            plan = decode_plan((folders[IN] / PLAN).read_bytes())
            play = Player(spec, plan, folders[OUT])
        except (KeyError, OSError, ValueError) as error:
            raise ContainerRefused(f"no plan to play: {error}") from error
        with self._lock:
            if any(spec.name == other.spec.name for other in self._plays.values()):
                raise ContainerRefused(f"there is a container {spec.name} already")
            self._plays[play.id] = play
        play.start()
        return play.id

    def wait(self, container: str) -> Exit:
        """How it ended."""
        play = self._find(container)
        if play is None:
            raise EngineDown(f"the container {container[:12]} is gone")
        play.ended.wait()
        self._require_open()
        return play.exit

    def kill(self, container: str) -> None:
        """End it at once."""
        self._require_open()
        if play := self._find(container):
            play.killed.set()

    def remove(self, container: str) -> None:
        """End and forget it; nothing is written any more when this returns."""
        self._require_open()
        with self._lock:
            play = self._plays.pop(container, None)
        if play:
            play.killed.set()
            play.ended.wait()

    def containers(self, labels: Mapping[str, str]) -> tuple[Container, ...]:
        """Those of this engine that carry the labels."""
        self._require_open()
        with self._lock:
            plays = tuple(self._plays.values())
        return tuple(
            Container(play.id, play.spec.name, play.spec.labels, not play.ended.is_set())
            for play in plays
            if labels.items() <= play.spec.labels.items()
        )

    def close(self) -> None:
        """What it plays lives in this process, and ends with it."""
        with self._lock:
            self._closed = True
            plays = tuple(self._plays.values())
        for play in plays:
            play.killed.set()

    def _find(self, container: str) -> Player | None:
        self._require_open()
        with self._lock:
            return self._plays.get(container)

    def _require_open(self) -> None:
        if self._closed:
            raise EngineDown("the engine was closed")


def _require_image(image: str) -> None:
    if image.startswith("missing/"):
        raise ImageUnknown(f"there is no image {image}")
    if image.startswith("unreachable/"):
        raise RegistryUnreachable(f"the registry of {image} does not answer")

"""An engine without containers: it plays the text of the commands as a script of its own.

What the script's lines do is told in `node/engines/player.py`. Every image is here but those named
`missing/...` (there is none) and `unreachable/...` (its registry does not answer). A container of
an image named `broken/...` does not start: the engine fails, which is nobody's fault but its own.

What happened is told in a journal, for tests that kill nodes and count afterwards: `JOURNAL` in the
node's data folder, a JSON object in each line, appended in one write each::

    {"at": seconds since 1970, "event": EVENT, "build": ID, "attempt": NUMBER, "container": ID,
     "code": NUMBER or null}

`start`, before anything is played; `end`, the play came to its end by itself, with this code;
`kill`, it was ended before, also by the node's orderly end; `remove`. Build and attempt are the
labels, "" and 0 where there are none.
"""

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from node.core.plan import IN, PLAN, decode_plan
from node.engines.base import Container, ContainerSpec, ContainerState, EngineInfo, Exit
from node.engines.dummy_images import DummyImages, require_image
from node.engines.errors import ContainerRefused, EngineDown, EngineError, NameTaken
from node.engines.player import Player
from protocol.model.build import Usage

JOURNAL = "engine.journal"
_LABEL = "imagepool"  # prefix of the labels that the journal tells


class DummyEngine(DummyImages):
    """See `Engine`. Costs nothing until a build runs; each running build is one thread.

    `folder`: where its journal lies; None: it keeps none.
    """

    runs_programs = False

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._journal = folder / JOURNAL if folder else None
        self._plays: dict[str, Player] = {}

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

    def start(self, spec: ContainerSpec) -> str:
        """Begin to play the plan found in the mounts."""
        self._require_open()
        require_image(spec.image)
        if spec.image.startswith("broken/"):
            raise EngineError(f"the engine cannot start {spec.image}")
        folders = {mount.target: mount.source for mount in spec.mounts}
        try:
            plan = decode_plan((folders[IN] / PLAN).read_bytes())
            play = Player(spec, plan, folders, self._tell)
        except (KeyError, OSError, ValueError) as error:
            raise ContainerRefused(f"no plan to play: {error}") from error
        with self._lock:
            self._require_open()
            if any(spec.name == other.spec.name for other in self._plays.values()):
                raise NameTaken(f"there is a container {spec.name} already")
            self._tell("start", play)
            play.start()
            self._plays[play.id] = play
        return play.id

    def wait(self, container: str) -> Exit:
        """How it ended."""
        play = self._find(container)
        if play is None:
            raise EngineDown(f"the container {container[:12]} is gone")
        play.ended.wait()
        self._require_open()
        if play.fault:
            raise EngineDown(play.fault)
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
            self._tell("remove", play)

    def usage(self, container: str) -> int:
        """All that it has written: it has no layer but its work folder."""
        play = self._find(container)
        return play.usage() if play else 0

    def measure(self, container: str) -> Usage:
        """It uses neither processors nor memory to speak of."""
        play = self._find(container)
        return Usage(written=play.usage()) if play else Usage()

    def provide_network(self, name: str, interface: str, labels: Mapping[str, str]) -> None:
        """What it plays has no network."""
        self._require_open()

    def remove_network(self, name: str) -> bool:
        """There is none."""
        self._require_open()
        return True

    def forget_image(self, image: str) -> None:
        """As if it had never been asked for."""
        self._require_open()
        with self._lock:
            if all(play.spec.image != image for play in self._plays.values()):
                self._images.discard(image)

    def containers(self, labels: Mapping[str, str]) -> tuple[Container, ...]:
        """Those of this engine that carry the labels."""
        self._require_open()
        with self._lock:
            plays = tuple(self._plays.values())
        return tuple(
            Container(play.id, play.spec.name, play.spec.labels, _state(play))
            for play in plays
            if labels.items() <= play.spec.labels.items()
        )

    def close(self) -> None:
        """What it plays lives in this process, and has ended when this returns."""
        with self._lock:
            self._closed = True
            plays = tuple(self._plays.values())
        for play in plays:
            play.killed.set()
        for play in plays:
            play.ended.wait()

    def _tell(self, event: str, play: Player, code: int | None = None) -> None:
        """A line of the journal. Raises OSError."""
        if self._journal is None:
            return
        labels = play.spec.labels
        line = {
            "at": time.time(),
            "event": event,
            "build": labels.get(f"{_LABEL}.build", ""),
            "attempt": int(labels.get(f"{_LABEL}.attempt", 0)),
            "container": play.id,
            "code": code,
        }
        file = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)

    def _find(self, container: str) -> Player | None:
        self._require_open()
        with self._lock:
            return self._plays.get(container)


def _state(play: Player) -> ContainerState:
    return ContainerState.ENDED if play.ended.is_set() else ContainerState.RUNNING

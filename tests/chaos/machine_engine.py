"""A node's machine: what outlives the node's process. Its disk, its engine with containers that can
end in several ways, and what the real builder finds of a build's work folder.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from msgspec.structs import replace

from node.core.plan import Plan, Verdict
from node.engines.base import Container, ContainerSpec, ContainerState, EngineInfo, Exit
from node.engines.errors import EngineDown, NameTaken
from node.records import Kept
from protocol.model.build import Artifact, Usage
from tests.chaos.machine_loop import LIFE


class End(Enum):
    """How a container ends."""

    WELL = "well"
    USER = "user"  # the build made no image
    OWN = "own"  # the build ended its own container
    ENGINE = "engine"  # the engine lost it
    KILL = "kill"  # the node ended it
    REBOOT = "reboot"  # with its machine


class Box:
    """A container."""

    def __init__(self, key: str, spec: ContainerSpec) -> None:
        self.id = key
        self.spec = spec
        self.build = spec.labels["imagepool.build"]
        self.attempt = int(spec.labels["imagepool.attempt"])
        self.state = ContainerState.RUNNING
        self.exit: Exit | None = None
        self.waiting: list[asyncio.Future[Exit]] = []


class Machine:
    """Disk and engine of one node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boots = 1
        self.records: dict[str, Kept] = {}
        self.folders: dict[str, Verdict | None] = {}  # work folder -> its exit record
        self.artifacts: dict[str, Artifact] = {}  # by build
        self.boxes: dict[str, Box] = {}
        self.journal: list[tuple[str, str, int]] = []  # (what, build, attempt)
        self.on_start: Callable[[Box], None] = lambda box: None

    def running(self) -> list[Box]:
        """The containers that run."""
        return [box for box in self.boxes.values() if box.state is ContainerState.RUNNING]

    def end(self, box: Box, how: End) -> None:
        """The container's main process ends."""
        folder = f"{box.build}.{box.attempt}"
        if how in (End.WELL, End.USER) and folder in self.folders:
            self.folders[folder] = Verdict(how is End.WELL, "image")
        self.journal.append((how.value, box.build, box.attempt))
        if how is End.ENGINE:
            self.gone(box)
        else:
            self._ended(box, 0 if how in (End.WELL, End.USER) else 137)

    def reboot(self, *, gone: bool) -> None:
        """What ran has ended; its containers are there, or `gone`."""
        self.boots += 1
        for box in self.running():
            self.end(box, End.REBOOT)
            if gone:
                self.gone(box)

    def _ended(self, box: Box, code: int) -> None:
        box.state = ContainerState.ENDED
        box.exit = Exit(code, "", out_of_memory=False, watched=True)
        for waiting in box.waiting:
            if not waiting.done():
                waiting.set_result(box.exit)
        box.waiting.clear()

    def gone(self, box: Box) -> None:
        """It is removed."""
        self.boxes.pop(box.id, None)
        for waiting in box.waiting:
            if not waiting.done():
                waiting.set_exception(EngineDown("the container is gone"))
                waiting.exception()
        box.waiting.clear()


class MachineEngine:
    """`Engine`, as one life of the node speaks to it."""

    runs_programs = False

    def __init__(self, folder: "Place") -> None:
        self._machine = folder.machine
        self._life = LIFE.get()

    def info(self) -> EngineInfo:
        """See Engine."""
        return EngineInfo("test", "1", "x86_64", 1, 1 << 30, "")

    def images(self) -> frozenset[str]:
        """See Engine."""
        return frozenset()

    def obtain(self, image: str, progress: object, pull: str, login: object) -> None:
        """See Engine."""

    def measure(self, container: str) -> Usage:
        """See Engine."""
        return Usage()

    def start(self, spec: ContainerSpec) -> str:
        """See Engine."""
        machine = self._machine
        if spec.name in machine.boxes:
            raise NameTaken(f"{spec.name} is there already")
        box = machine.boxes[spec.name] = Box(spec.name, spec)
        machine.on_start(box)
        machine.journal.append(("start", box.build, box.attempt))
        return box.id

    def wait(self, container: str) -> Any:
        """See Engine; the answer is a future of it."""
        box = self._machine.boxes.get(container)
        if box is None:
            raise EngineDown("the container is gone")
        if box.exit is not None:
            return replace(box.exit, watched=False)
        future: asyncio.Future[Exit] = self._life.loop.create_future()
        box.waiting.append(future)
        return future

    def kill(self, container: str) -> None:
        """See Engine."""
        box = self._machine.boxes.get(container)
        if box is not None and box.state is ContainerState.RUNNING:
            self._machine.end(box, End.KILL)

    def remove(self, container: str) -> None:
        """See Engine."""
        if box := self._machine.boxes.get(container):
            self._machine.gone(box)

    def usage(self, container: str) -> int:
        """See Engine."""
        return 0

    def containers(self, labels: Mapping[str, str]) -> tuple[Container, ...]:
        """See Engine."""
        boxes = self._machine.boxes.values()
        return tuple(Container(b.id, b.spec.name, b.spec.labels, b.state) for b in boxes)


class Place:
    """A path of the machine, as far as programs look at it."""

    def __init__(self, machine: Machine, name: str = "") -> None:
        self.machine = machine
        self.name = name

    def __truediv__(self, name: str) -> "Place":
        return Place(self.machine, name)

    def __fspath__(self) -> str:
        return "/"

    def mkdir(self, *, exist_ok: bool, mode: int) -> None:
        """It is there."""

    def is_dir(self) -> bool:
        """Whether there is such a folder."""
        return self.name in self.machine.folders

    def exists(self) -> bool:
        """There are no logs."""
        return False

    def unlink(self, *, missing_ok: bool) -> None:
        """There are no logs."""

    def iterdir(self) -> Iterator["Place"]:
        """The work folders."""
        return (Place(self.machine, name) for name in tuple(self.machine.folders))


class Folder:
    """`WorkFolder` on a machine."""

    entrypoint = ()
    mounts = ()

    def __init__(self, place: Place, plan: Plan) -> None:
        self._place = place
        self.plan = plan

    @classmethod
    def create(cls, root: Place, plan: Plan, busybox: Any) -> "Folder":
        """See WorkFolder."""
        root.machine.folders[root.name] = None
        return cls(root, plan)

    @classmethod
    def open(cls, root: Place) -> "Folder":
        """See WorkFolder."""
        if not root.is_dir():
            raise FileNotFoundError(root.name)
        return cls(root, Plan((), keep_going=False, log_limit=1, find_iso=True))

    def steps(self) -> tuple[()]:
        """Nothing is known of single commands."""
        return ()

    def usage(self) -> int:
        """See WorkFolder."""
        return 0

    def verdict(self) -> Verdict | None:
        """See WorkFolder."""
        return self._place.machine.folders.get(self._place.name)

    def take_result(self, target: str) -> int:
        """See WorkFolder."""
        build, _, attempt = self._place.name.partition(".")
        machine = self._place.machine
        machine.artifacts[build] = Artifact("image", 1, artifact_mark(machine.name, build, attempt))
        return 1

    def remove(self) -> None:
        """See WorkFolder."""
        remove_folder(self._place)


def artifact_mark(node: str, build: str, attempt: object) -> str:
    """Says which attempt made an artifact, in place of its digest."""
    return f"{node}/{build}.{attempt}"


def remove_folder(place: Place) -> None:
    """See node/files/workfolder.py."""
    place.machine.folders.pop(place.name, None)


class Artifacts:
    """`ArtifactStore` on a machine."""

    def __init__(self, folder: Place) -> None:
        self._machine = folder.machine

    def take(self, build_id: str, place: Callable[[str], int], stop: object) -> Artifact:
        """See ArtifactStore."""
        place("")
        return self._machine.artifacts[build_id]

    def remove(self, build_id: str) -> None:
        """See ArtifactStore."""
        if not LIFE.get().dead:
            self._machine.artifacts.pop(build_id, None)


class Log:
    """`ServedLog` that keeps nothing."""

    size = 0

    def __init__(self, path: Place, attempt: int) -> None:
        self.attempt = attempt

    def hide(self, mask: object) -> None:
        """See ServedLog."""

    def say(self, line: str) -> None:
        """See ServedLog."""

    say_last = say

    def end(self) -> None:
        """See ServedLog."""


class Tail:
    """`Tail` of nothing."""

    def __init__(
        self, folder: Folder, log: Log, loop: asyncio.AbstractEventLoop, *others: object
    ) -> None:
        self.failed: asyncio.Future[str] = loop.create_future()

    async def finish(self) -> None:
        """See Tail."""

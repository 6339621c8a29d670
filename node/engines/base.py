"""What a node asks of a container engine: a small, blocking interface, called from threads.

An engine starts one container for one attempt of a build, waits for its end, kills and removes it,
and says which images it has, obtains and makes them. It knows nothing of builds: what runs inside
the container, and how its progress is read, is decided in `node/files/workfolder.py`. Its errors
are in `node/engines/errors.py`. To add an engine: one module beside this one, one line in
`node/engines/__init__.py`, and the contract suites in `tests/node/test_engine_contract.py` and
`test_image_contract.py` run against it.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Protocol

import msgspec

from node.engines.errors import Interrupt
from protocol.model.build import Usage


class Mount(msgspec.Struct, frozen=True):
    """A folder of the host shown in the container."""

    source: Path
    target: str
    read_only: bool


class Limits(msgspec.Struct, frozen=True):
    """What a container may use at most."""

    memory: int  # bytes
    cpus: float  # processors, may be a fraction; 0: all there are
    processes: int  # processes and threads together
    network: bool  # False: loopback only
    bridge: str = ""  # name of the engine's network, where there is one; empty: its default
    swap: int = 0  # bytes, beside memory
    file_size: int = 0  # bytes of any one file that it writes; 0: as the engine is set
    open_files: int = 0  # of any one process; 0: as the engine is set


class Login(msgspec.Struct, frozen=True):
    """Who asks a registry for an image."""

    user: str
    password: str


class ContextFile(msgspec.Struct, frozen=True):
    """A file that a Dockerfile can copy."""

    name: str  # a relative path, / between parts
    source: Path
    executable: bool = False


class ImageSpec(msgspec.Struct, frozen=True):
    """An image to be built of a Dockerfile."""

    image: str  # what it is to be called
    dockerfile: Path | None  # None: it is in the archive
    archive: Path | None  # a tar file that is the whole context
    path: str  # of the Dockerfile in the archive
    context: tuple[ContextFile, ...]
    labels: Mapping[str, str]
    limits: Limits  # of each step, as far as the engine can
    made: float  # seconds since the epoch: time of change of the context's files
    no_cache: bool = False
    pull: bool = False  # ask the registry for newer images of FROM


class ContainerSpec(msgspec.Struct, frozen=True):
    """Everything an engine needs to start a container."""

    name: str
    image: str
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]  # added to the image's own
    labels: Mapping[str, str]
    mounts: tuple[Mount, ...]
    limits: Limits
    capabilities: tuple[str, ...]  # all others are dropped; without the prefix CAP_


class ContainerState(Enum):
    """How far a container is."""

    CREATED = "created"  # it was never started, or starting it failed: nothing ever ran in it
    RUNNING = "running"
    ENDED = "ended"


class Container(msgspec.Struct, frozen=True):
    """A container that exists."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: ContainerState


class Exit(msgspec.Struct, frozen=True):
    """How a container's main process ended, in the engine's words."""

    code: int  # 128 + n where a signal n ended it
    error: str  # what the engine says of it; empty where it says nothing
    out_of_memory: (
        bool  # a note for the reader, never a verdict: also true of containers that ended well
    )
    watched: bool  # False: the engine may have ended it, and nobody can say that it did not


class EngineInfo(msgspec.Struct, frozen=True):
    """What the engine says of itself and its machine."""

    name: str  # "docker", "dummy"
    version: str
    architecture: str  # as `uname -m` names it: x86_64, aarch64
    cpus: int
    memory: int  # bytes
    root: str  # the folder where layers lie; empty where there is none
    user_namespaces: bool = False  # root in a container is nobody outside
    storage: str = ""  # what keeps its layers, such as overlay2
    cgroups: str = ""  # version of the control groups that hold containers to their limits


class Engine(Protocol):
    """A container engine. Every method blocks, and may be called from several threads at once."""

    runs_programs: bool  # False: it plays the plan itself, and needs no busybox to do so

    def info(self) -> EngineInfo:
        """Ask the engine who it is. Raises EngineDown."""

    def images(self) -> frozenset[str]:
        """Names (`repository:tag`) of the images that need no pull. Raises EngineDown."""

    def obtain(
        self,
        image: str,
        progress: Callable[[str], None],
        pull: str = "missing",
        login: Login | None = None,
    ) -> None:
        """Make sure that the image is here, pulling it if need be, or `always`, or `never`;
        `progress` is called with lines for the log.

        Raises ImageUnknown, PullFailed, EngineDown; EngineError where there is no room for it.
        """

    def name_image(self, image: str, name: str) -> None:
        """Call an image by another name too. Raises ImageUnknown, EngineDown."""

    def build(self, spec: ImageSpec, output: Callable[[bytes], None], interrupt: Interrupt) -> None:
        """Make an image of a Dockerfile; `output` is given what its steps print. Nothing else stays
        behind, whatever becomes of it.

        Raises ImageFailed, ImageUnknown, PullFailed, Interrupted, EngineDown.
        """

    def import_rootfs(
        self, file: Path, image: str, labels: Mapping[str, str], interrupt: Interrupt
    ) -> None:
        """Make an image of a file system in a tar file, which may be compressed. Raises
        ImageFailed, Interrupted, EngineDown, OSError.
        """

    def load(self, file: Path, image: str, interrupt: Interrupt) -> None:
        """Make the image that `save` wrote to a file, which may be hostile: no name but this one
        changes. Raises ImageFailed, Interrupted, EngineDown, OSError.
        """

    def is_saved(self, file: Path) -> bool:
        """Whether a file looks as if `save` had written it; a file system otherwise. Raises
        OSError.
        """

    def save(self, image: str, file: Path, interrupt: Interrupt) -> None:
        """Write the image to a file, for `load` of any engine of this kind. Raises ImageUnknown,
        Interrupted, EngineDown, OSError.
        """

    def export(
        self, image: str, file: Path, labels: Mapping[str, str], interrupt: Interrupt
    ) -> None:
        """Write the image's file system to a file, a tar archive. `labels`: of a container that may
        be needed for that, and is never started. Raises as `save` does.
        """

    def start(self, spec: ContainerSpec) -> str:
        """Create and start a container; answer its id.

        May be repeated after a crash: NameTaken says that it was created then, and nothing about
        how far it came, which `containers` does. Raises ContainerRefused, ImageUnknown, EngineDown.
        """

    def wait(self, container: str) -> Exit:
        """Wait, without limit, until the container has ended.

        The engine may be away for a while meanwhile. If it then says that the container has ended,
        this end was not `watched`; if the container still runs, what comes is watched again. An end
        that an engine brings about itself, when it is stopped, is not watched either, nor one that
        this engine, in its present life, has not seen. Raises EngineDown, also where it is gone.
        """

    def kill(self, container: str) -> None:
        """End the container at once; nothing happens where it has ended or is gone. Raises
        EngineDown.
        """

    def provide_network(self, name: str, interface: str, labels: Mapping[str, str]) -> None:
        """Make sure that there is a network of this name and with these labels, a bridge that the
        host knows as `interface` (15 characters at most), by which containers reach what the host
        does, and not each other. Raises EngineDown, EngineError where there is another of this
        name.
        """

    def remove_network(self, name: str) -> bool:
        """Remove the network; answer whether it is gone: not where a container uses it. Raises
        EngineDown.
        """

    def remove(self, container: str) -> None:
        """Remove the container, its layer and volumes, running or not; nothing happens where it
        is gone.
        """

    def usage(self, container: str) -> int:
        """Bytes that the container has written into its own layer, mounts excepted; 0 where it is
        gone. Raises EngineDown.
        """

    def measure(self, container: str) -> Usage:
        """What the container has used so far, but its disk; nothing where it has ended or is gone.
        Quick enough to be asked several times a second. Raises EngineDown.
        """

    def forget_image(self, image: str) -> None:
        """Remove the image of this name; nothing happens where it is gone, or a container uses it.
        Raises EngineDown.
        """

    def containers(self, labels: Mapping[str, str]) -> tuple[Container, ...]:
        """All containers that carry all of these labels. Raises EngineDown."""

    def close(self) -> None:
        """Let go of connections; blocked calls of other threads end with EngineDown."""

"""The Docker Engine (API 1.41 or later), through its SDK's low-level client: its containers. Images
are in `docker_images.py`.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from node.engines.base import Container, ContainerSpec, ContainerState, EngineInfo, Exit
from node.engines.docker_cgroups import Cgroups, usage_of
from node.engines.docker_config import container_config
from node.engines.docker_connection import Connection, Unanswered
from node.engines.docker_images import DockerImages
from node.engines.docker_network import provided, removed
from node.engines.errors import ContainerRefused, EngineDown, EngineError, NameTaken
from protocol.model.build import Usage

_PAUSE = 0.25  # seconds between attempts to reach it again
_COUNT = 30.0  # seconds that it may take to count what is in a container's volumes
_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
}
"""The engine's words; all others are of containers that have ended."""


class DockerEngine(DockerImages):
    """See `Engine`. `patience`: seconds that it may be away while somebody waits for a container,
    which runs on meanwhile where the engine has live-restore.
    """

    runs_programs = True

    def __init__(self, patience: float = 60.0) -> None:
        super().__init__(Connection())
        self._patience = patience
        self._cgroups = Cgroups()

    def info(self) -> EngineInfo:
        """What `docker info` says."""
        with self._connection.asking() as client:
            said = client.info()
        return EngineInfo(
            name="docker",
            version=said["ServerVersion"],
            architecture=said["Architecture"],
            cpus=said["NCPU"],
            memory=said["MemTotal"],
            root=said["DockerRootDir"],
            user_namespaces=has_user_namespaces(said.get("SecurityOptions") or ()),
            storage=said.get("Driver") or "",
            cgroups=said.get("CgroupVersion") or "",
        )

    def start(self, spec: ContainerSpec) -> str:
        """Create and start; what was created and would not start is removed."""
        with self._connection.asking(ContainerRefused, conflict=NameTaken) as client:
            config = container_config(spec, self._connection.cpus)
            made: str = client.create_container_from_config(config, spec.name)["Id"]
        try:
            with self._connection.asking(ContainerRefused) as client:
                client.start(made)
        except EngineError:
            self.remove(made)
            raise
        return made

    def wait(self, container: str) -> Exit:
        """An engine that is being stopped still answers, and says that a container ended which it
        stopped itself; hence the question whether it had asked it to.
        """
        watched = True
        while True:
            try:
                watched = watched or self._state(container)["Running"]
                state = self._ended_state(container)
                with self._connection.asking() as client:
                    watched = watched and client.ended_unasked(container)
            except Unanswered:
                watched = False
                self._await_engine()
            else:
                return Exit(state["ExitCode"], state["Error"], state["OOMKilled"], watched)

    def kill(self, container: str) -> None:
        """SIGKILL."""
        with self._connection.asking(absent=(404, 409)) as client:
            client.kill(container)

    def remove(self, container: str) -> None:
        """Also its anonymous volumes. 409: somebody else is removing it."""
        with self._connection.asking(absent=(404, 409)) as client:
            client.remove_container(container, force=True, v=True)
        self._cgroups.forget(container)

    def usage(self, container: str) -> int:
        """The engine counts, which takes it a while where there are many files. Volumes that the
        image asks for are counted where they can be seen: by root, beside the engine.
        """
        with self._connection.asking(absent=(404,)) as client:
            layer, volumes = client.written(container)
            return layer + (_on_disk(volumes) if volumes else 0)
        return 0

    def measure(self, container: str) -> Usage:
        """From the files of its control group where they can be seen here, else from the engine."""
        found = self._cgroups.of(container, lambda: self._state(container)["Pid"])
        if found is not None:
            return found.usage()
        with self._connection.asking(absent=(404, 409)) as client:
            return usage_of(client.stats_once(container))
        return Usage()

    def provide_network(self, name: str, interface: str, labels: Mapping[str, str]) -> None:
        """A bridge."""
        provided(self._connection, name, interface, labels)

    def remove_network(self, name: str) -> bool:
        """403: a container uses it."""
        return removed(self._connection, name)

    def containers(self, labels: Mapping[str, str]) -> tuple[Container, ...]:
        """Running or not."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        with self._connection.asking() as client:
            found = client.containers(all=True, filters={"label": wanted})
        return tuple(
            Container(
                id=one["Id"],
                name=one["Names"][0].lstrip("/") if one["Names"] else "",
                labels=one["Labels"] or {},
                state=_STATES.get(one["State"], ContainerState.ENDED),
            )
            for one in found
        )

    def close(self) -> None:
        """Cut every connection."""
        self._connection.close()

    def _ended_state(self, container: str) -> Any:
        """The state of a container that has ended; blocks until then."""
        while True:
            with self._connection.asking() as client:
                client.wait_streamed(container)
            state = self._state(container)
            if not state["Running"]:
                return state
            self._connection.closed.wait(_PAUSE)  # an engine that shuts down answers too early

    def _state(self, container: str) -> Any:
        with self._connection.asking() as client:
            return client.inspect_container(container)["State"]

    def _await_engine(self) -> None:
        """Return when it answers again. Raises EngineDown after a time."""
        deadline = time.monotonic() + self._patience
        while True:
            self._connection.closed.wait(_PAUSE)
            try:
                with self._connection.asking() as client:
                    client.ping()
                return
            except EngineDown:
                if self._connection.closed.is_set() or time.monotonic() > deadline:
                    raise


def _on_disk(folders: Sequence[Path]) -> int:
    """Bytes below them, whatever lies there and changes meanwhile; 0 where it cannot be seen."""
    asked = ["du", "--summarize", "--one-file-system", "--block-size=1", "--", *map(str, folders)]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_COUNT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(int(line.split()[0]) for line in done.stdout.splitlines())


def has_user_namespaces(options: Sequence[str]) -> bool:
    """Of what `docker info` says of security: remapped by the daemon, or the daemon itself is."""
    names = {option.partition(",")[0] for option in options}
    return bool(names & {"name=userns", "name=rootless"})

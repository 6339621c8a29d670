"""The Docker Engine (API 1.41 or later), through its SDK's low-level client.

The client is made at the first call, not before: a node starts with its engine down. Foreign errors
are translated in one place, `_asking`, but those of a pull, which needs its own reading.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env, parse_repository_tag

from node.engines.base import (
    Container,
    ContainerRefused,
    ContainerSpec,
    ContainerState,
    EngineDown,
    EngineError,
    EngineInfo,
    Exit,
    ImageUnknown,
    NameTaken,
)
from node.engines.docker_client import ANSWER, Client
from node.engines.docker_config import container_config
from node.engines.docker_pull import news, pull_error

_API = (1, 41)
_PAUSE = 0.25  # seconds between attempts to reach it again
_CONNECTIONS = 64  # kept for reuse
_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
}
"""The engine's words; all others are of containers that have ended."""


class _Unanswered(EngineDown):
    """The connection failed, not the request."""


class DockerEngine:
    """See `Engine`. `patience`: seconds that it may be away while somebody waits for a container,
    which runs on meanwhile where the engine has live-restore.
    """

    runs_programs = True

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._made: Client | None = None
        self._cpus = 0  # of the engine's machine
        self._closed = threading.Event()

    def info(self) -> EngineInfo:
        """What `docker info` says."""
        with self._asking() as client:
            said = client.info()
        return EngineInfo(
            name="docker",
            version=said["ServerVersion"],
            architecture=said["Architecture"],
            cpus=said["NCPU"],
            memory=said["MemTotal"],
            root=said["DockerRootDir"],
        )

    def images(self) -> frozenset[str]:
        """All tags; images without one cannot be named by anybody."""
        with self._asking() as client:
            images = client.images()
        tags = (tag for image in images for tag in image["RepoTags"] or ())
        return frozenset(tag for tag in tags if not tag.startswith("<none>"))

    def obtain(self, image: str, progress: Callable[[str], None]) -> None:
        """Pull it where it is not here."""
        try:
            with self._asking(ImageUnknown) as client:
                client.inspect_image(image)
        except ImageUnknown as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            self._pull(image, progress)

    def start(self, spec: ContainerSpec) -> str:
        """Create and start; what was created and would not start is removed."""
        with self._asking(ContainerRefused, conflict=NameTaken) as client:
            config = container_config(spec, self._cpus)
            made: str = client.create_container_from_config(config, spec.name)["Id"]
        try:
            with self._asking(ContainerRefused) as client:
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
                with self._asking() as client:
                    watched = watched and client.ended_unasked(container)
            except _Unanswered:
                watched = False
                self._await_engine()
            else:
                return Exit(state["ExitCode"], state["Error"], state["OOMKilled"], watched)

    def kill(self, container: str) -> None:
        """SIGKILL."""
        with self._asking(absent=(404, 409)) as client:
            client.kill(container)

    def remove(self, container: str) -> None:
        """Also its anonymous volumes. 409: somebody else is removing it."""
        with self._asking(absent=(404, 409)) as client:
            client.remove_container(container, force=True, v=True)

    def usage(self, container: str) -> int:
        """The engine counts, which takes it a while where there are many files."""
        with self._asking(absent=(404,)) as client:
            return client.layer_size(container)
        return 0

    def forget_image(self, image: str) -> None:
        """Where it has other names, only this one goes. 409: a container uses it."""
        with self._asking(absent=(404, 409)) as client:
            client.remove_image(image)

    def containers(self, labels: Mapping[str, str]) -> tuple[Container, ...]:
        """Running or not."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        with self._asking() as client:
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
        self._closed.set()
        with self._lock:
            client, self._made = self._made, None
        if client:
            client.cut()

    def _pull(self, image: str, progress: Callable[[str], None]) -> None:
        repository, tag = parse_repository_tag(image)
        seen: dict[str, str] = {}
        problem = ""
        try:
            with self._asking() as client:
                for event in client.pull(repository, tag or "latest", stream=True, decode=True):
                    problem = problem or event.get("error", "")
                    if line := news(event, seen):
                        progress(line)
        except _Unanswered:
            raise
        except EngineError as error:
            raise pull_error(image, str(error)) from error
        if problem:
            raise pull_error(image, problem)

    def _ended_state(self, container: str) -> Any:
        """The state of a container that has ended; blocks until then."""
        while True:
            with self._asking() as client:
                client.wait_streamed(container)
            state = self._state(container)
            if not state["Running"]:
                return state
            self._closed.wait(_PAUSE)  # an engine that shuts down answers too early

    def _state(self, container: str) -> Any:
        with self._asking() as client:
            return client.inspect_container(container)["State"]

    def _await_engine(self) -> None:
        """Return when it answers again. Raises EngineDown after a time."""
        deadline = time.monotonic() + self._patience
        while True:
            self._closed.wait(_PAUSE)
            try:
                with self._asking() as client:
                    client.ping()
                return
            except EngineDown:
                if self._closed.is_set() or time.monotonic() > deadline:
                    raise

    @contextmanager
    def _asking(
        self,
        refusal: type[EngineError] = EngineDown,
        *,
        conflict: type[EngineError] | None = None,
        absent: tuple[int, ...] = (),
    ) -> Iterator["Client"]:
        """The client, its errors translated: `refusal` is what an answer of 4xx or 5xx becomes,
        `conflict` what 409 does. Answers in `absent` are none: there was nothing to be done.
        """
        try:
            yield self._client()
        except APIError as error:
            if error.status_code in absent:
                return
            if isinstance(error, ImageNotFound):
                refusal = ImageUnknown
            elif conflict and error.status_code == 409:
                refusal = conflict
            raise refusal(_words(error)) from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _Unanswered(f"the Docker Engine does not answer: {error}") from error

    def _client(self) -> "Client":
        with self._lock:
            if self._closed.is_set():
                raise EngineDown("the engine was closed")
            if self._made is None:
                client = Client(
                    version="auto",
                    timeout=ANSWER,
                    max_pool_size=_CONNECTIONS,
                    **kwargs_from_env(),
                )
                version = client.api_version
                if tuple(map(int, version.split("."))) < _API:
                    raise EngineDown(f"the Docker Engine speaks API {version}, not 1.41")
                self._cpus = client.info()["NCPU"]
                self._made = client
            return self._made


def _words(error: APIError) -> str:
    return str(error.explanation or error)

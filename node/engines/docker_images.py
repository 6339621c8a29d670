"""The Docker Engine's images: pulled, built of a Dockerfile by its classic builder, imported,
loaded, saved.

A builder's steps run in containers of the engine's own making: with its default capabilities, and
of the limits those for memory, processors, files and network.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.errors import NotFound
from docker.utils import parse_repository_tag

from node.engines.base import ImageSpec, Limits, Login
from node.engines.docker_archive import context, dockerfile_name, is_image, nameless, pieces
from node.engines.docker_building import Building
from node.engines.docker_client import end
from node.engines.docker_config import ulimits
from node.engines.docker_connection import Connection, Unanswered
from node.engines.docker_pull import news, pull_error
from node.engines.errors import EngineDown, EngineError, ImageFailed, ImageUnknown, Interrupt

_PIECE = 1 << 20
_PAUSE = 0.1  # seconds between looks whether a container is gone
_CUT_OFF = 5.0  # seconds that the builder may take to end a step that was cut off
_ZSTD = b"\x28\xb5\x2f\xfd"  # how such a file begins
_PERIOD = 100_000  # microseconds in which a step may use its part of the processors


class DockerImages:
    """The half of `Engine` that is about images."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def images(self) -> frozenset[str]:
        """All tags; images without one cannot be named by anybody."""
        with self._connection.asking() as client:
            images = client.images()
        tags = (tag for image in images for tag in image["RepoTags"] or ())
        return frozenset(tag for tag in tags if not tag.startswith("<none>"))

    def obtain(
        self,
        image: str,
        progress: Callable[[str], None],
        pull: str = "missing",
        login: Login | None = None,
    ) -> None:
        """Pull it where it is not here."""
        if pull == "always":
            self._pull(image, progress, login)
            return
        try:
            with self._connection.asking(ImageUnknown) as client:
                client.inspect_image(image)
        except ImageUnknown as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            if pull == "never":
                words = f"there is no image {image} here, and it is not to be pulled"
                raise ImageUnknown(words) from error
            self._pull(image, progress, login)

    def forget_image(self, image: str) -> None:
        """Where it has other names, only this one goes. 409: a container uses it."""
        with self._connection.asking(absent=(404, 409)) as client:
            client.remove_image(image)

    def name_image(self, image: str, name: str) -> None:
        """As `docker tag` does."""
        repository, tag = parse_repository_tag(name)
        with self._connection.asking() as client:
            client.tag(image, repository, tag)

    def build(self, spec: ImageSpec, output: Callable[[bytes], None], interrupt: Interrupt) -> None:
        """Where the connection ends, so does the builder, and removes its containers."""
        begun = self._now()
        building = Building(output)
        try:
            body = context(spec, interrupt)
            for event in self._told("/build", body, _build_query(spec), interrupt):
                building.heard(event)
            building.check()
        except Unanswered:
            interrupt.check()
            raise
        finally:
            self._tidy(building.made, begun)

    def import_rootfs(
        self, file: Path, image: str, labels: Mapping[str, str], interrupt: Interrupt
    ) -> None:
        """Plain, or compressed by gzip, bzip2 or xz; by zstd with Docker 23 and later."""
        repository, tag = parse_repository_tag(image)
        changes = [f"LABEL {json.dumps(name)}={json.dumps(text)}" for name, text in labels.items()]
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        try:
            for event in self._told("/images/create", pieces(file, interrupt), query, interrupt):
                if words := event.get("error"):
                    raise ImageFailed(words)
        except ImageFailed as error:
            words = f"the file system cannot be imported: {error}"
            raise ImageFailed(words + _hint(file)) from error

    def load(self, file: Path, image: str, interrupt: Interrupt) -> None:
        """The names that are in the file are taken out of it before the engine sees it."""
        loaded = ""
        for event in self._told("/images/load", nameless(file, interrupt), {}, interrupt):
            if words := event.get("error"):
                raise ImageFailed(f"the image cannot be loaded: {words}")
            said = str(event.get("stream", ""))
            if said.startswith("Loaded image ID: "):
                loaded = said.removeprefix("Loaded image ID: ").strip()
        if not loaded:
            raise ImageFailed("the file holds no image that the engine can load")
        self.name_image(loaded, image)

    def is_saved(self, file: Path) -> bool:
        """By its manifest."""
        return is_image(file)

    def save(self, image: str, file: Path, interrupt: Interrupt) -> None:
        """As `docker save` does."""
        self._written(f"/images/{image}/get", file, interrupt)

    def export(
        self, image: str, file: Path, labels: Mapping[str, str], interrupt: Interrupt
    ) -> None:
        """As `docker export` does with a container of it."""
        config = {"Image": image, "Entrypoint": ["/"], "Cmd": [], "Labels": dict(labels)}
        with self._connection.asking() as client:
            container = client.create_container_from_config(config)["Id"]
        try:
            self._written(f"/containers/{container}/export", file, interrupt)
        finally:
            with self._connection.asking(absent=(404, 409)) as client:
                client.remove_container(container, force=True, v=True)

    def _pull(self, image: str, progress: Callable[[str], None], login: Login | None) -> None:
        repository, tag = parse_repository_tag(image)
        auth = {"username": login.user, "password": login.password} if login else None
        seen: dict[str, str] = {}
        problem = ""
        try:
            with self._connection.asking() as client:
                for event in client.pull(
                    repository, tag or "latest", stream=True, decode=True, auth_config=auth
                ):
                    problem = problem or event.get("error", "")
                    if line := news(event, seen):
                        progress(line)
        except Unanswered:
            raise
        except EngineError as error:
            raise pull_error(image, str(error)) from error
        if problem:
            raise pull_error(image, problem)

    def _told(
        self, path: str, body: Iterator[bytes], query: dict[str, Any], interrupt: Interrupt
    ) -> Iterator[dict[str, Any]]:
        """What the engine says while it works on what it is given. Its refusal is ImageFailed."""
        with (
            self._connection.asking(ImageFailed) as client,
            client.sent(path, body, query) as response,
            interrupt.ending(lambda: end(response)),
        ):
            yield from client.events(response)
        interrupt.check()

    def _written(self, path: str, file: Path, interrupt: Interrupt) -> None:
        """What the engine gives, in a file."""
        with (
            self._connection.asking() as client,
            client.given(path) as response,
            interrupt.ending(lambda: end(response)),
            file.open("wb") as target,  # unbuffered it would write short on a full disk, unsaid
        ):
            for piece in response.iter_content(_PIECE):
                interrupt.check()
                target.write(piece)

    def _now(self) -> str:
        with self._connection.asking() as client:
            now: str = client.info()["SystemTime"]
        return now

    def _tidy(self, made: list[str], begun: str) -> None:
        """Remove what steps made and no image was made of; the engine refuses to remove others'
        foundations. Only what has no name and is younger than the build: a step can print
        anything.
        """
        for image in reversed(made):
            try:
                self._remove_younger(image, begun)
            except EngineDown:
                return

    def _remove_younger(self, image: str, begun: str) -> None:
        """The builder may still be removing the container of the step that was cut off."""
        deadline = time.monotonic() + _CUT_OFF
        while True:
            try:
                with self._connection.asking(ImageFailed, absent=(404,)) as client:
                    seen = client.inspect_image(image)
                    if not seen["RepoTags"] and _moment(seen["Created"]) >= _moment(begun):
                        client.remove_image(image, noprune=True)
                return
            except ImageUnknown:
                return
            except ImageFailed as error:
                if "container" not in str(error) or time.monotonic() > deadline:
                    return
            self._connection.closed.wait(_PAUSE)


def _moment(stamp: str) -> str:
    """A time of the engine's, to the second, such that times compare as texts."""
    return stamp[:19]


def _hint(file: Path) -> str:
    """Why the engine may not know what this is."""
    with file.open("rb") as source:
        packed = source.read(len(_ZSTD)) == _ZSTD
    return "; it is compressed by zstd, which Docker knows from version 23 on" if packed else ""


def _build_query(spec: ImageSpec) -> dict[str, Any]:
    return {
        "t": spec.image,
        "dockerfile": dockerfile_name(spec),
        "rm": "1",
        "forcerm": "1",
        "nocache": "1" if spec.no_cache else "0",
        "pull": "1" if spec.pull else "0",
        "labels": json.dumps(dict(spec.labels)),
        **_limits(spec.limits),
    }


def _limits(limits: Limits) -> dict[str, str]:
    query = {
        "memory": str(limits.memory),
        "memswap": str(limits.memory + limits.swap),
        "ulimits": json.dumps(ulimits(limits)),
    }
    if limits.cpus:
        query |= {"cpuperiod": str(_PERIOD), "cpuquota": str(int(limits.cpus * _PERIOD))}
    if not limits.network:
        query["networkmode"] = "none"
    elif limits.bridge:
        query["networkmode"] = limits.bridge
    return query

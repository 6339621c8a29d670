"""Real programs that die and begin again: a node on the real engine, a scheduler over it; a build
whose every byte is known; and what is to be left of a build on disk and engine.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import docker
import msgspec
from msgspec.structs import replace

from node.records import Kept
from protocol.model.build import Build, Result, Stage
from protocol.model.recipe import IsoOutput
from protocol.model.request import BuildRequest, Needs
from protocol.ports.service import LOCAL
from protocol.program.identity import load
from protocol.remote.client import HttpService
from tests.chaos.killed_at import Moment
from tests.programs import log_of, request
from tests.programs import until as build_until
from tests.system.engine import until
from tests.system.processes import Process

_KILLER = Path(__file__).with_name("killed_at.py")
_READY = r"ready http://(\S+):(\d+)"

QUICK = {"hold": 0.5, "patience": 1, "retry": 0.1, "silent_after": 2, "lost_after": 60}
"""A scheduler's times, in seconds: it soon sees that a node is back, and waits for it."""


class Program:
    """An `imagepool node` or `imagepool scheduler` that may end at any time, and begins again with
    the same data at the same address. The settings are its own.
    """

    def __init__(self, kind: str, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self._kind = kind
        self._settings = {"mdns": False, "name": folder.name, **settings}
        self._listen = "127.0.0.1:0"
        self.environment: dict[str, str] = {}
        self.wrapper: tuple[str, ...] = ()  # what its arguments are given to
        self.process: Process | None = None

    def begin(self, moment: Moment | None = None) -> None:
        """Start it; with a moment it is going to end there."""
        assert self.process is None, "it runs already"
        killer = [str(_KILLER), msgspec.json.encode(moment).decode()] if moment else []
        program = [sys.executable, *(killer or ["-m", "imagepool"]), self._kind]
        flags = ["--data", str(self.folder), "--listen", self._listen]
        self.process = Process(
            self.folder.name,
            [*self.wrapper, *program, *flags],
            environment={**_variables(self._settings), **self.environment},
        )
        match, _ = self.process.line(_READY)
        self._listen = f"{match[1]}:{match[2]}"

    @property
    def url(self) -> str:
        """Where it serves, also when it begins again."""
        return f"http://{self._listen}"

    def reaches(self, moment: Moment) -> None:
        """Wait until it ends itself at its moment, or stops there."""
        assert self.process is not None
        self.process.line(f"reached {re.escape(moment.step)}")
        if moment.signal == signal.SIGKILL:
            self.kill()

    def wake(self) -> None:
        """It goes on from where it stopped itself."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def says(self) -> dict[str, Any]:
        """What it states of itself, as anybody may ask."""
        with urlopen(f"{self.url}/api/v1/status", timeout=10) as answer:
            said: dict[str, Any] = json.load(answer)
        return said

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.process is not None:
            process, self.process = self.process, None
            process.kill()
            said = process.words()
            assert not re.search(r"Traceback| ERROR ", said), said

    def end(self) -> None:
        """SIGTERM; it must end well."""
        if self.process is not None:
            process, self.process = self.process, None
            process.end()


class DockerNode(Program):
    """A node on the engine at `socket`; the shared one where there is none."""

    def __init__(self, folder: Path, socket: str = "", **settings: Any) -> None:
        chosen = {"base_image": "imagepool-test/none", "disk_reserve": 0, "drain_limit": 0}
        super().__init__("node", folder, **{**chosen, **settings})
        self.environment = {"DOCKER_HOST": socket} if socket else {}
        self._socket = socket or None

    @contextlib.contextmanager
    def engine(self) -> Iterator[docker.APIClient]:
        """The engine itself."""
        with contextlib.closing(docker.APIClient(base_url=self._socket)) as client:
            yield client

    def out(self, build_id: str, attempt: int = 1) -> Path:
        """The folder that the build's commands see as OUT."""
        return self.folder / "work" / f"{build_id}.{attempt}" / "out"

    def containers(self, build_id: str) -> list[dict[str, Any]]:
        """The build's containers, whatever their state."""
        with self.engine() as client:
            wanted = {"label": f"imagepool.build={build_id}"}
            found: list[dict[str, Any]] = client.containers(all=True, filters=wanted)
            return found

    def container(self, build_id: str) -> str:
        """Id of the build's container, as soon as it runs."""
        until(lambda: [c for c in self.containers(build_id) if c["State"] == "running"])
        return str(self.containers(build_id)[0]["Id"])

    def container_ends(self, container: str) -> None:
        """Wait until it has."""
        with self.engine() as client:
            client.wait(container)

    def volumes(self, container: str) -> list[str]:
        """Names of the anonymous volumes of a container."""
        with self.engine() as client:
            mounts = client.inspect_container(container)["Mounts"]
        return [mount["Name"] for mount in mounts if mount["Type"] == "volume"]

    def open_gate(self, build_id: str, attempt: int = 1) -> None:
        """Let the build go on, as soon as it waits there."""
        out = self.out(build_id, attempt)
        until((out / "begun").exists)
        (out / "go").touch()

    def all_acknowledged(self) -> bool:
        """Whether its record says so of every end of a build that a scheduler placed on it."""
        file = f"file:{self.folder / 'node.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(file, uri=True)) as database:
            rows = database.execute("SELECT value FROM builds").fetchall()
        records = [msgspec.msgpack.decode(value, type=Kept).record for (value,) in rows]
        return all(
            record.acknowledged
            for record in records
            if record.forward is not None and record.build.stopped is not None
        )

    def clear(self) -> None:
        """Kill it, and leave nothing of its builds on a shared engine, whatever failed."""
        try:
            self.kill()
        finally:
            if self._socket is None:
                self._remove_containers()

    def _remove_containers(self) -> None:
        wanted = {"label": f"imagepool.node={load(self.folder).id}"}
        with self.engine() as client:
            for one in client.containers(all=True, filters=wanted):
                client.remove_container(one["Id"], force=True, v=True)

    def nothing_left(self, build: Build, volumes: Iterable[str] = ()) -> None:
        """Wait until nothing of the build is on the engine or in the work folder; where it did not
        succeed there is no artifact either.
        """
        until(lambda: not self.containers(build.id))
        until(lambda: not list((self.folder / "work").glob(f"{build.id}.*")))
        if not build.artifacts:
            until(lambda: not (self.folder / "artifacts" / build.id).exists())
        with self.engine() as client:
            there = {volume["Name"] for volume in client.volumes()["Volumes"] or ()}
        assert not there & set(volumes)


def a_scheduler(folder: Path, *nodes: Program, **settings: Any) -> Program:
    """A scheduler over these nodes, which must have begun once."""
    urls = tuple(node.url for node in nodes)
    return Program("scheduler", folder, **{**QUICK, "nodes": urls, **settings})


def bound_over(file: Path, target: str) -> tuple[str, ...]:
    """A wrapper for a program that sees this file in that one's place, and nobody else does."""
    line = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", line, str(file), target)


# A build whose every byte is known

OUT = "/toiso/.imagepool/out"
"""The one folder that a build's commands share with its node."""
SCRIPT = "#!/bin/sh\nPATH=/bin\n"
GATE = f"touch {OUT}/begun; until [ -e {OUT}/go ]; do busybox usleep 10000; done\n"
"""A command waits here for `DockerNode.open_gate`."""

_COMMANDS = (
    f"{SCRIPT}busybox seq 1 3000\n",
    f"{SCRIPT}busybox seq 3001 6000\n{GATE}busybox seq 6001 9000\n",
    f"{SCRIPT}busybox seq 9001 12000\nyes 'an image' | head -c 3000000 >/toiso/image.iso\n",
)
_IMAGE = (b"an image\n" * 400_000)[:3_000_000]
_LOG = b"".join(b"%d\n" % number for number in range(1, 12_001))
_LOG += b"[imagepool: the image is /toiso/image.iso, 3000000 bytes]\n"


def whole_build(image: str) -> BuildRequest:
    """Output of 12,000 lines and an image of 3 MB; in its middle there is a gate."""
    return build_of(image, *_COMMANDS, output=IsoOutput())


def build_of(image: str, *texts: str, **how: Any) -> BuildRequest:
    """A build of these scripts, in this image, without network."""
    asked = request(*texts, **{"needs": Needs(network=False), **how})
    return replace(asked, recipe=replace(asked.recipe, base=replace(asked.recipe.base, name=image)))


async def runs(client: HttpService, node: DockerNode, build_id: str) -> None:
    """Wait until a `whole_build` waits at its gate, and its node has said that it runs: before, it
    has no answer of the engine yet.
    """
    await build_until(client, build_id, lambda build: build.stage is Stage.RUNNING)
    until((node.out(build_id) / "begun").exists)


async def is_whole(client: HttpService, build: Build, attempt: int = 1) -> None:
    """A `whole_build` succeeded, with its whole log and the right image."""
    assert (build.result, build.attempt) == (Result.SUCCEEDED, attempt), build
    assert await log_of(client, build.id) == _LOG
    starts = [command.start for command in build.commands]
    assert starts[:3] == [0, _LOG.index(b"3001\n"), _LOG.index(b"9001\n")]
    (artifact,) = build.artifacts
    assert artifact.sha256 == hashlib.sha256(_IMAGE).hexdigest()
    opened = await client.open_artifact(LOCAL, build.id, artifact.name)
    assert b"".join([piece async for piece in opened.stream]) == _IMAGE


def _variables(settings: Mapping[str, Any]) -> dict[str, str]:
    return {f"IMAGEPOOL_{name.upper()}": _text(value) for name, value in settings.items()}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)

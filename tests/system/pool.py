"""A pool on a test's LAN: schedulers and nodes as real processes, and what a scheduler says of
them over HTTP.

Every program listens on all addresses of its host, at the port it has by default, unless a test
says otherwise.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protocol.model.build import Build, State
from protocol.model.messages import Explanation, Roster, RosterEntry
from protocol.ports.service import LOCAL
from protocol.remote.client import HttpService
from tests.programs import request, until
from tests.system.lan import Host

Sight = Callable[[Roster], bool]

OPEN = {"anonymous": "user", "unproven": "anywhere"}
"""Settings under which nobody on the LAN need say who they are."""


class Program:
    """A running `imagepool node` or `imagepool scheduler`."""

    _client: HttpService | None = None

    def __init__(
        self,
        host: Host,
        kind: str,
        folder: Path,
        flags: Mapping[str, Any],
        settings: Mapping[str, Any] = {},
        clock: float = 0,
    ) -> None:
        """`settings`: those without a flag, for its environment; lists with commas. `clock`:
        seconds that its machine's clock is ahead.
        """
        self.host = host
        self.folder = folder
        self._environment = {
            f"IMAGEPOOL_{name.upper()}": str(value) for name, value in {**OPEN, **settings}.items()
        } | (ahead(clock) if clock else {})
        self._arguments = [sys.executable, "-m", "imagepool", kind, "--data", str(folder)]
        for flag, value in flags.items():
            name = f"--{flag.replace('_', '-')}"
            self._arguments += [name] if value is True else [name, str(value)]
        self.begin()

    def begin(self) -> None:
        """Start it, the first time or again, and wait for its ready line."""
        self.process = self.host.start(*self._arguments, environment=self._environment)
        match, self.ready_at = self.process.line(r"ready http://(\S+):(\d+)")
        self.listens_on, self.port = match[1], int(match[2])

    @property
    def url(self) -> str:
        """Where others on the LAN reach it: where it says, or on all addresses of its host."""
        own = {"127.0.0.1": self.host.address, "[::1]": self.host.address6}
        return url_of(own.get(self.listens_on, self.listens_on), self.port)

    def says(self, path: str = "/api/v1/status") -> dict[str, Any]:
        """Its answer as curl on its own host gets it."""
        answer: dict[str, Any] = json.loads(self.host.output("curl", "-sSg", self.url + path))
        return answer

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.says()["id"])

    @property
    def client(self) -> HttpService:
        """The build service over HTTP; for coroutines that run on the program's host."""
        if self._client is None:
            self._client = HttpService(self.url)
            self.host.at_close(self._client.close)
        return self._client

    def build_until(
        self, build_id: str, sight: Callable[[Build], bool], seconds: float = 20.0
    ) -> Build:
        """The build as soon as it looks like that to this program."""
        try:
            return self.host.run(until(self.client, build_id, sight, seconds), seconds + 10)
        except TimeoutError:
            build = self.host.run(self.client.get(LOCAL, build_id))
            raise AssertionError(f"after {seconds:g} s the build is {build}") from None


class Scheduler(Program):
    """A running scheduler, asked from its own host."""

    def roster_until(self, sight: Sight, seconds: float = 20.0) -> tuple[Roster, float]:
        """The roster as soon as it looks like that, and when it did (monotonic seconds)."""
        return self.host.run(self._roster_until(sight, seconds), seconds + 10)

    async def _roster_until(self, sight: Sight, seconds: float) -> tuple[Roster, float]:
        deadline = time.monotonic() + seconds
        token = None
        while True:
            # Held until anything changes; silence comes by time alone, so never for long.
            token = (await self.client.status(LOCAL, after=token, wait=0.1)).token
            roster = await self.client.roster()
            now = time.monotonic()
            if sight(roster):
                return roster, now
            assert now < deadline, f"after {seconds:g} s the roster is {roster}"

    def roster_never(self, sight: Sight, seconds: float) -> None:
        """Watch the roster for so long: it must not look like that."""
        until = time.monotonic() + seconds
        roster, at = self.roster_until(lambda r: sight(r) or time.monotonic() >= until, seconds + 5)
        assert at >= until, f"the roster is {roster}"

    def has_ready(self, *nodes: Program, seconds: float = 20.0) -> float:
        """Wait until these are ready; when they were."""
        ids = [node.id for node in nodes]
        _, at = self.roster_until(
            lambda r: all(state_of(r, key) == "ready" for key in ids), seconds
        )
        return at

    def submit(self, *texts: str, **wanted: Any) -> str:
        """A build of these commands, with what else is wanted of it (`request`); its id."""
        return self.host.run(self.client.submit(LOCAL, request(*texts, **wanted))).id

    def state_of(self, build_id: str) -> State:
        """Its state now."""
        return self.host.run(self.client.get(LOCAL, build_id)).state

    def cancel(self, build_id: str) -> None:
        """End a build."""
        self.host.run(self.client.cancel(LOCAL, build_id))

    def explain(self, build_id: str) -> Explanation:
        """Why it waits."""
        return self.host.run(self.client.explain(LOCAL, build_id))


class PoolOnLan:
    """Starts programs, each with a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def scheduler(
        self, host: Host, *, settings: Mapping[str, Any] = {}, clock: float = 0, **flags: Any
    ) -> Scheduler:
        """A scheduler that serves."""
        listen = "0.0.0.0:8080" if host.address else "[::]:8080"
        chosen = {"listen": listen, "name": host.name, **flags}
        folder = self._folder / f"scheduler-{host.name}"
        return Scheduler(host, "scheduler", folder, chosen, settings, clock)

    def node(
        self, host: Host, *, settings: Mapping[str, Any] = {}, clock: float = 0, **flags: Any
    ) -> Program:
        """A node that serves; on SIGTERM it gives up what runs, unless settings say else."""
        listen = "0.0.0.0:8090" if host.address else "[::]:8090"
        chosen = {"engine": "dummy", "listen": listen, "name": host.name, **flags}
        folder = self._folder / f"node-{host.name}"
        return Program(host, "node", folder, chosen, {"drain_limit": 0, **settings}, clock)


def ahead(seconds: float) -> dict[str, str]:
    """What the environment of a program has on a machine whose clock is so many seconds ahead of
    the others'. Time that passes is not touched.
    """
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")  # of libfaketime
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def url_of(address: str, port: int) -> str:
    """http://ADDRESS:PORT, IPv6 in brackets."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def entry_of(roster: Roster, node: str) -> RosterEntry | None:
    """The roster's line for the program of this id."""
    return next((entry for entry in roster.nodes if entry.id == node), None)


def state_of(roster: Roster, node: str) -> str:
    """Its state there; "gone" where it is not on the roster."""
    entry = entry_of(roster, node)
    return "gone" if entry is None else entry.state

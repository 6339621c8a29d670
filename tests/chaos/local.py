"""Programs of a pool as processes on loopback: killed, stopped, and begun again at the same port
with the same data folder.

Their ports lie outside the range that the kernel gives to connections: to connect to a port of that
range where nobody listens may connect a socket to itself.
"""

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.journal import note_death
from tests.system.processes import Process

QUICK = {"hold": 0.5, "patience": 0.5, "retry": 0.1, "silent_after": 1.0, "lost_after": 2.0}
"""A scheduler's times for tests, in seconds."""
_PORTS = range(11_000, 32_000)
_SHIFTED = """\
import runpy, sys, time
def shifted(real=time.time, seconds=float(sys.argv.pop(1))):
    return real() + seconds
time.time = shifted
runpy.run_module("imagepool", run_name="__main__", alter_sys=True)
"""
_next_port = itertools.cycle(_PORTS)
for _ in range(os.getpid() * 97 % len(_PORTS)):  # other runs of tests begin elsewhere
    next(_next_port)


def free_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    for port in _next_port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")


class Program:
    """A node or a scheduler. It does not run until `begin`."""

    def __init__(
        self, kind: str, folder: Path, *, clock: float = 0.0, port: int = 0, **settings: Any
    ) -> None:
        """`clock`: seconds that its wall clock is ahead of this machine's; `settings`: of its kind,
        as in a file.
        """
        self.kind = kind
        self.name = folder.name
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._life: _Life | None = None
        self._stopped = False
        folder.mkdir()
        own = {"listen": f"127.0.0.1:{self.port}", "mdns": False, "name": self.name}
        config = folder / "settings.toml"
        # What JSON writes of strings, numbers, booleans and lists is TOML too.
        values = "\n".join(f"{key} = {json.dumps(v)}" for key, v in {**own, **settings}.items())
        config.write_text(f"[{kind}]\n{values}\n")
        start = ["-c", _SHIFTED, str(clock)] if clock else ["-m", "imagepool"]
        self._arguments = [sys.executable, *start, kind, "--data", str(folder / "data")]
        self._arguments += ["--config", str(config)]

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    def begin(self) -> None:
        """Start it, the first time or again; returns when it serves."""
        self.launch()
        self.serves()

    def launch(self) -> None:
        """Start it, without waiting until it serves."""
        assert self._life is None, f"{self.name} runs already"
        surrounding = {name for name in os.environ if name.startswith("IMAGEPOOL_")} | {
            "BASE_IMAGE"
        }
        self._life = _Life(f"{self.kind} {self.name}", self._arguments, without=surrounding)

    def serves(self) -> None:
        """Return when it does."""
        assert self._life is not None, f"{self.name} does not run"
        self._life.line(r"ready http://\S+")

    def kill(self) -> None:
        """SIGKILL; it may be stopped."""
        assert self._life is not None, f"{self.name} does not run"
        self._life.kill()
        self._life, self._stopped = None, False
        if self.kind == "node" and self.data.exists():
            note_death(self.data)

    def stop(self) -> None:
        """SIGSTOP."""
        assert self._life is not None, f"{self.name} does not run"
        os.kill(self._life.pid, signal.SIGSTOP)
        self._stopped = True

    def go_on(self) -> None:
        """SIGCONT, where it is stopped."""
        if self._stopped and self._life is not None:
            os.kill(self._life.pid, signal.SIGCONT)
        self._stopped = False

    async def killed(self) -> None:
        """`kill`, for a test whose event loop serves others meanwhile."""
        await asyncio.to_thread(self.kill)

    async def begun(self) -> None:
        """`begin`, likewise."""
        await asyncio.to_thread(self.begin)

    def ask_to_end(self) -> None:
        """SIGTERM, where it runs."""
        self.go_on()
        if self._life is not None:
            self._life.ask_to_end()

    def end(self) -> None:
        """SIGTERM, where it runs; it must end well."""
        self.go_on()
        if self._life is not None:
            self._life.end()
            self._life = None

    def forget_store(self) -> None:
        """Remove a scheduler's store; to be called while it is dead."""
        for file in self.data.glob("scheduler.db*"):
            file.unlink()

    def words(self) -> str:
        """The end of what it printed in this life."""
        return self._life.words() if self._life is not None else "    (it does not run)"


class _Life(Process):
    """A process that may be killed, but may not complain before."""

    def kill(self) -> float:
        """SIGKILL; what it said until then is looked at as at any other end."""
        at = super().kill()
        print(f"--- {self.title}: killed\n{self.words()}")
        complaints = self._complaints()
        assert not complaints, f"{self.title} complained: {complaints}\n{self.words()}"
        return at


def a_scheduler(folder: Path, *nodes: str, **settings: Any) -> Program:
    """A scheduler over the nodes at these URLs, with a data folder of this name."""
    return Program("scheduler", folder, nodes=list(nodes), **{**QUICK, **settings})


def a_node(folder: Path, **settings: Any) -> Program:
    """A node with the dummy engine."""
    own = {"engine": "dummy", "disk_reserve": 0, "disk_floor": 0, "drain_limit": 0, "slots": 8}
    return Program("node", folder, **{**own, **settings})


def begin_all(programs: Sequence[Program]) -> None:
    """Start them, all at once; returns when all serve."""
    for program in programs:
        program.launch()
    for program in programs:
        program.serves()


def end_all(programs: Sequence[Program]) -> None:
    """End them, all at once; complain of the first that does not end well."""
    for program in programs:
        program.ask_to_end()
    failures = []
    for program in programs:
        try:
            program.end()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]

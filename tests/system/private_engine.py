"""A Docker Engine of a test's own, to be stopped and killed: the one that others use never notices.

It lives in namespaces of its own for network (two engines in one break each other's bridge and
firewall), mounts and processes. The first process there reads a pipe that this process holds: when
that is closed, or this process dies in whatever way, the kernel ends the engine, its containers and
their keepers, and takes their mounts with them.
"""

import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.system.engine import Tree, archive
from tests.system.processes import Process

_READY = 60.0  # seconds until it answers
_END = 30.0  # seconds that everything may take to be gone
_SOCKET_PATH = 107  # bytes that the path of a Unix socket may have
_names = itertools.count()

# Without CHLD the kernel reaps what is left to this process: the next engine would take a dead
# containerd that nobody has waited for for a living one. What /run holds is the shared engine's.
_KEEPER = "mount -t tmpfs none /run && echo ready && exec env --ignore-signal=CHLD cat"


class PrivateEngine:
    """See the module. Needs root; `folder`: empty, on a disk that can hold layers; `networks`:
    it has bridges and a firewall, in its own namespace.
    """

    def __init__(self, folder: Path, live_restore: bool, *, networks: bool = False) -> None:
        self.socket = f"unix://{folder}/engine.sock"
        """The value of DOCKER_HOST."""
        assert len(f"{folder}/engine.sock") <= _SOCKET_PATH, f"{folder} is too long for a socket"
        self._folder = folder
        self._live_restore = live_restore
        self._networks = networks
        self._cgroup = f"imagepool-test-{os.getpid()}-{next(_names)}"
        self._daemon: _Daemon | None = None
        (folder / "daemon.json").write_text("{}")  # not that of /etc
        namespaces = ["--net", "--mount", "--pid", "--propagation", "slave"]
        self._keeper = subprocess.Popen(
            ["unshare", *namespaces, "--fork", "--mount-proc", "sh", "-c", _KEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout
        assert self._keeper.stdout.readline() == b"ready\n"

    @property
    def keeper(self) -> int:
        """The process whose namespaces it has."""
        return _only_child(self._keeper.pid)

    def start(self) -> None:
        """Start it; returns when it answers."""
        assert self._daemon is None, "it runs already"
        # The socket appears before anybody listens to it: the engine's own word is what counts.
        self._daemon = _Daemon(_only_child(self._keeper.pid), self._arguments())
        self._daemon.line(r".*API listen on .*", _READY)
        with self.client() as client:
            assert client.ping()

    def stop(self) -> None:
        """SIGTERM; returns when it has ended."""
        assert self._daemon, "it does not run"
        self._daemon.end()
        self._daemon = None

    def kill(self) -> None:
        """SIGKILL, its containerd goes with it; containers and their keepers stay."""
        assert self._daemon, "it does not run"
        self._daemon.kill()
        self._daemon = None

    def load(self, tree: Tree, *changes: str) -> str:
        """Import an image of these files, with these Dockerfile lines; its name."""
        name = f"private/{next(_names)}"
        with self.client() as client:
            client.import_image_from_data(
                archive(tree), repository=name, tag="latest", changes=list(changes)
            )
        return f"{name}:latest"

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """The SDK, to ask it what the engine interface has no words for."""
        with contextlib.closing(docker.APIClient(base_url=self.socket)) as client:
            yield client

    def close(self) -> None:
        """End all of it at once, and remove what it wrote."""
        self._keeper.communicate(timeout=_END)  # ends when every process of the namespace has
        if self._daemon:
            self._daemon.reap()
        groups = Path("/sys/fs/cgroup")  # one tree in version 2, one for each controller in 1
        for place in (*groups.glob(self._cgroup), *groups.glob(f"*/{self._cgroup}")):
            for folder, _, _ in os.walk(place, topdown=False):
                os.rmdir(folder)
        shutil.rmtree(self._folder)

    def _arguments(self) -> list[str]:
        return [
            "dockerd",
            f"--host={self.socket}",
            f"--config-file={self._folder}/daemon.json",
            f"--data-root={self._folder}/data",
            "--exec-root=/run/engine",
            "--pidfile=/run/engine.pid",
            f"--cgroup-parent=/{self._cgroup}",
            "--storage-driver=overlay2",
            *(["--bip=172.29.0.1/24"] if self._networks else ["--bridge=none"]),
            f"--iptables={str(self._networks).lower()}",
            f"--ip-forward={str(self._networks).lower()}",
            f"--live-restore={str(self._live_restore).lower()}",
        ]


class _Daemon(Process):
    """A process in the namespaces of another, kept by one outside that only waits for it."""

    def __init__(self, keeper: int, arguments: list[str]) -> None:
        enter = ["nsenter", "--target", str(keeper), "--net", "--mount", "--pid"]
        super().__init__("private dockerd", [*enter, *arguments])

    def ask_to_end(self) -> float:
        """SIGTERM, to it and not to who waits for it."""
        self._asked_to_end = True
        os.kill(_only_child(self.pid), signal.SIGTERM)
        return time.monotonic()

    def kill(self) -> float:
        """SIGKILL, likewise. The kernel kills its containerd then; returns when that is gone too,
        which the next engine would take for a living one.
        """
        at = time.monotonic()
        daemon = _only_child(self.pid)
        with _ending(_only_child(daemon, "containerd")):
            os.kill(daemon, signal.SIGKILL)
            self.reap()
        return at

    def reap(self) -> None:
        """It was ended from outside."""
        self._ends = None
        self._reap(_END)


def _only_child(process: int, name: str = "") -> int:
    """With a name, the only one that is called that: others come and go."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    found = [int(child) for thread in threads for child in thread.read_text().split()]
    (child,) = [one for one in found if not name or _name(one) == name]
    return child


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except FileNotFoundError:  # it has ended
        return ""


@contextlib.contextmanager
def _ending(process: int) -> Iterator[None]:
    """Something that ends this process, which need not be ours; it has ended afterwards."""
    descriptor = os.pidfd_open(process)
    try:
        yield
        readable, _, _ = select.select([descriptor], [], [], _END)
        assert readable, f"process {process} did not end"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def private_engine(folder: Path, live_restore: bool) -> Iterator[PrivateEngine]:
    """A started engine in a new folder; nothing of it is left afterwards."""
    folder.mkdir()
    engine = PrivateEngine(folder, live_restore)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()

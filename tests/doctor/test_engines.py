"""What the doctor says of engine, base image, busybox and the builds' network."""

import gc
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from imagepool.doctor import engines
from imagepool.doctor.examining import Check, examine
from imagepool.doctor.finding import Finding
from node.engines.base import EngineInfo
from node.engines.dummy import DummyEngine
from node.engines.errors import EngineDown
from node.network.firewall import Firewall, Unguarded
from tests.doctor.subjects import a_subject, fails, is_ok, warns

pytestmark = pytest.mark.gen_test(timeout=20)

LAN = "0.0.0.0:8090"


class Engine(DummyEngine):
    """One that runs programs, and says of itself what a test wants."""

    runs_programs = True
    root = ""
    down: Exception | None = None

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()

    def info(self) -> EngineInfo:
        """A Docker Engine's."""
        self.answers.wait()
        if self.down is not None:
            raise EngineDown("it does not answer") from self.down
        found = replace(super().info(), name="docker", version="27.0", root=self.root)
        return replace(found, storage="overlay2", cgroups="2", user_namespaces=True)

    def close(self) -> None:
        """It is looked at again."""

    def images(self) -> frozenset[str]:
        """One."""
        return frozenset({"debian:12"})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """In the place of Docker's, with a firewall that can be had."""
    made = Engine()
    monkeypatch.setattr(engines, "ENGINES", {"docker": lambda folder: made})
    monkeypatch.setattr(Firewall, "look", lambda self: None)
    return made


async def look(folder: Path, **settings: Any) -> tuple[Finding, ...]:
    """At a node on Docker, with its base image there."""
    chosen = {"engine": "docker", "base_image": "debian:12", **settings}
    return await engines.engine(a_subject(folder, **chosen))


async def test_all_is_well(tmp_path: Path, engine: Engine) -> None:
    """What the engine is, in a line."""
    findings = await look(tmp_path)
    assert "docker 27.0, " in is_ok(findings, "engine")
    for words in ("cgroup v2", "storage overlay2", "user namespaces"):
        assert words in is_ok(findings, "engine")
    assert is_ok(findings, "base image") == "debian:12 is here"
    is_ok(findings, "busybox")
    assert "all that the engine's do" in is_ok(findings, "build network")


async def test_the_dummy_engine(tmp_path: Path) -> None:
    """It needs nothing, and makes nothing in the folder."""
    findings = await look(tmp_path, engine="dummy")
    assert "plays scripts" in is_ok(findings, "engine")
    assert not [finding for finding in findings if finding.check == "busybox"]
    assert not list(tmp_path.iterdir())
    found, remedy = fails(await look(tmp_path, engine="podman"), "engine")
    assert "'podman'" in found
    assert remedy == "--engine docker or dummy"


@contextmanager
def docker_at(place: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> Iterator[None]:
    """No socket, or one that nobody serves any more."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
    with socket.socket(socket.AF_UNIX) as made:
        if state != "absent":
            made.bind(str(place))
        yield


@pytest.mark.parametrize(
    ("state", "words", "mends"),
    [
        ("absent", "no Docker Engine here: there is no unix://", "apt install docker.io"),
        ("refuses", "no Docker Engine answers at unix://", "systemctl start docker"),
    ],
)
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")
async def test_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, words: str, mends: str
) -> None:
    """A real client, and a socket of the test's own."""
    with docker_at(tmp_path / "s", monkeypatch, state):
        found, remedy = fails(await look(tmp_path), "engine")
    assert words in found
    assert f"{tmp_path}/s" in found
    assert mends in remedy
    gc.collect()  # Docker's SDK does not close the socket of a connection that came to nothing


async def test_an_engine_that_hangs(tmp_path: Path, engine: Engine) -> None:
    """It is not waited for."""
    check = Check("engine", engines.engine, 0.1, "systemctl restart docker")
    engine.answers.clear()
    try:
        subject = a_subject(tmp_path, engine="docker")
        found, remedy = fails(await examine(subject, (check,)), "engine")
    finally:
        engine.answers.set()
    assert found == "it could not be seen in 0.1 s"
    assert "restart" in remedy


async def test_an_engine_that_one_may_not_ask(tmp_path: Path, engine: Engine) -> None:
    """Root may; so the refusal is made up. Any other error is told as it is."""
    engine.down = OSError("wrapped", PermissionError(13, "Permission denied"))
    found, remedy = fails(await look(tmp_path), "engine")
    assert found.startswith("no permission to ")
    assert "usermod -aG docker" in remedy
    engine.down = ValueError("strange")
    found, remedy = fails(await look(tmp_path), "engine")
    assert found == "it does not answer"
    assert "systemctl status docker" in remedy


async def test_an_engine_without_room(tmp_path: Path, engine: Engine) -> None:
    """Where its layers lie."""
    engine.root = str(tmp_path)
    found, remedy = fails(await look(tmp_path, disk_reserve=1 << 60), "engine")
    assert f"free in {tmp_path}" in found
    assert "make room" in remedy


async def test_the_base_image(tmp_path: Path, engine: Engine) -> None:
    """Absent, it is pulled; not allowed, no build gets it."""
    found, remedy = warns(await look(tmp_path, base_image="debian:13"), "base image")
    assert "debian:13 is not here" in found
    assert "docker pull debian:13" in remedy
    settings = {"base_image": "debian:12", "images": ("ours/*",)}
    found, remedy = fails(await look(tmp_path, **settings), "base image")
    assert "not allowed" in found
    assert "ours/*" in remedy
    found, _ = fails(await look(tmp_path, base_image="Not A Name"), "base image")
    assert "base_image is" in found


async def test_busybox(tmp_path: Path, engine: Engine) -> None:
    """Absent, or of a kind that runs in some images only."""
    for path in (str(tmp_path / "none"), sys.executable, shutil.which("env") or ""):
        found, remedy = fails(await look(tmp_path, busybox=path), "busybox")
        assert path in found
        assert "apt install busybox-static" in remedy


async def test_the_builds_network(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that cannot be had stand in the way, unless the node does without them."""
    for policy, words in (("none", "nothing"), ("open", "all"), ("internet", "nothing nearer")):
        found = is_ok(await look(tmp_path, build_network=policy), "build network")
        assert words in found

    def refuse(self: Firewall) -> None:
        raise Unguarded("iptables: Permission denied")

    monkeypatch.setattr(Firewall, "look", refuse)
    found, remedy = fails(await look(tmp_path, build_network="internet"), "build network")
    assert "iptables: Permission denied" in found
    assert "CAP_NET_ADMIN" in remedy
    found, _ = warns(await look(tmp_path, build_network="auto"), "build network")
    assert "builds reach all" in found
    fails(await look(tmp_path, build_network="auto", listen=LAN), "build network")
    is_ok(await look(tmp_path, build_network="open", listen=LAN), "build network")
    allowed = ("somewhere",)
    found, remedy = fails(await look(tmp_path, build_networks_allowed=allowed), "build network")
    assert "build_networks_allowed[0]" in found
    assert "IPv4" in remedy

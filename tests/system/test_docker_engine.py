"""The Docker Engine beyond the contract: pulls, limits, and an engine that goes away and comes
back.
"""

import contextlib
import gc
import platform
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from node.engines import docker as module
from node.engines.base import ContainerRefused, EngineDown, ImageUnknown, RegistryUnreachable
from node.engines.docker import DockerEngine
from node.workfolder import WorkFolder
from tests.system import engine as tools
from tests.system.registry import BROKEN, DENIED, Answer, a_registry, an_image

pytestmark = pytest.mark.system

ENGINE = "/var/run/docker.sock"


@pytest.fixture(autouse=True)
def _litter() -> Iterator[None]:
    """The SDK does not close a socket whose connect failed: collected here, and not in a later test
    that would have to answer for it.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def engine() -> Iterator[DockerEngine]:
    engine = DockerEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A shell and a few programs."""
    yield tools.make_image(tools.shell_tree(), "ENV PATH=/bin")
    tools.remove_everything()


class TestPulling:
    """An image that is not here is asked of its registry."""

    def test_progress(self, engine: DockerEngine, tmp_path: Path) -> None:
        """A line for each layer's new status and not one for each piece; the image works."""
        assert platform.machine() == "x86_64", "the image says amd64"
        layer = tools.archive(tools.shell_tree(padding=tools.File(bytes(30 << 20))))
        lines: list[str] = []
        with a_registry(an_image("tiny", layer)) as registry:
            name = f"{registry}/tiny:latest"
            try:
                engine.obtain(name, lines.append)
                assert name in engine.images()
                end = tools.run(engine, tmp_path / "run", tools.plan(tools.script("echo hi")), name)
                assert end.outputs == (b"hi\n",)
                before = len(lines)
                engine.obtain(name, lines.append)
                assert len(lines) == before
            finally:
                with contextlib.closing(docker.APIClient()) as client:
                    client.remove_image(name, force=True)
        assert any(line.endswith(": Pull complete") for line in lines)
        assert len(lines) == len(set(lines)) < 15

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (DENIED, ImageUnknown),
            (BROKEN, RegistryUnreachable),
            (Answer(b"junk", 404), ImageUnknown),
        ],
    )
    def test_refusals(self, engine: DockerEngine, answer: Answer, error: type[Exception]) -> None:
        """What the registry says decides whose failure it is; the words are passed on."""
        with a_registry({"*": answer}) as registry:
            name = f"{registry}/some:latest"
            with pytest.raises(error, match=name):
                engine.obtain(name, print)

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("nowhere.invalid/some:latest", RegistryUnreachable),
            ("127.0.0.1:1/some:latest", RegistryUnreachable),
            ("NO/Capitals", ImageUnknown),
            ("a b", ImageUnknown),
        ],
    )
    def test_names(self, engine: DockerEngine, name: str, error: type[Exception]) -> None:
        """A name that cannot be looked up or reached, and one that is none."""
        with pytest.raises(error):
            engine.obtain(name, print)


class TestLimits:
    """What a container may do."""

    def test_as_the_engine_sees_them(
        self, engine: DockerEngine, image: str, tmp_path: Path
    ) -> None:
        """No privilege, no rights but those given, no network, no swap, no output kept twice."""
        folder = WorkFolder.create(tmp_path / "run", tools.plan(), tools.BUSYBOX)
        with (
            tools.started(engine, folder, image, memory=64 << 20, processes=50) as container,
            contextlib.closing(docker.APIClient()) as client,
        ):
            seen = client.inspect_container(container)
        host, config = seen["HostConfig"], seen["Config"]
        assert not host["Privileged"]
        assert host["CapDrop"] == ["ALL"]
        assert sorted(name.removeprefix("CAP_") for name in host["CapAdd"]) == sorted(
            tools.CAPABILITIES
        )
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 << 20, 64 << 20, 50)
        assert (host["NetworkMode"], host["LogConfig"]["Type"]) == ("none", "none")
        assert (host["OomScoreAdj"], host["AutoRemove"], host["Init"]) == (990, False, False)
        assert {(m["Destination"], m["RW"], m["Propagation"]) for m in seen["Mounts"]} == {
            (mount.target, not mount.read_only, "rprivate") for mount in folder.mounts
        }
        assert config["User"] == "0:0"
        assert not config["Cmd"]
        assert config["Healthcheck"] == {"Test": ["NONE"]}

    def test_from_inside(self, engine: DockerEngine, image: str, tmp_path: Path) -> None:
        """in/ cannot be written to; nothing but loopback; the commands die before others do."""
        look = tools.script(
            "touch /toiso/.imagepool/in/x; grep -c : /proc/net/dev;"
            " grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj"
        )
        end = tools.run(engine, tmp_path / "run", tools.plan(look), image)
        lines = end.outputs[0].decode().splitlines()
        assert "Read-only file system" in lines[0]
        assert lines[1:] == ["1", "NoNewPrivs:\t1", "1000"]

    def test_more_cpus_than_there_are(
        self, engine: DockerEngine, image: str, tmp_path: Path
    ) -> None:
        """The engine would refuse; all there are is what is meant."""
        assert module.container_config(
            tools.container_spec(WorkFolder.create(tmp_path / "a", tools.plan(), None), image), 1
        )["HostConfig"]["NanoCpus"] == int(1e9)


class TestStarting:
    """What was created and does not start is not left behind."""

    def test_no_such_program(self, engine: DockerEngine, image: str, tmp_path: Path) -> None:
        """Refused in the engine's words."""
        folder = WorkFolder.create(tmp_path / "run", tools.plan(), tools.BUSYBOX)
        (folder.root / "in" / "busybox").unlink()
        spec = tools.container_spec(folder, image, labels={"purpose": "no program"})
        with pytest.raises(ContainerRefused, match="no such file"):
            engine.start(spec)
        assert engine.containers({"purpose": "no program"}) == ()


class Relay:
    """Stands between a client and the engine's socket, and can be cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._links: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Pass on what comes."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End every connection; no more are taken."""
        assert self._listener
        for link in (self._listener, *self._links):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._links.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(ENGINE)
                self._links += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)


# The SDK leaves a socket to the garbage collector when it cannot connect.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
class TestAnEngineThatGoesAway:
    """Containers run on where it has live-restore; a node waits for it for a while."""

    @pytest.fixture
    def relay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
        relay = Relay(tmp_path / "engine.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
        relay.open()
        yield relay
        relay.cut()

    def test_and_comes_back(
        self, relay: Relay, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who waits for a container's end hears of it, though the connection was lost."""
        looks = threading.Event()
        engine = DockerEngine()
        again = engine._await_engine

        def look() -> None:
            looks.set()
            again()

        monkeypatch.setattr(engine, "_await_engine", look)
        hang = tools.plan(tools.script("echo begun; exec sleep 1000"))
        folder = WorkFolder.create(tmp_path / "run", hang, tools.BUSYBOX)
        codes: list[int] = []
        with tools.started(engine, folder, image) as container:
            tools.until(lambda: folder.log_size() > 0)
            waiting = threading.Thread(target=lambda: codes.append(engine.wait(container).code))
            waiting.start()
            while not looks.wait(0.1):  # it may not have begun to wait
                relay.cut()
                relay.open()
            relay.cut()
            with pytest.raises(EngineDown):
                engine.info()
            with contextlib.closing(docker.APIClient(base_url=f"unix://{ENGINE}")) as client:
                client.kill(container)
            relay.open()
            waiting.join(tools.PATIENCE)
            assert codes == [137]
        engine.close()

    def test_and_stays_away(
        self, relay: Relay, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a time it counts as down."""
        monkeypatch.setattr(module, "_PATIENCE", 0.3)
        engine = DockerEngine()
        folder = WorkFolder.create(
            tmp_path / "run", tools.plan(tools.script("exec sleep 1000")), tools.BUSYBOX
        )
        with tools.started(engine, folder, image) as container:
            relay.cut()
            with pytest.raises(EngineDown, match="does not answer"):
                engine.wait(container)
            relay.open()
        engine.close()

    def test_and_was_never_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Making the engine asks nothing; every question is answered with EngineDown, until it
        is there.
        """
        relay = Relay(tmp_path / "engine.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
        engine = DockerEngine()
        for ask in (engine.info, engine.images, lambda: engine.obtain("x", print)):
            with pytest.raises(EngineDown, match="does not answer"):
                ask()
        relay.open()
        assert engine.info().name == "docker"
        engine.close()
        relay.cut()

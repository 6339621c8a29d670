"""The Docker Engine beyond the contract: pulls, limits, and an engine that goes away and comes
back.
"""

import contextlib
import gc
import os
import platform
import secrets
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from msgspec import Struct

from node.engines.base import ContainerSpec, ContainerState, Exit, Limits, Mount
from node.engines.docker import DockerEngine
from node.engines.docker_config import container_config
from node.engines.errors import (
    ContainerRefused,
    EngineDown,
    ImageUnknown,
    NameTaken,
    RegistryUnreachable,
)
from node.files.workfolder import WorkFolder
from tests.system import engine as tools
from tests.system.private_engine import PrivateEngine, private_engine
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
        assert container_config(
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

    def test_a_crash_after_it_was_created(
        self, engine: DockerEngine, image: str, tmp_path: Path
    ) -> None:
        """What is found then says that nothing ever ran in it, and is in the way of no other
        attempt once it is removed.
        """
        folder = WorkFolder.create(tmp_path / "run", tools.plan(), tools.BUSYBOX)
        spec = tools.container_spec(folder, image, labels={"purpose": "crash"})
        with contextlib.closing(docker.APIClient()) as client:
            client.create_container_from_config(container_config(spec, 1), spec.name)
        with pytest.raises(NameTaken, match=spec.name):
            engine.start(spec)
        (found,) = engine.containers({"purpose": "crash"})
        assert found.state is ContainerState.CREATED
        engine.remove(found.id)
        with contextlib.closing(docker.APIClient()) as client:
            made = client.create_container_from_config(
                {**container_config(spec, 1), "Entrypoint": ["/nothing"]}, spec.name
            )["Id"]
            with pytest.raises(docker.errors.APIError):
                client.start(made)
        (found,) = engine.containers({"purpose": "crash"})
        assert found.state is ContainerState.CREATED
        engine.remove(made)
        container = engine.start(spec)
        engine.wait(container)
        engine.remove(container)


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


class Observed(DockerEngine):
    """Tells how it fares with somebody who waits for a container."""

    def __init__(self) -> None:
        super().__init__()
        self.away = threading.Event()  # the engine was found to be
        self.back = threading.Event()  # the container was then looked at again

    def _await_engine(self) -> None:
        self.away.set()
        super()._await_engine()

    def _ended_state(self, container: str) -> object:
        if self.away.is_set():
            self.back.set()
        return super()._ended_state(container)


@contextlib.contextmanager
def waited_for(engine: DockerEngine, container: str) -> Iterator[list[Exit]]:
    """Somebody waits for the container meanwhile; afterwards the list holds how it ended."""
    ends: list[Exit] = []
    waiting = threading.Thread(target=lambda: ends.append(engine.wait(container)))
    waiting.start()
    yield ends
    waiting.join(tools.PATIENCE)
    assert ends, "nobody heard of the end"


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

    @pytest.mark.parametrize("meanwhile", [True, False])
    def test_and_comes_back(
        self, relay: Relay, image: str, tmp_path: Path, meanwhile: bool
    ) -> None:
        """Who waits for a container's end hears of it, though the connection was lost. It was not
        watched if the container ended meanwhile, and was if it ended later.
        """
        engine = Observed()
        hang = tools.plan(tools.script("echo begun; exec sleep 1000"))
        folder = WorkFolder.create(tmp_path / "run", hang, tools.BUSYBOX)
        with (
            tools.started(engine, folder, image) as container,
            contextlib.closing(docker.APIClient(base_url=f"unix://{ENGINE}")) as client,
        ):
            tools.until(lambda: folder.log_size() > 0)
            with waited_for(engine, container) as ends:
                while not engine.away.wait(0.1):  # it may not have begun to wait
                    relay.cut()
                    relay.open()
                relay.cut()
                with pytest.raises(EngineDown):
                    engine.info()
                if meanwhile:
                    client.kill(container)
                relay.open()
                assert engine.back.wait(tools.PATIENCE)
                if not meanwhile:
                    client.kill(container)
            assert [(end.code, end.watched) for end in ends] == [(137, not meanwhile)]
        engine.close()

    def test_and_stays_away(self, relay: Relay, image: str, tmp_path: Path) -> None:
        """After a time it counts as down."""
        engine = DockerEngine(patience=0.3)
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


@pytest.fixture(scope="class")
def private(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEngine]:
    """An engine of the tests' own; the parameter: whether it has live-restore."""
    with private_engine(tmp_path_factory.mktemp("e") / "e", request.param) as engine:
        yield engine


@pytest.fixture(scope="class")
def private_image(private: PrivateEngine) -> str:
    """A shell and a few programs, there."""
    return private.load(tools.shell_tree(), "ENV PATH=/bin")


class Told(Struct, frozen=True):
    """A container on the private engine, that ends with 9 when it is told to, and with 8 when it is
    asked to by SIGTERM.
    """

    engine: Observed
    id: str
    folder: Path

    def tell(self) -> None:
        """It ends by itself."""
        (self.folder / "told").write_text("end\n")

    def wait_until_gone(self) -> None:
        """Return when its process has ended, whatever engines say."""
        tools.until((self.folder / "gone").exists)


TOLD = """
    exec 3<>/x/told
    trap 'exit 8' TERM
    trap ': >/x/gone' EXIT
    : >/x/up
    read it <&3
    exit 9
"""


@pytest.fixture
def told(
    private: PrivateEngine, private_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Told]:
    """See Told; it runs."""
    monkeypatch.setenv("DOCKER_HOST", private.socket)
    folder = tmp_path / "x"
    folder.mkdir()
    os.mkfifo(folder / "told")
    spec = ContainerSpec(
        name=secrets.token_hex(8),
        image=private_image,
        entrypoint=("sh", "-c", TOLD),
        environment={},
        labels={},
        mounts=(Mount(folder, "/x", read_only=False),),
        limits=Limits(1 << 28, 1.0, 50, network=False),
        capabilities=(),
    )
    with contextlib.closing(Observed()) as engine:
        container = engine.start(spec)
        tools.until((folder / "up").exists)
        yield Told(engine, container, folder)
        engine.remove(container)


def seen(end: Exit) -> tuple[int, bool]:
    """What these tests are about."""
    return end.code, end.watched


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("private", [True], indirect=True, ids=["live-restore"])
class TestAnEngineThatIsRestarted:
    """Its containers run on, and what ended them was the build, if it happened while an engine
    was there to see it.
    """

    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_under_a_container(self, private: PrivateEngine, told: Told, how: str) -> None:
        """Who waits for its end hears of it, as if nothing had been."""
        with waited_for(told.engine, told.id) as ends:
            getattr(private, how)()
            assert told.engine.away.wait(tools.PATIENCE)
            private.start()
            assert told.engine.back.wait(tools.PATIENCE)
            told.tell()
        assert [seen(end) for end in ends] == [(9, True)]

    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_and_the_container_ends_meanwhile(
        self, private: PrivateEngine, told: Told, how: str
    ) -> None:
        """Nobody can say who ended it, whether somebody waited then or asks afterwards."""
        with waited_for(told.engine, told.id) as ends:
            getattr(private, how)()
            told.tell()
            told.wait_until_gone()
            private.start()
        assert [end.watched for end in ends] == [False]
        assert not told.engine.wait(told.id).watched

    def test_after_the_container_ended(self, private: PrivateEngine, told: Told) -> None:
        """What the engine saw in its earlier life is forgotten."""
        told.tell()
        assert seen(told.engine.wait(told.id)) == (9, True)
        private.stop()
        private.start()
        assert seen(told.engine.wait(told.id)) == (9, False)

    def test_somebody_who_asks_later(self, private: PrivateEngine, told: Told) -> None:
        """A node that was away while the engine was not: it was watched all the same."""
        told.tell()
        told.wait_until_gone()
        assert seen(told.engine.wait(told.id)) == (9, True)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("private", [False], indirect=True, ids=["no-live-restore"])
class TestAnEngineThatEndsItsContainers:
    """The engine ended it, and not the build: it was not watched."""

    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_restarted(self, private: PrivateEngine, told: Told, how: str) -> None:
        """When it is stopped, and still answers meanwhile, or when it starts again."""
        with waited_for(told.engine, told.id) as ends:
            getattr(private, how)()
            private.start()
        assert [end.watched for end in ends] == [False]
        (end,) = ends
        assert end.code != 9

    def test_asked_to_end(self, private: PrivateEngine, told: Told) -> None:
        """As an engine that is stopped does it, but with an engine that goes on answering."""
        with waited_for(told.engine, told.id) as ends, private.client() as client:
            client.stop(told.id)
        assert [seen(end) for end in ends] == [(8, False)]

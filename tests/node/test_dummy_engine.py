"""The dummy engine: its script's lines, and that a pool of 1,000 fits into one process."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.engines.base import ContainerRefused, RegistryUnreachable
from node.engines.dummy import DummyEngine
from node.plan import PlannedCommand
from node.workfolder import WorkFolder
from tests.system import engine as tools

IMAGE = "any/image:latest"


@pytest.fixture
def engine() -> Iterator[DummyEngine]:
    engine = DummyEngine()
    yield engine
    engine.close()


def play(engine: DummyEngine, root: Path, text: bytes, **settings: object) -> tools.Outcome:
    """The end of a plan of one command."""
    plan = tools.plan(PlannedCommand(text), **settings)  # type: ignore[arg-type]
    return tools.run(engine, root / "attempt", plan, IMAGE)


class TestLines:
    """Lines that it knows, and all others."""

    @pytest.mark.parametrize(
        ("text", "output"),
        [
            (b"print hello there", b"hello there\n"),
            (b"print  indented \t", b" indented \t\n"),
            (b"print", b"\n"),
            (b"print \xe2\x98\x83", b"\xe2\x98\x83\n"),
            (b"print a\r\nprint b\r\n", b"a\nb\n"),
            (b"printf x\nprint1\n print x\nPRINT x", b""),
            (b"sleep\nsleep x\nsleep 5m\nsleep -1\nsleep . \nsleep 1e9", b""),
            (b"bytes\nbytes x\nbytes -1\nbytes 0", b""),
            (b"exit\nexit x\nexit $?\nexit -1\nprint on", b"on\n"),
            (b"sleep 0\nsleep 0.001\nprint on", b"on\n"),
            (b"\xff\xfe\x00\nprint on\n", b"on\n"),
            (b"#!/bin/bash\nset -e\napt-get install -y hang\n/toiso/command.sh -q\n", b""),
            (b"", b""),
        ],
    )
    def test_output(self, engine: DummyEngine, tmp_path: Path, text: bytes, output: bytes) -> None:
        """What is not one of its lines does nothing."""
        end = play(engine, tmp_path, text)
        assert end.outputs == (output,)
        assert end.codes == [0]

    @pytest.mark.parametrize(("line", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 263", 7)])
    def test_exit(self, engine: DummyEngine, tmp_path: Path, line: str, code: int) -> None:
        """What follows is not played; codes wrap as a shell's do."""
        end = play(engine, tmp_path, f"print a\n{line}\nprint b".encode())
        assert end.outputs == (b"a\n",)
        assert end.codes == [code]

    @pytest.mark.parametrize("count", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
    def test_bytes(self, engine: DummyEngine, tmp_path: Path, count: int) -> None:
        """Exactly as many, and others each time."""
        one = play(engine, tmp_path, b"bytes %d" % count)
        other = play(engine, tmp_path, b"bytes %d" % count)
        assert len(one.outputs[0]) == len(other.outputs[0]) == count
        assert count < 2 or one.outputs != other.outputs

    @pytest.mark.parametrize("count", [0, 1, (2 << 20) + 1])
    def test_artifact(self, engine: DummyEngine, tmp_path: Path, count: int) -> None:
        """Exactly as many bytes; the last line of several counts."""
        text = b"artifact 5000000\nartifact %d" % count
        end = play(engine, tmp_path, text, find_iso=True)
        assert end.result is not None
        assert len(end.result) == count

    def test_no_artifact_line(self, engine: DummyEngine, tmp_path: Path) -> None:
        """A build that does nothing has a result of 1 KiB."""
        end = play(engine, tmp_path, b"apt-get update", find_iso=True)
        assert end.result is not None
        assert len(end.result) == 1024

    def test_an_artifact_is_not_sparse(self, engine: DummyEngine, tmp_path: Path) -> None:
        """It takes the room that a real one would."""
        plan = tools.plan(PlannedCommand(b"artifact 4000000"), find_iso=True)
        folder = WorkFolder.create(tmp_path / "attempt", plan, None)
        with tools.started(engine, folder, IMAGE) as container:
            engine.wait(container)
            folder.take_result(tmp_path / "taken")
        assert (tmp_path / "taken").stat().st_blocks * 512 >= 4_000_000


class TestEngine:
    """What the contract leaves open."""

    def test_a_thousand(self) -> None:
        """No thread and hardly any time for engines that run nothing."""
        threads = threading.active_count()
        begun = time.monotonic()
        engines = [DummyEngine() for _ in range(1000)]
        assert time.monotonic() - begun < 5
        assert threading.active_count() == threads
        for engine in engines:
            engine.close()

    def test_no_thread_stays(self, engine: DummyEngine, tmp_path: Path) -> None:
        """A build's thread ends with it."""
        before = threading.active_count()
        play(engine, tmp_path, b"print x")
        tools.until(lambda: threading.active_count() == before)

    def test_closing_ends_what_it_plays(self, tmp_path: Path) -> None:
        """What it plays lives in this process."""
        before = threading.active_count()
        engine = DummyEngine()
        folder = WorkFolder.create(tmp_path / "attempt", tools.plan(tools.command("hang")), None)
        engine.start(tools.container_spec(folder, IMAGE))
        engine.close()
        tools.until(lambda: threading.active_count() == before)
        assert folder.verdict() is None

    def test_images_are_remembered(self, engine: DummyEngine) -> None:
        """What was obtained is here; nothing is in the beginning."""
        assert engine.images() == frozenset()
        engine.obtain(IMAGE, print)
        with pytest.raises(RegistryUnreachable):
            engine.obtain("unreachable/x:1", print)
        assert engine.images() == {IMAGE}

    def test_without_a_plan(self, engine: DummyEngine, tmp_path: Path) -> None:
        """It has nothing to play, and says so."""
        folder = WorkFolder.create(tmp_path / "attempt", tools.plan(), None)
        (folder.root / "in" / "plan.msgpack").write_bytes(b"nonsense")
        with pytest.raises(ContainerRefused, match="no plan"):
            engine.start(tools.container_spec(folder, IMAGE))

    def test_an_out_that_is_gone(self, engine: DummyEngine, tmp_path: Path) -> None:
        """The container ends with the reason, and nothing hangs."""
        plan = tools.plan(tools.command("print x\nhang"), tools.command("print y"))
        folder = WorkFolder.create(tmp_path / "attempt", plan, None)
        spec = tools.container_spec(folder, IMAGE)
        (folder.root / "out" / ".progress").mkdir()
        container = engine.start(spec)
        end = engine.wait(container)
        assert end.code == 1
        assert "progress" in end.error

"""The dummy engine: its script's lines, and that a pool of 1,000 fits into one process."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.core.plan import PlannedCommand
from node.engines.base import Exit
from node.engines.dummy import JOURNAL, DummyEngine
from node.engines.errors import (
    ContainerRefused,
    EngineDown,
    EngineError,
    ImageUnknown,
    NameTaken,
    RegistryUnreachable,
)
from node.files.workfolder import WorkFolder
from tests.system import engine as tools

IMAGE = "any/image:latest"


@pytest.fixture
def engine() -> Iterator[DummyEngine]:
    engine = DummyEngine()
    yield engine
    engine.close()


def threads_since(before: frozenset[threading.Thread]) -> set[threading.Thread]:
    """Those that began since; one of an earlier test that ends meanwhile does not matter."""
    return set(threading.enumerate()) - before


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
            (b" break\nbreak 2\nbreaks\nengine-fault?\n engine-fault\nprint on", b"on\n"),
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

    def test_break(self, engine: DummyEngine, tmp_path: Path) -> None:
        """The container ends by itself, in the middle of a step and without an exit record."""
        plan = tools.plan(tools.command("print a\nbreak\nprint b"), tools.command("print c"))
        end = tools.run(engine, tmp_path / "attempt", plan, IMAGE)
        assert end.exit == Exit(1, "", out_of_memory=False, watched=True)
        assert end.verdict is None
        assert end.codes == [None, None]
        assert [step.start for step in end.steps] == [0, None]

    def test_engine_fault(self, engine: DummyEngine, tmp_path: Path) -> None:
        """Who waits hears that the engine is down, for as long as the container is there."""
        plan = tools.plan(tools.command("print a\nengine-fault\nprint b"))
        folder = WorkFolder.create(tmp_path / "attempt", plan, None)
        with tools.started(engine, folder, IMAGE) as container:
            for _ in range(2):
                with pytest.raises(EngineDown, match="lost"):
                    engine.wait(container)
        assert folder.read_log(0, 100) == b"a\n"
        assert folder.verdict() is None

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
        before = frozenset(threading.enumerate())
        begun = time.monotonic()
        engines = [DummyEngine() for _ in range(1000)]
        assert time.monotonic() - begun < 5
        assert not threads_since(before)
        for engine in engines:
            engine.close()

    def test_no_thread_stays(self, engine: DummyEngine, tmp_path: Path) -> None:
        """A build's thread ends with it."""
        before = frozenset(threading.enumerate())
        play(engine, tmp_path, b"print x")
        tools.until(lambda: not threads_since(before))

    def test_closing_ends_what_it_plays(self, tmp_path: Path) -> None:
        """What it plays lives in this process."""
        before = frozenset(threading.enumerate())
        engine = DummyEngine()
        folder = WorkFolder.create(tmp_path / "attempt", tools.plan(tools.command("hang")), None)
        engine.start(tools.container_spec(folder, IMAGE))
        engine.close()
        tools.until(lambda: not threads_since(before))
        assert folder.verdict() is None

    def test_an_image_that_breaks_the_engine(self, engine: DummyEngine, tmp_path: Path) -> None:
        """It is here, and its containers do not start, which is not the user's failure."""
        folder = WorkFolder.create(tmp_path / "attempt", tools.plan(), None)
        engine.obtain("broken/image:1", print)
        with pytest.raises(EngineError, match="broken/image:1") as failed:
            engine.start(tools.container_spec(folder, "broken/image:1"))
        assert not isinstance(failed.value, ContainerRefused | ImageUnknown)
        assert engine.containers({}) == ()

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


class TestJournal:
    """What happened, told in a file that outlives the node."""

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[DummyEngine]:
        engine = DummyEngine(tmp_path)
        yield engine
        engine.close()

    @staticmethod
    def lines(folder: Path) -> list[dict[str, Any]]:
        """The journal; every line of it is whole."""
        return [json.loads(line) for line in (folder / JOURNAL).read_bytes().splitlines()]

    def events(self, folder: Path) -> list[tuple[str, int | None]]:
        """What happened, and the codes."""
        return [(line["event"], line["code"]) for line in self.lines(folder)]

    def test_a_build(self, engine: DummyEngine, tmp_path: Path) -> None:
        """Its start, end and removal, with the time and what its labels say."""
        folder = WorkFolder.create(tmp_path / "a", tools.plan(tools.command("exit 3")), None)
        labels = {"imagepool.build": "abc", "imagepool.attempt": "2"}
        begun = time.time()
        with tools.started(engine, folder, IMAGE, labels=labels) as container:
            engine.wait(container)
            assert self.events(tmp_path) == [("start", None), ("end", 0)]
        assert self.events(tmp_path)[2:] == [("remove", None)]
        for line in self.lines(tmp_path):
            assert begun <= line["at"] <= time.time()
            assert line["build"] == "abc"
            assert line["attempt"] == 2
            assert line["container"] == container

    @pytest.mark.parametrize(
        ("text", "event"), [("break", ("end", 1)), ("engine-fault", ("kill", 137))]
    )
    def test_other_ends(
        self, engine: DummyEngine, tmp_path: Path, text: str, event: tuple[str, int]
    ) -> None:
        """What the script does is an end by itself, what the engine does is not."""
        folder = WorkFolder.create(tmp_path / "a", tools.plan(tools.command(text)), None)
        with tools.started(engine, folder, IMAGE) as container:
            tools.until(lambda: len(self.events(tmp_path)) == 2)
            assert self.lines(tmp_path)[1]["container"] == container
        assert self.events(tmp_path) == [("start", None), event, ("remove", None)]

    @pytest.mark.parametrize("how", ["kill", "remove", "close"])
    def test_killed(self, engine: DummyEngine, tmp_path: Path, how: str) -> None:
        """Told once, however it was killed and however often."""
        folder = WorkFolder.create(tmp_path / "a", tools.plan(tools.command("hang")), None)
        container = engine.start(tools.container_spec(folder, IMAGE))
        if how == "kill":
            engine.kill(container)
            engine.kill(container)
            engine.wait(container)
        elif how == "remove":
            engine.remove(container)
            engine.remove(container)
        engine.close()
        removed = [("remove", None)] if how == "remove" else []
        assert self.events(tmp_path) == [("start", None), ("kill", 137), *removed]

    def test_what_never_started(self, engine: DummyEngine, tmp_path: Path) -> None:
        """It is not told."""
        folder = WorkFolder.create(tmp_path / "a", tools.plan(tools.command("hang")), None)
        spec = tools.container_spec(folder, IMAGE)
        engine.start(spec)
        with pytest.raises(NameTaken):
            engine.start(spec)
        with pytest.raises(EngineError):
            engine.start(tools.container_spec(folder, "broken/image:1"))
        assert self.events(tmp_path) == [("start", None)]

    def test_another_life(self, engine: DummyEngine, tmp_path: Path) -> None:
        """It goes on where the one before it ended, in whatever way."""
        plan = tools.plan(tools.command("print x"))
        tools.run(engine, tmp_path / "a", plan, IMAGE)
        with contextlib.closing(DummyEngine(tmp_path)) as other:
            tools.run(other, tmp_path / "b", plan, IMAGE)
        assert [event for event, _ in self.events(tmp_path)] == ["start", "end", "remove"] * 2

    def test_many_at_once(self, engine: DummyEngine, tmp_path: Path) -> None:
        """No line is lost or torn."""
        threads = [
            threading.Thread(
                target=tools.run, args=(engine, tmp_path / f"n{number}", tools.plan(), IMAGE)
            )
            for number in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(tools.PATIENCE)
        told = [event for event, _ in self.events(tmp_path)]
        assert {event: told.count(event) for event in told} == {
            "start": 50,
            "end": 50,
            "remove": 50,
        }

    def test_none(self, tmp_path: Path) -> None:
        """An engine that was given no folder keeps none."""
        with contextlib.closing(DummyEngine()) as engine:
            play(engine, tmp_path, b"print x")
        assert not list(tmp_path.rglob(JOURNAL))

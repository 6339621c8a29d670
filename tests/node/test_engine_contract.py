"""What every container engine does, tried on each.

The scripts mean the same to both: the dummy engine plays `print`, `hang` and the like itself, the
image for the real engine has programs of these names.
"""

import contextlib
import platform
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from node.core.plan import Plan, PlannedCommand
from node.engines import ENGINES
from node.engines.base import ContainerState, Engine
from node.engines.errors import (
    ContainerRefused,
    EngineDown,
    ImageUnknown,
    NameTaken,
    RegistryUnreachable,
)
from node.files.workfolder import WorkFolder
from tests.system import engine as tools
from tests.system.registry import a_registry


class Under(Struct, frozen=True):
    """An engine under test, and names of images for it."""

    make: Callable[[Path], Engine]
    image: str  # that is here
    spare: Callable[[], str]  # makes another one, to be removed
    missing: str  # that its registry does not have
    unreachable: str  # whose registry does not answer


DUMMY = Under(
    ENGINES["dummy"],
    "some/image:latest",
    lambda: "spare/image:latest",
    "missing/image:latest",
    "unreachable/a:latest",
)

PROGRAMS = {
    "bin/print": b'#!/bin/sh\necho "$*"\n',
    "bin/hang": b"#!/bin/sh\nexec sleep 100000\n",
    "bin/bytes": b'#!/bin/sh\nexec head -c "$1" /dev/urandom\n',
    "bin/artifact": b'#!/bin/sh\nexec head -c "$1" /dev/urandom >/toiso/image.iso\n',
    "bin/file": b'#!/bin/sh\nmkdir -p "${1%/*}"\nexec head -c "$2" /dev/urandom >"$1"\n',
    "bin/warn": b'#!/bin/sh\necho "$*" >&2\n',
}


@pytest.fixture(scope="module")
def docker_under_test() -> Iterator[Under]:
    """The real engine, with an image for these tests."""
    more = {path: tools.File(text) for path, text in PROGRAMS.items()}
    tree = tools.shell_tree(**more)
    image = tools.make_image(tree, "ENV PATH=/bin")
    with a_registry({}) as registry:
        try:
            yield Under(
                ENGINES["docker"],
                image,
                lambda: tools.make_image(tree, "ENV PATH=/bin"),
                f"{registry}/none:latest",
                "127.0.0.1:1/none:latest",
            )
        finally:
            tools.remove_everything()


@pytest.fixture(params=["dummy", pytest.param("docker", marks=pytest.mark.system)])
def under(request: pytest.FixtureRequest) -> Under:
    """Each engine in turn."""
    if request.param == "dummy":
        return DUMMY
    chosen: Under = request.getfixturevalue("docker_under_test")
    return chosen


@pytest.fixture
def engine(under: Under, tmp_path: Path) -> Iterator[Engine]:
    """One of its own for each test."""
    engine = under.make(tmp_path)
    yield engine
    engine.close()


class Playground(Struct, frozen=True):
    """Runs scripts on the engine under test."""

    engine: Engine
    image: str
    root: Path

    def folder(self, *scripts: str, **settings: Any) -> WorkFolder:
        """A work folder whose commands are these scripts."""
        plan = tools.plan(*(tools.script(text) for text in scripts), **settings)
        return self.folder_of(plan)

    def folder_of(self, plan: Plan) -> WorkFolder:
        """A work folder of this plan."""
        busybox = tools.BUSYBOX if self.engine.runs_programs else None
        return WorkFolder.create(self.root, plan, busybox)

    def run(self, *scripts: str, **settings: Any) -> tools.Outcome:
        """The scripts' end."""
        plan = tools.plan(*(tools.script(text) for text in scripts), **settings)
        return tools.run(self.engine, self.root, plan, self.image)

    @contextlib.contextmanager
    def running(self, *scripts: str, **labels: str) -> Iterator[tuple[str, WorkFolder]]:
        """A container whose first script has printed something."""
        folder = self.folder(*scripts)
        with tools.started(self.engine, folder, self.image, labels=labels) as container:
            tools.until(lambda: folder.log_size() > 0)
            yield container, folder


@pytest.fixture
def play(engine: Engine, under: Under, tmp_path: Path) -> Playground:
    """See Playground."""
    return Playground(engine, under.image, tmp_path / "attempt")


HANG = "print begun\nhang"


class TestItself:
    """What it says of itself and of images."""

    def test_info(self, engine: Engine) -> None:
        """This machine's architecture by the name that uname has for it, and figures that can
        be.
        """
        info = engine.info()
        assert info.name in ENGINES
        assert info.architecture == platform.machine()
        assert info.cpus >= 1
        assert info.memory > 1 << 20
        assert info.version

    def test_an_image_that_is_here(self, engine: Engine, under: Under) -> None:
        """Obtaining it is quick and silent; it is listed."""
        said: list[str] = []
        engine.obtain(under.image, said.append)
        assert said == []
        assert under.image in engine.images()

    def test_an_image_that_is_nowhere(self, engine: Engine, under: Under) -> None:
        """The user's failure."""
        with pytest.raises(ImageUnknown, match=r"none|missing"):
            engine.obtain(under.missing, print)
        assert under.missing not in engine.images()

    def test_a_registry_that_does_not_answer(self, engine: Engine, under: Under) -> None:
        """Infrastructure."""
        with pytest.raises(RegistryUnreachable, match="does not answer"):
            engine.obtain(under.unreachable, print)

    def test_an_image_that_is_forgotten(self, engine: Engine, under: Under) -> None:
        """It needs a pull from then on; forgetting it again, or what never was, does nothing."""
        image = under.spare()
        engine.obtain(image, print)
        assert image in engine.images()
        for name in (image, image, under.missing):
            engine.forget_image(name)
        assert image not in engine.images()

    def test_an_image_that_is_used(self, engine: Engine, under: Under, play: "Playground") -> None:
        """It stays while there is a container of it, running or ended."""
        image = under.spare()
        engine.obtain(image, print)
        with tools.started(engine, play.folder(HANG), image) as container:
            engine.forget_image(image)
            assert image in engine.images()
            engine.kill(container)
            engine.wait(container)
            engine.forget_image(image)
            assert image in engine.images()
        engine.forget_image(image)
        assert image not in engine.images()


class TestPlans:
    """A container plays the plan of its work folder."""

    def test_commands_in_order(self, play: Playground) -> None:
        """Output, codes, an exit record; the container ends with 0 whatever they did."""
        end = play.run("print one\nprint two", "print\nexit 3\nprint never", "print three")
        assert end.outputs == (b"one\ntwo\n", b"\n", b"three\n")
        assert end.codes == [0, 3, 0]
        assert end.verdict is not None
        assert not end.verdict.has_result
        assert (end.exit.code, end.exit.error) == (0, "")

    def test_steps_lie_end_to_end(self, play: Playground) -> None:
        """Each begins in the log where the one before it ended."""
        steps = play.run("print one", "print two", find_iso=True).steps
        assert steps[0].start == 0
        assert [step.start for step in steps[1:]] == [step.end for step in steps[:-1]]

    def test_no_commands(self, play: Playground) -> None:
        """Only the exit record."""
        end = play.run()
        assert end.steps == ()
        assert end.verdict is not None

    def test_a_result(self, play: Playground) -> None:
        """Of the size asked for, taken out of the folder; the last step says where it was."""
        end = play.run("artifact 3000000", find_iso=True)
        assert end.codes == [0, 0]
        assert end.verdict is not None
        assert (end.verdict.has_result, end.verdict.name) == (True, "image.iso")
        assert end.result is not None
        assert len(end.result) == 3_000_000
        assert end.outputs[1] == b"[imagepool: the image is /toiso/image.iso, 3000000 bytes]\n"

    def test_a_result_without_a_word_about_it(self, play: Playground) -> None:
        """A build that does nothing succeeds too."""
        end = play.run("true", find_iso=True)
        assert end.codes == [0, 0]
        assert end.result

    def test_a_result_that_nobody_asks_for(self, play: Playground) -> None:
        """It is not kept."""
        end = play.run("artifact 1000")
        assert end.verdict is not None
        assert not end.verdict.has_result

    def test_stopping_at_a_failure(self, play: Playground) -> None:
        """The rest is recorded as never run, and says why."""
        end = play.run("exit 3", "print never", keep_going=False, find_iso=True)
        assert end.codes == [3, 125, 125]
        assert end.outputs[1:] == (b"[imagepool: not run: command 1 ended with 3]\n",) * 2
        assert end.verdict is not None
        assert not end.verdict.has_result

    def test_a_command_that_could_not_be_prepared(
        self, play: Playground, engine: Engine, under: Under
    ) -> None:
        """The reason is its output."""
        commands = (PlannedCommand(b"", failure="no such page"), tools.script("print next"))
        end = tools.run(engine, play.root, tools.plan(*commands), under.image)
        assert end.codes == [125, 0]
        assert end.outputs == (b"[imagepool: not run: no such page]\n", b"next\n")

    def test_the_log_limit(self, play: Playground) -> None:
        """Output over it is not kept, which a line says, once for each command that goes over."""
        end = play.run("bytes 3000\nbytes 3000\nexit 2", "print more", "true", log_limit=2048)
        line = b"\n[imagepool: the log has reached its limit of 2048 bytes]\n"
        assert end.codes == [2, 0, 0]
        assert end.outputs[0][2048:] == line
        assert end.outputs[1:] == (line, b"")

    def test_a_full_log_and_many_commands(self, play: Playground) -> None:
        """None of them hangs, and each says that its output is not kept."""
        end = play.run(*["print more"] * 300, log_limit=0)
        assert end.codes == [0] * 300
        line = b"\n[imagepool: the log has reached its limit of 0 bytes]\n"
        assert end.outputs == (line,) * 300

    def test_much_output(self, play: Playground) -> None:
        """All of it is there."""
        end = play.run("bytes 5000000\nprint end")
        assert len(end.outputs[0]) == 5_000_004


class TestContainers:
    """Their life, seen from outside."""

    def test_one_that_runs(self, play: Playground, engine: Engine) -> None:
        """Its output and its step can be read; it is listed by its labels and no others."""
        with play.running(HANG, purpose="listing") as (container, folder):
            assert folder.read_log(0, 100) == b"begun\n"
            assert (folder.steps()[0].start, folder.steps()[0].end) == (0, None)
            (listed,) = engine.containers({"purpose": "listing", **tools.LABEL})
            assert (listed.id, listed.state) == (container, ContainerState.RUNNING)
            assert listed.labels.items() >= {"purpose": "listing", **tools.LABEL}.items()
            assert engine.containers({"purpose": "other"}) == ()
            assert engine.containers({"purpose": "listing", "more": "x"}) == ()
        assert engine.containers({"purpose": "listing"}) == ()

    def test_one_that_has_ended(self, play: Playground, engine: Engine) -> None:
        """It is listed until it is removed; waiting for it again says the same, that the engine saw
        it end included.
        """
        folder = play.folder("print over")
        with tools.started(engine, folder, play.image, labels={"purpose": "ended"}) as container:
            end = engine.wait(container)
            assert end == engine.wait(container)
            assert end.watched
            (listed,) = engine.containers({"purpose": "ended"})
            assert listed.state is ContainerState.ENDED

    @pytest.mark.parametrize("script", [HANG, "print begun\nsleep 100000"])
    def test_killing(self, play: Playground, engine: Engine, script: str) -> None:
        """It ends at once, for all who wait, with 137, and without an exit record."""
        ends = []
        with play.running(script, "print never") as (container, folder):
            waiting = [
                threading.Thread(target=lambda: ends.append(engine.wait(container)))
                for _ in range(3)
            ]
            for thread in waiting:
                thread.start()
            engine.kill(container)
            for thread in waiting:
                thread.join(tools.PATIENCE)
            assert [(end.code, end.watched) for end in ends] == [(137, True)] * 3
            assert folder.verdict() is None
            assert [step.start for step in folder.steps()] == [0, None]
            engine.kill(container)

    def test_removing_one_that_runs(self, play: Playground, engine: Engine) -> None:
        """Nothing is written any more."""
        with play.running("print begun\nbytes 100000000000") as (container, folder):
            engine.remove(container)
            size = folder.log_size()
            folder.remove()
            assert size > 0
            assert not folder.root.exists()

    def test_one_that_is_gone(self, play: Playground, engine: Engine) -> None:
        """Killing and removing it do nothing, and it uses nothing; waiting for it is refused."""
        folder = play.folder("true")
        with tools.started(engine, folder, play.image) as container:
            pass
        engine.kill(container)
        engine.remove(container)
        assert engine.usage(container) == 0
        with pytest.raises(EngineDown, match=r"gone|No such container"):
            engine.wait(container)

    @pytest.mark.parametrize("script", [HANG, "print over"])
    def test_two_of_one_name(self, play: Playground, engine: Engine, script: str) -> None:
        """The second is refused, in words that name it, as long as the first is there; it goes on
        as if nobody had asked.
        """
        spec = tools.container_spec(play.folder(script), play.image, labels={"purpose": "name"})
        container = engine.start(spec)
        try:
            if script != HANG:
                engine.wait(container)
            with pytest.raises(NameTaken, match=spec.name):
                engine.start(spec)
            (listed,) = engine.containers({"purpose": "name"})
            assert (listed.id, listed.name) == (container, spec.name)
            assert (listed.state is ContainerState.RUNNING) == (script == HANG)
        finally:
            engine.remove(container)
        again = engine.start(spec)
        engine.remove(again)
        assert again != container

    def test_what_it_uses(self, play: Playground, engine: Engine) -> None:
        """What was written is counted, while it runs and afterwards."""
        folder = play.folder("artifact 3000000\nprint begun\nhang", find_iso=True)
        with tools.started(engine, folder, play.image) as container:
            tools.until(lambda: folder.log_size() > 0)
            assert 3_000_000 <= engine.usage(container) < 4_000_000
            engine.kill(container)
            engine.wait(container)
            assert 3_000_000 <= engine.usage(container) < 4_000_000

    def test_mounts_that_are_not_there(self, play: Playground, engine: Engine) -> None:
        """Refused, and nothing stays behind."""
        folder = play.folder("true")
        spec = tools.container_spec(folder, play.image, labels={"purpose": "nowhere"})
        folder.remove()
        with pytest.raises(ContainerRefused) as refused:
            engine.start(spec)
        assert not isinstance(refused.value, NameTaken)
        assert engine.containers({"purpose": "nowhere"}) == ()

    def test_an_image_that_was_not_obtained(
        self, play: Playground, engine: Engine, under: Under
    ) -> None:
        """Starting does not pull."""
        with pytest.raises(ImageUnknown):
            engine.start(tools.container_spec(play.folder("true"), under.missing))

    def test_ten_at_once(self, play: Playground, engine: Engine, tmp_path: Path) -> None:
        """Each has its own output."""
        ends: dict[int, bytes] = {}

        def one(number: int) -> None:
            plan = tools.plan(tools.script(f"print {number}"))
            end = tools.run(engine, tmp_path / f"n{number}", plan, play.image)
            ends[number] = end.outputs[0]

        threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(tools.PATIENCE)
        assert ends == {number: b"%d\n" % number for number in range(10)}


class TestClosing:
    """A node lets go of its engine."""

    def test_those_who_wait(self, under: Under, tmp_path: Path) -> None:
        """They hear that the engine is no more to be had; so do all who ask afterwards."""
        engine = under.make(tmp_path)
        heard: list[str] = []
        play = Playground(engine, under.image, tmp_path / "attempt")
        folder = play.folder(HANG)
        container = engine.start(tools.container_spec(folder, under.image))
        tools.until(lambda: folder.log_size() > 0)

        def wait() -> None:
            try:
                engine.wait(container)
            except EngineDown as error:
                heard.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        engine.close()
        waiting.join(tools.PATIENCE)
        assert heard == ["the engine was closed"]
        for ask in (
            engine.info,
            engine.images,
            lambda: engine.wait(container),
            lambda: engine.usage(container),
            lambda: engine.forget_image(under.image),
        ):
            with pytest.raises(EngineDown, match="closed"):
                ask()

    def test_unused(self, under: Under, tmp_path: Path) -> None:
        """Closing what was never used, and closing twice."""
        engine = under.make(tmp_path)
        engine.close()
        engine.close()

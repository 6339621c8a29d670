"""What every container engine does with images, tried on each: built of a Dockerfile, imported,
saved, loaded, exported.

The Dockerfiles mean the same to both engines; see `test_engine_contract.py`.
"""

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from node.engines.base import ContextFile, Engine, ImageSpec, Limits
from node.engines.errors import (
    EngineDown,
    ImageFailed,
    ImageUnknown,
    Interrupt,
    Interrupted,
    RegistryUnreachable,
)
from tests.node.test_engine_contract import Under, docker_under_test, under
from tests.system import engine as tools

__all__ = ["docker_under_test", "under"]

ANY = Limits(memory=1 << 28, cpus=1.0, processes=100, network=False)


@pytest.fixture
def engine(under: Under, tmp_path: Path) -> Iterator[Engine]:
    """One of its own for each test."""
    engine = under.make(tmp_path)
    yield engine
    engine.close()


class Bench(Struct):
    """Makes images on the engine under test; they are forgotten afterwards."""

    engine: Engine
    under: Under
    root: Path
    name: str
    said: list[bytes] = []
    interrupt: Interrupt = Interrupt()

    def spec(self, *lines: str, context: tuple[ContextFile, ...] = ()) -> ImageSpec:
        """Of a Dockerfile with these lines."""
        dockerfile = self.root / "given"
        dockerfile.write_text("".join(f"{line}\n" for line in lines))
        return ImageSpec(
            self.name, dockerfile, None, "Dockerfile", context, tools.LABEL, ANY, time.time()
        )

    def build(self, *lines: str) -> str:
        """All that its steps said."""
        self.engine.build(
            self.spec(f"FROM {self.under.image}", *lines), self.said.append, self.interrupt
        )
        return b"".join(self.said).decode()


@pytest.fixture
def bench(engine: Engine, under: Under, tmp_path: Path) -> Iterator[Bench]:
    """See Bench."""
    engine.obtain(under.image, print)
    name = f"{tools.PREFIX}/{tmp_path.name.lower().strip('_')}:made"
    made = Bench(engine, under, tmp_path, name, [], Interrupt())
    yield made
    if made.name in engine.images():
        engine.forget_image(made.name)


class TestDockerfile:
    """An image of a Dockerfile."""

    def test_its_steps(self, bench: Bench) -> None:
        """What they print is told; the image is there under its name."""
        said = bench.build("RUN print one", "RUN print two")
        assert "one\n" in said
        assert said.index("one\n") < said.index("two\n")
        assert bench.name in bench.engine.images()

    def test_a_step_that_fails(self, bench: Bench) -> None:
        """The user's failure, with the step's code and the engine's words; there is no image."""
        with pytest.raises(ImageFailed, match="returned a non-zero code: 7") as failed:
            bench.build("RUN print before", "RUN exit 7", "RUN print never")
        assert failed.value.code == 7
        said = b"".join(bench.said)
        assert b"before\n" in said
        assert b"\nnever\n" not in said
        assert bench.name not in bench.engine.images()

    def test_what_is_no_dockerfile(self, bench: Bench) -> None:
        """The user's failure."""
        with pytest.raises(ImageFailed):
            bench.engine.build(bench.spec("RUN print x"), bench.said.append, bench.interrupt)

    def test_an_image_that_is_nowhere(self, bench: Bench) -> None:
        """Unknown to its registry: the user's failure; a registry that does not answer: not."""
        for image, kind in (
            (bench.under.missing, (ImageFailed, ImageUnknown)),
            (bench.under.unreachable, RegistryUnreachable),
        ):
            with pytest.raises(kind):
                bench.engine.build(bench.spec(f"FROM {image}"), bench.said.append, bench.interrupt)

    def test_one_that_is_ended(self, bench: Bench) -> None:
        """At once, from another thread; there is no image."""
        begun = threading.Event()

        def output(data: bytes) -> None:
            if b"begun\n" in data:
                begun.set()

        ends: list[BaseException] = []

        def build() -> None:
            lines = (f"FROM {bench.under.image}", "RUN print begun", "RUN hang")
            try:
                bench.engine.build(bench.spec(*lines), output, bench.interrupt)
            except BaseException as error:
                ends.append(error)

        building = threading.Thread(target=build)
        building.start()
        assert begun.wait(tools.PATIENCE)
        bench.interrupt.set()
        building.join(tools.PATIENCE)
        assert [type(end) for end in ends] == [Interrupted]
        assert bench.name not in bench.engine.images()


class TestNames:
    """What images are called."""

    def test_a_second_name(self, bench: Bench) -> None:
        """Each is forgotten by itself; what is not here gets none."""
        bench.build("RUN print x")
        other = bench.name.replace(":made", ":other")
        bench.engine.name_image(bench.name, other)
        assert {bench.name, other} <= bench.engine.images()
        bench.engine.forget_image(other)
        assert bench.name in bench.engine.images()
        assert other not in bench.engine.images()
        with pytest.raises(ImageUnknown):
            bench.engine.name_image(other, bench.name)


class TestFiles:
    """Images as files."""

    def test_there_and_back(self, bench: Bench) -> None:
        """Saved, forgotten, loaded."""
        bench.build("RUN print x")
        file = bench.root / "image"
        bench.engine.save(bench.name, file, bench.interrupt)
        assert bench.engine.is_saved(file)
        bench.engine.forget_image(bench.name)
        assert bench.name not in bench.engine.images()
        bench.engine.load(file, bench.name, bench.interrupt)
        assert bench.name in bench.engine.images()

    def test_a_file_system(self, bench: Bench) -> None:
        """Exported, and imported as an image; no container stays."""
        bench.build("RUN print x")
        file = bench.root / "rootfs"
        bench.engine.export(bench.name, file, {"purpose": "export"}, bench.interrupt)
        assert tarfile.is_tarfile(file)
        assert not bench.engine.is_saved(file)
        assert bench.engine.containers({"purpose": "export"}) == ()
        bench.engine.forget_image(bench.name)
        bench.engine.import_rootfs(file, bench.name, tools.LABEL, bench.interrupt)
        assert bench.name in bench.engine.images()

    @pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8bno gzip"])
    def test_nonsense(self, bench: Bench, data: bytes) -> None:
        """The user's failure; nothing is made."""
        file = bench.root / "nonsense"
        file.write_bytes(data)
        with pytest.raises(ImageFailed):
            bench.engine.load(file, bench.name, bench.interrupt)
        if data:  # an empty file is an empty file system to some
            with pytest.raises(ImageFailed):
                bench.engine.import_rootfs(file, bench.name, {}, bench.interrupt)
        assert bench.name not in bench.engine.images() or not data

    def test_what_is_not_here(self, bench: Bench) -> None:
        """It is said so, and no file is there to be taken for an image."""
        for write in (
            lambda file: bench.engine.save(bench.under.missing, file, bench.interrupt),
            lambda file: bench.engine.export(bench.under.missing, file, {}, bench.interrupt),
        ):
            with pytest.raises((ImageUnknown, EngineDown)):
                write(bench.root / "none")
            assert not (bench.root / "none").exists()

    def test_interrupted(self, bench: Bench) -> None:
        """Nothing is done any more."""
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("a"))
        file = bench.root / "file"
        file.write_bytes(held.getvalue())
        bench.interrupt.set()
        with pytest.raises(Interrupted):
            bench.engine.import_rootfs(file, bench.name, {}, bench.interrupt)
        assert bench.name not in bench.engine.images()

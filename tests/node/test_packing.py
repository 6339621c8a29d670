"""A folder that a build filled as it liked becomes one zip, or an error."""

import os
import socket
import stat
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from node.core.naming import artifact_names
from node.files import untrusted
from node.files.workfolder import Plan, WorkFolder, remove_folder
from node.outputs.packing import Bounds, pack
from tests.descriptors import descriptors

BOUNDS = Bounds(5000, 1 << 30)


class Packer:
    """Packs one folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "outbox"
        self.folder.mkdir()
        self.target = root / "x.zip"
        self.said: list[str] = []
        self.stop = threading.Event()

    def pack(self, bounds: Bounds = BOUNDS) -> zipfile.ZipFile:
        """The zip."""
        with untrusted.opened(self.folder) as folder:
            size = pack(folder, self.target, bounds, self.stop, self.said.append)
        assert size == self.target.stat().st_size
        return zipfile.ZipFile(self.target)


@pytest.fixture
def packer(tmp_path: Path) -> Packer:
    """An empty folder."""
    return Packer(tmp_path)


class TestWhatIsInIt:
    """Honest contents."""

    def test_a_thousand_files_links_and_an_empty_folder(self, packer: Packer) -> None:
        """Python's reader and unzip accept it; unpacked it is what it was."""
        root = packer.folder
        for number in range(1000):
            place = root / f"d{number % 7}" / f"file {number} \N{SNOWMAN}"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(os.urandom(number))
        (root / "empty").mkdir()
        (root / "away").symlink_to("/etc/passwd")
        (root / "here").symlink_to("d1/file 1 \N{SNOWMAN}")
        (root / "same").hardlink_to(root / "d2" / "file 2 \N{SNOWMAN}")
        (root / "tool").write_bytes(b"#!/bin/sh\n")
        (root / "tool").chmod(0o4755)
        with packer.pack() as packed:
            assert packed.testzip() is None
            names = packed.namelist()
            assert len(names) == 1000 + 7 + 1 + 2 + 2
            assert "empty/" in names
            assert packed.read("away") == b"/etc/passwd"
            modes = {n: packed.getinfo(n).external_attr >> 16 for n in ("away", "tool", "same")}
            assert stat.S_ISLNK(modes["away"])
            assert modes["tool"] == stat.S_IFREG | 0o755
            assert modes["same"] == stat.S_IFREG | 0o644
            for number in (0, 1, 999):
                name = f"d{number % 7}/file {number} \N{SNOWMAN}"
                assert packed.read(name) == (root / name).read_bytes()
        assert packer.said == []

    def test_nothing(self, packer: Packer) -> None:
        """A valid empty zip."""
        with packer.pack() as packed:
            assert packed.namelist() == []

    def test_what_is_no_file(self, packer: Packer) -> None:
        """It is passed over, and said."""
        os.mkfifo(packer.folder / "fifo\n")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(packer.folder / "socket"))
            with packer.pack() as packed:
                assert packed.namelist() == []
        words = "the outbox holds {}, which is passed over: {}"
        assert packer.said == [words.format("a FIFO", "fifo_"), words.format("a socket", "socket")]

    def test_much_that_is_no_file(self, packer: Packer) -> None:
        """The log is not filled with it."""
        for number in range(100):
            os.mkfifo(packer.folder / f"{number}")
        packer.pack().close()
        assert len(packer.said) == 21
        assert packer.said[-1] == "and 80 more of that kind"

    def test_names_that_are_not_utf_8(self, packer: Packer) -> None:
        """Each has a name of its own, and its content."""
        root = os.fsencode(packer.folder)
        for name in (b"a\xff", b"a\xfe", b"a%FF"):
            with open(root + b"/" + name, "wb") as file:
                file.write(name)
        with packer.pack() as packed:
            assert {n: packed.read(n) for n in packed.namelist()} == {
                "a%FF": b"a%FF",
                "a%FE": b"a\xfe",
                "a%FF_": b"a\xff",
            }
        assert len(packer.said) == 2

    @pytest.mark.parametrize("when", [-1e9, 0, 1e11])
    def test_times_that_a_zip_cannot_say(self, packer: Packer, when: float) -> None:
        """They become the nearest that it can."""
        (packer.folder / "a").write_bytes(b"")
        os.utime(packer.folder / "a", (when, when))
        with packer.pack() as packed:
            assert packed.getinfo("a").date_time[0] in (1980, 2107)

    def test_what_is_packed_already(self, packer: Packer) -> None:
        """It is only copied; what is not becomes smaller."""
        (packer.folder / "noise").write_bytes(os.urandom(3 << 20))
        (packer.folder / "text").write_bytes(b"a line\n" * 500_000)
        with packer.pack() as packed:
            assert packed.testzip() is None
            kinds = {info.filename: info.compress_type for info in packed.infolist()}
            assert kinds == {"noise": zipfile.ZIP_STORED, "text": zipfile.ZIP_DEFLATED}
        assert packer.target.stat().st_size < (3 << 20) + 100_000

    def test_a_large_file(self, packer: Packer, monkeypatch) -> None:
        """In the format for sizes of 64 bits; here 5,000 bytes are large."""
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 4000)
        (packer.folder / "large").write_bytes(os.urandom(5000))
        with packer.pack() as packed:
            assert packed.testzip() is None
        assert packer.target.read_bytes()[4:6] == (45).to_bytes(2, "little")


class TestTooMuch:
    """It is an error, and nothing has the zip's name."""

    def refused(self, packer: Packer, words: str, bounds: Bounds = BOUNDS) -> None:
        """With these words."""
        with pytest.raises(OSError, match=words):
            packer.pack(bounds)
        assert not packer.target.exists()

    def test_files(self, packer: Packer) -> None:
        """Folders count too."""
        (packer.folder / "a" / "b").mkdir(parents=True)
        packer.pack(Bounds(2, 0)).close()
        packer.target.unlink()
        self.refused(packer, "more than 1 files", Bounds(1, 0))

    def test_bytes(self, packer: Packer) -> None:
        """Before a byte of a sparse file is read."""
        with (packer.folder / "a").open("wb") as file:
            file.truncate(1 << 40)
        self.refused(packer, "more than 1073741824 bytes")

    def test_depth(self, packer: Packer) -> None:
        """Nobody could unpack it; it can be removed, and its size be told."""
        nested(packer.folder, 3000)
        try:
            self.refused(packer, "longer than 4096 bytes")
        finally:
            remove_folder(packer.folder)  # pytest could not

    def test_the_build_is_ended(self, packer: Packer) -> None:
        """At once."""
        (packer.folder / "a").write_bytes(b"x")
        packer.stop.set()
        self.refused(packer, "the build was ended")


def nested(root: Path, depth: int) -> None:
    """So many folders in one another, a file in the last."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("dd", dir_fd=here)
        there = os.open("dd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("last", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


def test_a_hostile_outbox_is_counted_and_removed(tmp_path: Path) -> None:
    """Deeper than a stack and a path go, with links to elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_bytes(b"")
    plan = Plan((), keep_going=True, log_limit=1, find_iso=False, outbox=True)
    folder = WorkFolder.create(tmp_path / "attempt", plan, None)
    outbox = folder.root / "outbox"
    nested(outbox, 3000)
    (outbox / "link").symlink_to(tmp_path / "elsewhere")
    (outbox / "file").write_bytes(bytes(1 << 20))
    before = descriptors()
    try:
        assert folder.usage() >= 1 << 20
    finally:
        folder.remove()
    assert not descriptors() - before
    assert not folder.root.exists()
    assert (tmp_path / "elsewhere" / "kept").exists()


def test_a_folder_that_is_swapped_meanwhile(packer: Packer, monkeypatch) -> None:
    """What was looked at is not what is opened: an error, and no file of elsewhere."""
    (packer.folder / "a").mkdir()
    (packer.folder / "b").mkdir()
    real = os.open

    def swapped(path: object, *more: int, **at: int) -> int:
        if path == "a":
            os.rename(packer.folder / "b", packer.folder / "a")
        return real(path, *more, **at)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(OSError, match="moved meanwhile"):
        packer.pack()


@pytest.mark.system
def test_unzip_accepts_it(packer: Packer) -> None:
    """Info-ZIP's program, which knows links and UTF-8 names."""
    (packer.folder / "empty").mkdir()
    (packer.folder / "link").symlink_to("\N{SNOWMAN}")
    (packer.folder / "\N{SNOWMAN}").write_bytes(b"snow")
    packer.pack().close()
    subprocess.run(["unzip", "-tq", packer.target], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.iso", "a.iso", "a.iso"], ["a.iso", "a-1.iso", "a-2.iso"]),
        (["a-1.iso", "a.iso", "a.iso"], ["a-1.iso", "a.iso", "a-2.iso"]),
        (["x.tar.gz", "x.tar.gz"], ["x.tar.gz", "x-1.tar.gz"]),
        (["a b\n.iso", ".hidden", "", "..."], ["a_b_.iso", "hidden", "file", "file-1"]),
        (["x" * 300, "x" * 300], ["x" * 128, "x" * 126 + "-1"]),
        (["a." + "x" * 300] * 2, ["a." + "x" * 126, "a." + "x" * 124 + "-1"]),
    ],
)
def test_names_of_artifacts(names: list[str], chosen: list[str]) -> None:
    """Each fit for a URL, and unlike all others."""
    assert list(artifact_names(names)) == chosen

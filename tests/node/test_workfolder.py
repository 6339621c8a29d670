"""A work folder says what its container did, and is harmed by nothing that it did there."""

import os
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from node.core.plan import (
    IN,
    NEVER_RAN,
    OUT,
    Plan,
    PlannedCommand,
    Step,
    Verdict,
    command_shell,
    format_exit,
    format_progress,
    parse_exit,
    parse_progress,
)
from node.files import untrusted
from node.files.workfolder import BusyboxUnfit, WorkFolder, check_busybox
from tests.descriptors import descriptors

LIMIT = 4096  # of the log, in bytes


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    """Two commands and a search for the result; nothing has been written yet."""
    commands = (PlannedCommand(b"#!/bin/sh\n"), PlannedCommand(b"#!/bin/sh\n"))
    plan = Plan(commands, keep_going=True, log_limit=LIMIT, find_iso=True)
    return WorkFolder.create(tmp_path / "attempt", plan, None)


@pytest.fixture
def out(folder: WorkFolder) -> Path:
    """What the container can write to."""
    return folder.root / "out"


class TestReading:
    """Honest contents."""

    def test_a_new_folder(self, folder: WorkFolder) -> None:
        """Nothing has begun."""
        assert folder.steps() == (Step(0), Step(1), Step(2))
        assert (folder.log_size(), folder.read_log(0, 100)) == (0, b"")
        assert folder.verdict() is None

    def test_progress(self, folder: WorkFolder, out: Path) -> None:
        """Steps that ended, one that runs, one that has not begun."""
        (out / "progress").write_bytes(b"0 5 3\n5\n")
        assert folder.steps() == (Step(0, 0, 5, 3), Step(1, 5), Step(2))

    def test_the_log_from_an_offset(self, folder: WorkFolder, out: Path) -> None:
        """As much as is asked for, and nothing behind the end."""
        (out / "log").write_bytes(b"0123456789")
        assert folder.log_size() == 10
        assert folder.read_log(2, 3) == b"234"
        assert folder.read_log(8, 100) == b"89"
        assert folder.read_log(10, 100) == b""

    def test_a_result(self, folder: WorkFolder, out: Path, tmp_path: Path) -> None:
        """It is moved, not copied, and loses what would let it be run."""
        (out / "result").write_bytes(b"content")
        (out / "result").chmod(0o4755)
        inode = (out / "result").stat().st_ino
        (out / "exit").write_bytes(b"finished\nmy.iso\n")
        assert folder.verdict() == Verdict(has_result=True, name="my.iso")
        assert folder.take_result(tmp_path / "taken") == 7
        taken = (tmp_path / "taken").stat()
        assert (taken.st_ino, stat.S_IMODE(taken.st_mode)) == (inode, 0o644)
        assert not (out / "result").exists()

    def test_opened_again(self, folder: WorkFolder, out: Path) -> None:
        """A node that starts again finds plan and progress."""
        (out / "progress").write_bytes(b"0 5 3\n")
        again = WorkFolder.open(folder.root)
        assert again.plan == folder.plan
        assert again.steps() == folder.steps()
        assert again.mounts == folder.mounts

    @pytest.mark.parametrize("plan", [None, b"", b"\xc1garbage", b"\x81\xa1a\x01"])
    def test_no_plan(self, folder: WorkFolder, plan: bytes | None) -> None:
        """It is refused with an OSError or a ValueError, as documented."""
        place = folder.root / "in" / "plan.msgpack"
        place.unlink()
        if plan is not None:
            place.write_bytes(plan)
        with pytest.raises((OSError, ValueError)):
            WorkFolder.open(folder.root)


def a_link(place: Path) -> None:
    """To a file that is worth reading."""
    secret = place.parent.parent / "secret"
    secret.write_bytes(b"0 1 0\nfinished\nsecret\n")
    place.symlink_to(secret)


def a_hard_link(place: Path) -> None:
    """Of a file elsewhere."""
    secret = place.parent.parent / "secret"
    secret.write_bytes(b"finished\nsecret\n")
    place.hardlink_to(secret)


def a_dangling_link(place: Path) -> None:
    """That would be made where it leads, by a careless writer."""
    place.symlink_to(place.parent / "nowhere")


HOSTILE: list[Callable[[Path], None]] = [
    a_link,
    a_hard_link,
    a_dangling_link,
    Path.mkdir,
    os.mkfifo,
]


class TestHostileFiles:
    """A name may be anything but a plain file: it reads as if nothing were there, at once."""

    @pytest.mark.parametrize("hostile", HOSTILE)
    @pytest.mark.parametrize("name", ["log", "progress", "exit", "result"])
    def test_kinds(
        self, folder: WorkFolder, out: Path, tmp_path: Path, name: str, hostile: Callable[..., None]
    ) -> None:
        """No link is followed, no FIFO waited for, no second link of a file trusted."""
        (out / name).unlink(missing_ok=True)
        hostile(out / name)
        assert folder.steps() == (Step(0), Step(1), Step(2))
        assert (folder.log_size(), folder.read_log(0, 100)) == (0, b"")
        assert folder.verdict() is None
        with pytest.raises(OSError, match=r"regular file|No such file"):
            folder.take_result(tmp_path / "taken")
        assert not os.path.lexists(tmp_path / "taken")

    def test_a_socket(self, folder: WorkFolder, out: Path) -> None:
        """As any other kind."""
        (out / "log").unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(out / "log"))
            assert folder.read_log(0, 100) == b""

    @pytest.mark.system
    def test_a_device_is_not_opened(self, folder: WorkFolder, out: Path) -> None:
        """Opening a device node can act on the machine. (Making one takes root.)"""
        (out / "log").unlink()
        os.mknod(out / "log", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
        assert folder.read_log(0, 100) == b""

    def test_nothing_is_left_open(self, folder: WorkFolder, out: Path, tmp_path: Path) -> None:
        """Neither by what is read nor by what is refused."""
        before = descriptors()
        (out / "log").write_bytes(b"x")
        (out / "exit").symlink_to("/etc/passwd")
        for _ in range(3):
            folder.steps(), folder.log_size(), folder.read_log(0, 10), folder.verdict()
            with pytest.raises(OSError, match="No such file"):
                folder.take_result(tmp_path / "taken")
        assert not descriptors() - before

    def test_a_file_that_changes_under_the_hands(self, folder: WorkFolder, out: Path) -> None:
        """While a name turns from a plain file into a link and back, only the plain file is ever
        read.
        """
        (out / "secret").write_bytes(b"secret")
        (out / "plain").write_bytes(b"plain")
        (out / "link").symlink_to(out / "secret")
        stop = threading.Event()

        def turn() -> None:
            while not stop.is_set():
                for name in ("plain", "link"):
                    os.rename(out / name, out / "log")
                    os.rename(out / "log", out / name)

        (out / "log").unlink()
        thread = threading.Thread(target=turn)
        thread.start()
        try:
            seen = {folder.read_log(0, 100) for _ in range(3000)}
        finally:
            stop.set()
            thread.join()
        assert seen <= {b"plain", b""}


class TestHostileContents:
    """Plain files that hold anything."""

    @pytest.mark.parametrize(
        ("text", "steps"),
        [
            (b"", ()),
            (b"\xff\xfe\x00\n", ()),
            (b"x\n", ()),
            (b"-1\n", ()),
            (b"0 5\n", ()),
            (b"0  5 0\n", ()),
            (b"0 5 256\n", ()),
            (b"5 4 0\n", ()),
            (b"0 5 0\n4\n", (Step(0, 0, 5, 0),)),
            (b"0 5 0\n5\n5 6 0\n", (Step(0, 0, 5, 0), Step(1, 5))),
            (b"0 5 0\n" + b"9" * 5000, (Step(0, 0, 5, 0),)),
            (b"99999999\n", ()),
            (b"0 5 0\n" * 5, (Step(0, 0, 5, 0),)),
            (b"0 0 0\n" * 100, (Step(0, 0, 0, 0), Step(1, 0, 0, 0), Step(2, 0, 0, 0))),
            ("\u0661\n".encode(), ()),
        ],
    )
    def test_progress(
        self, folder: WorkFolder, out: Path, text: bytes, steps: tuple[Step, ...]
    ) -> None:
        """It counts up to the first line that makes no sense; offsets only grow."""
        (out / "progress").write_bytes(text)
        assert folder.steps() == steps + tuple(Step(index) for index in range(len(steps), 3))

    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            (b"", None),
            (b"finished", None),
            (b"Finished\n", None),
            (b"\0" * 100, None),
            (b"finished\n", Verdict(has_result=False, name="")),
            (b"finished\na b.iso\n", Verdict(has_result=True, name="a b.iso")),
            (b"finished\n../../etc/passwd\n", Verdict(has_result=True, name="passwd")),
            (b"finished\n..\n", Verdict(has_result=True, name="")),
            (
                b"finished\na\nb\x1b[31m\xff\n",
                Verdict(has_result=True, name="a_b_[31m\N{REPLACEMENT CHARACTER}"),
            ),
            (b"finished\n" + b"x" * 100_000, Verdict(has_result=True, name="x" * 200)),
        ],
    )
    def test_exit(
        self, folder: WorkFolder, out: Path, text: bytes, verdict: Verdict | None
    ) -> None:
        """A name is fit to be shown, bounded, and leads nowhere."""
        (out / "exit").write_bytes(text)
        assert folder.verdict() == verdict

    def test_huge_files(self, folder: WorkFolder, out: Path) -> None:
        """A terabyte costs no memory, and a log that grew around its limit is not read for ever."""
        for name in ("log", "progress", "exit"):
            with (out / name).open("wb") as file:
                try:
                    file.truncate(1 << 40)
                except OSError:
                    file.truncate(1 << 33)
        assert folder.steps() == (Step(0), Step(1), Step(2))
        assert folder.verdict() is None
        bound = folder.log_size()
        assert LIMIT < bound < LIMIT + (1 << 20)
        assert len(folder.read_log(0, 1 << 50)) == bound
        assert folder.read_log(bound, 100) == b""
        assert folder.read_log(-1, 100) == b""

    def test_a_log_cut_short(self, folder: WorkFolder, out: Path) -> None:
        """Behind its new end there is nothing, until it has grown past what was read."""
        (out / "log").write_bytes(b"0123456789")
        assert folder.read_log(0, 100) == b"0123456789"
        os.truncate(out / "log", 4)
        assert folder.read_log(10, 100) == b""
        (out / "log").write_bytes(b"0123456789ab")
        assert folder.read_log(10, 100) == b"ab"

    def test_without_out(self, folder: WorkFolder, out: Path) -> None:
        """A folder that is gone altogether reads as one where nothing happened."""
        untrusted_out = out.rename(folder.root / "elsewhere")
        out.symlink_to(untrusted_out)
        (untrusted_out / "log").write_bytes(b"x")
        assert folder.read_log(0, 10) == b""
        assert folder.log_size() == 0
        assert folder.steps() == (Step(0), Step(1), Step(2))


class TestRemoving:
    """The folder goes, and nothing else."""

    def test_links_are_not_followed(self, folder: WorkFolder, out: Path, tmp_path: Path) -> None:
        """What they lead to stays."""
        kept = tmp_path / "kept"
        kept.mkdir()
        (kept / "file").write_bytes(b"x")
        (out / "link").symlink_to(kept)
        (out / "folder").mkdir()
        (out / "folder" / "link").symlink_to(kept)
        folder.remove()
        assert not folder.root.exists()
        assert (kept / "file").read_bytes() == b"x"

    def test_deeper_than_any_recursion(self, folder: WorkFolder, out: Path) -> None:
        """Two thousand folders in one another, beside names of all kinds."""
        here = os.open(out, os.O_RDONLY)
        for _ in range(2_000):
            os.mkdir("d", dir_fd=here)
            os.mkdir("e", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(here)
        (out / "\udcff\n").touch()
        os.mkfifo(out / "fifo")
        folder.remove()
        assert not folder.root.exists()

    def test_many_files(self, folder: WorkFolder, out: Path) -> None:
        """More than one look into the folder shows."""
        for number in range(2500):
            (out / str(number)).touch()
        folder.remove()
        assert not folder.root.exists()

    def test_removed_already(self, folder: WorkFolder) -> None:
        """Once more is no error."""
        folder.remove()
        folder.remove()

    def test_a_folder_of_an_earlier_life(self, folder: WorkFolder, out: Path) -> None:
        """Making it anew leaves nothing of the old one."""
        (out / "exit").write_bytes(b"finished\n")
        again = WorkFolder.create(folder.root, folder.plan, None)
        assert again.verdict() is None


class TestTaking:
    """A result is taken whole or not at all."""

    def test_no_place_to_put_it(self, folder: WorkFolder, out: Path, tmp_path: Path) -> None:
        """It stays where it is."""
        (out / "result").write_bytes(b"content")
        with pytest.raises(FileNotFoundError):
            folder.take_result(tmp_path / "missing" / "result")
        assert (out / "result").read_bytes() == b"content"

    def test_swapped_at_the_last_moment(
        self, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was renamed is not what was looked at: it is refused, and does not stay."""
        (out / "result").write_bytes(b"content")
        real = os.rename

        def swap(source: str, target: Path, **at: int) -> None:
            (out / "result").unlink()
            (out / "result").symlink_to("/etc/passwd")
            real(source, target, **at)

        monkeypatch.setattr(os, "rename", swap)
        with untrusted.opened(out) as descriptor, pytest.raises(untrusted.NotPlain):
            untrusted.take(descriptor, "result", tmp_path / "taken")
        assert not os.path.lexists(tmp_path / "taken")


class TestWhatGoesIn:
    """in/, as the supervisor finds it."""

    @pytest.fixture
    def busybox(self, tmp_path: Path) -> Path:
        """Any static ELF file will do here: a header without an interpreter."""
        place = tmp_path / "busybox"
        place.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
        place.chmod(0o755)
        return place

    def test_its_files(self, tmp_path: Path, busybox: Path) -> None:
        """Busybox, supervisor, plan, a text and its words for each command; readable by anybody
        whatever the umask, in a folder that nobody else gets into.
        """
        plan = Plan((PlannedCommand(b"\xfftext"),), True, LIMIT, False)
        before = os.umask(0o077)
        try:
            folder = WorkFolder.create(tmp_path / "attempt", plan, busybox)
        finally:
            os.umask(before)
        inside = folder.root / "in"
        modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in inside.iterdir()}
        assert modes == {
            "answer": "0o666",
            "busybox": "0o755",
            "command.0": "0o755",
            "command.0.sh": "0o644",
            "pipe": "0o666",
            "plan.msgpack": "0o644",
            "plan.sh": "0o644",
            "supervisor.sh": "0o644",
        }
        assert (inside / "command.0").read_bytes() == b"\xfftext"
        assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder.root / "out").stat().st_mode) == 0o777
        assert folder.entrypoint[0] == f"{IN}/busybox"
        assert [(m.target, m.read_only) for m in folder.mounts] == [(IN, True), (OUT, False)]
        assert all(mount.source.is_absolute() for mount in folder.mounts)

    def test_an_engine_that_runs_no_programs(self, folder: WorkFolder) -> None:
        """The plan alone is enough for it; no busybox is asked for."""
        assert [path.name for path in (folder.root / "in").iterdir()] == ["plan.msgpack"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "No such file"),
            (b"#!/bin/sh\n", "not an ELF"),
            (b"\x7fELF", "not an ELF"),
        ],
    )
    def test_an_unfit_busybox(
        self, tmp_path: Path, folder: WorkFolder, content: bytes | None, words: str
    ) -> None:
        """The error says what to do, before anything is made."""
        place = tmp_path / "busybox"
        if content is not None:
            place.write_bytes(content)
        with pytest.raises(BusyboxUnfit, match=words):
            WorkFolder.create(tmp_path / "other", folder.plan, place)
        assert not (tmp_path / "other").exists()

    @pytest.mark.parametrize(("kind", "dynamic"), [(1, False), (3, True)])
    def test_a_dynamic_busybox(self, tmp_path: Path, kind: int, dynamic: bool) -> None:
        """A program that needs the image's libraries names its loader: program header 3."""
        head = b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + struct.pack("<Q", 64)
        place = tmp_path / "busybox"
        place.write_bytes(head.ljust(54, b"\0") + struct.pack("<HHIHI", 56, 1, 0, 0, kind))
        if not dynamic:
            check_busybox(place)
            return
        with pytest.raises(BusyboxUnfit, match="linked dynamically"):
            check_busybox(place)

    def test_words_for_the_shell(self) -> None:
        """A shell that reads them back has exactly these arguments."""
        words = ("", "a'b", "end\n\n", "$x", "\N{SNOWMAN}", "".join(map(chr, range(1, 128))))
        text = command_shell(PlannedCommand(b"", words, {"odd.name": "'"}))
        show = b"set -- first\n" + text + b'printf "%s\\0" "$@"'
        seen = subprocess.run(["/bin/sh"], input=show, capture_output=True, check=True).stdout
        assert seen.decode().split("\0")[:-1] == ["first", "odd.name='", "/tmp/command", *words]

    @pytest.mark.parametrize(
        "command",
        [
            PlannedCommand(b"", ("a\0",)),
            PlannedCommand(b"", (), {"a": "\0"}),
            PlannedCommand(b"", (), {"": "x"}),
            PlannedCommand(b"", (), {"a=b": "x"}),
        ],
    )
    def test_words_that_cannot_be(self, command: PlannedCommand) -> None:
        """They become that command's failure."""
        assert command_shell(command).startswith(b"failure='a")


class TestTexts:
    """What is formatted is parsed back."""

    def test_progress(self) -> None:
        """Through text and back."""
        steps = (Step(0, 0, 7, 0), Step(1, 7, 7, NEVER_RAN), Step(2, 7))
        assert parse_progress(format_progress(steps), 3, 100) == steps

    @pytest.mark.parametrize("name", [None, "image.iso"])
    def test_exit(self, name: str | None) -> None:
        """Through text and back."""
        assert parse_exit(format_exit(name)) == Verdict(name is not None, name or "")

"""What runs in a container tells how every command went, whatever image it is and whatever the
commands do to it.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.engines.docker import DockerEngine
from node.files.workfolder import PlannedCommand, WorkFolder
from tests.figures import Figures
from tests.system.engine import (
    BUSYBOX,
    CAPABILITIES,
    ISO,
    File,
    Outcome,
    command,
    make_image,
    outcome,
    plan,
    remove_everything,
    run,
    script,
    shell_tree,
    started,
    until,
)

pytestmark = pytest.mark.system

OUT = "/toiso/.imagepool/out"
CUT = b"[imagepool: the log was removed or cut short; output may be missing]\n"
FOUND = b"[imagepool: the image is /toiso/image.iso, 9000 bytes]\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    engine = DockerEngine()
    yield engine
    engine.close()
    remove_everything()


@pytest.fixture(scope="module")
def image(engine: DockerEngine) -> str:
    """A shell, a few programs, a result; ENV and WORKDIR of its own."""
    return make_image(shell_tree(), "ENV PATH=/bin COLOUR=green", "WORKDIR /srv/here")


Play = Callable[..., Outcome]


@pytest.fixture
def play(engine: DockerEngine, image: str, tmp_path: Path) -> Play:
    """Runs commands: texts are shell scripts; `plan`'s keywords, `image` and limits by name."""

    def play(*commands: str | PlannedCommand, image: str = image, **settings: object) -> Outcome:
        planned = (script(one) if isinstance(one, str) else one for one in commands)
        own = {name: settings.pop(name) for name in (*settings,) if name in PLAN}
        return run(engine, tmp_path / "run", plan(*planned, **own), image, **settings)  # type: ignore[arg-type]

    return play


PLAN = ("keep_going", "log_limit", "find_iso")


class TestOrdinaryBuilds:
    """Commands run one after another, and everything they said is there."""

    def test_output_and_exit_code_of_each_command(self, play: Play) -> None:
        """Standard output and error in the order in which they were written, codes as they are."""
        end = play("echo one; echo two >&2; echo three", "exit 3", "echo more", find_iso=True)
        assert end.outputs == (b"one\ntwo\nthree\n", b"", b"more\n", FOUND)
        assert end.codes == [0, 3, 0, 0]
        assert end.verdict is not None
        assert (end.verdict.has_result, end.verdict.name) == (True, "image.iso")
        assert end.result == ISO
        assert end.exit.code == 0

    def test_a_build_of_nothing(self, play: Play) -> None:
        """Without commands there is an exit record, and no result where none is asked for."""
        end = play()
        assert end.steps == ()
        assert end.verdict is not None
        assert not end.verdict.has_result

    def test_files_outlive_their_command(self, play: Play) -> None:
        """What one command writes the next one finds; /tmp/command is not part of it."""
        end = play("echo kept >/file", "cat /file; ls /tmp")
        assert end.outputs[1] == b"kept\ncommand\n"

    def test_the_command_is_gone_at_the_end(self, play: Play, engine: DockerEngine) -> None:
        """The step that looks for the result sees no /tmp/command."""
        tree = shell_tree(**{"toiso/iso_path.sh": File(b"#!/bin/sh\nls -a /tmp >&2; exit 1\n")})
        end = play("true", image=make_image(tree), find_iso=True)
        assert end.outputs[1].startswith(b".\n..\n[")

    def test_stopping_at_a_failed_command(self, play: Play) -> None:
        """Where the plan says so, what follows is recorded as never run, each saying why."""
        end = play("exit 3", "echo never", keep_going=False, find_iso=True)
        assert end.codes == [3, 125, 125]
        assert end.outputs[1:] == (b"[imagepool: not run: command 1 ended with 3]\n",) * 2
        assert end.result is None

    def test_a_command_that_could_not_be_prepared(self, play: Play) -> None:
        """It is not run; its output says why; the others are."""
        lost = PlannedCommand(b"", failure="it's gone: 404 \N{SNOWMAN}")
        end = play(lost, "echo next")
        assert end.codes == [125, 0]
        assert end.outputs[0] == "[imagepool: not run: it's gone: 404 \N{SNOWMAN}]\n".encode()

    def test_output_is_live(self, engine: DockerEngine, image: str, tmp_path: Path) -> None:
        """What a command has said can be read, and its step be seen, while it runs."""
        hang = plan(script("echo begun; exec sleep 1000"))
        folder = WorkFolder.create(tmp_path / "run", hang, BUSYBOX)
        with started(engine, folder, image) as container:
            until(lambda: folder.read_log(0, 100) == b"begun\n")
            assert (folder.steps()[0].start, folder.steps()[0].end) == (0, None)
            assert folder.verdict() is None
            engine.kill(container)
            assert engine.wait(container).code == 137
        assert folder.verdict() is None
        folder.remove()


class TestWhatACommandIsGiven:
    """Arguments, variables, folder, descriptors, signals: as from an ordinary parent."""

    def test_any_argument(self, play: Play) -> None:
        """Every character but NUL, and newlines at the end too."""
        every = "".join(map(chr, range(1, 256)))
        words = ["", "a b", "x'y\"z\\", "end\n\n", every, "-n", "$HOME `id` $(id)", "*"]
        end = play(script('for word; do printf "%s\\0" "$word"; done', *words))
        assert end.outputs[0].decode().split("\0")[:-1] == words

    def test_variables(self, play: Play) -> None:
        """The image's, the container's, then the command's own, names of any kind, values of any
        kind; the supervisor's own variables are in nobody's way and reach nobody.
        """
        text = b"#!/bin/busybox cat\n"
        own = {"odd.name": "v\n\n", "COLOUR": "red", "all": "".join(map(chr, range(1, 256)))}
        given = {"c.d": "q\n'\"\\ ", "IFS": "x", "index": "3", "copier": "1", "SHAPE": "round"}
        show = PlannedCommand(text, ("/proc/self/environ",), own)
        (output,) = play(show, environment=given).outputs
        seen = dict(entry.split("=", 1) for entry in _entries(output.removeprefix(text)))
        del seen["HOSTNAME"], seen["HOME"]
        assert seen == {"PATH": "/bin", **given, **own}

    def test_words_that_no_program_can_be_given(self, play: Play) -> None:
        """A NUL, or an = in a name, is that command's failure and says so."""
        end = play(script("true", "a\0b"), PlannedCommand(b"", (), {"a=b": "c"}), "echo next")
        assert end.codes == [125, 125, 0]
        assert b"NUL" in end.outputs[0]
        assert b"variable's name" in end.outputs[1]

    def test_an_argument_too_long_for_the_kernel(self, play: Play) -> None:
        """The kernel's words are in the output."""
        end = play(script("true", "x" * 140_000), script("echo $#", *["y" * 100] * 10_000))
        assert end.codes == [126, 0]
        assert b"Argument list too long" in end.outputs[0]
        assert end.outputs[1] == b"10000\n"

    def test_the_images_folder(self, play: Play) -> None:
        """Each begins in the WORKDIR, even where the one before removed it; umask is 022."""
        end = play("pwd; cd /; rm -rf /srv; umask 077", "pwd; umask")
        assert end.outputs == (b"/srv/here\n", b"/srv/here\n0022\n")

    def test_descriptors_and_signals(self, play: Play) -> None:
        """Nothing but 0, 1 and 2, with nothing to be read; no signal is ignored or blocked. (Those
        from 32 on are the libraries' own, and come as the engine was given them.)
        """
        end = play("read line; echo $?; ls /proc/$$/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status")
        lines = end.outputs[0].decode().split("\n")
        assert lines[0] == "1"
        assert set(lines[1:-3]) <= {"0", "1", "2", "10"}, "10 is the script that the shell reads"
        names, masks = zip(*(line.split() for line in lines[-3:-1]), strict=True)
        assert names == ("SigBlk:", "SigIgn:")
        assert [int(mask, 16) & 0x7FFFFFFF for mask in masks] == [0, 0]

    def test_root_whatever_the_image_says(self, play: Play) -> None:
        """ENTRYPOINT, CMD, USER and HEALTHCHECK are ignored, ENV and WORKDIR kept."""
        image = make_image(
            shell_tree(),
            'ENTRYPOINT ["/bin/false"]',
            'CMD ["x"]',
            "USER nobody",
            "HEALTHCHECK CMD /bin/false",
            "ENV A=b",
            "WORKDIR /bin",
        )
        end = play("id; echo $A; pwd", image=image, find_iso=True)
        assert end.outputs[0] == b"uid=0(root) gid=0 groups=0\nb\n/bin\n"
        assert end.result == ISO

    def test_without_capabilities(self, play: Play) -> None:
        """Root without any right still runs its commands and leaves its result."""
        image = make_image(shell_tree(**{"toiso/image.iso": File(ISO, mode=0o644)}))
        end = play("echo hi", image=image, capabilities=(), find_iso=True)
        assert (end.outputs[0], end.result) == (b"hi\n", ISO)


def _entries(environment: bytes) -> list[str]:
    return environment.decode().split("\0")[:-1]


class TestImagesThatLackThings:
    """Any image will do; what cannot work says why."""

    def test_no_shell_and_no_tmp(self, play: Play) -> None:
        """An image of one program runs commands that this program interprets; the supervisor
        makes /tmp as it should be; a shell script says which interpreter is missing.
        """
        image = make_image({"busybox": File(BUSYBOX.read_bytes())})
        listing = command("#!/busybox ls\n", "-ld", "/tmp")
        end = play("echo hi", listing, image=image, find_iso=True)
        assert end.codes == [127, 0, 127]
        assert b"/bin/sh, which is not in the image" in end.outputs[0]
        assert b"drwxrwxrwt " in end.outputs[1]
        assert b"the image has no /toiso/iso_path.sh" in end.outputs[2]

    @pytest.mark.parametrize(
        ("text", "code", "words"),
        [
            ("echo hi\n", 126, "the command has no #! line that names its interpreter"),
            ("", 126, "the command has no #! line that names its interpreter"),
            ("#!\necho hi\n", 126, "names no interpreter"),
            ("#!/bin/sh\r\necho hi\r\n", 127, "ends in a carriage return"),
            ("#! /nope/perl -w\n", 127, "names /nope/perl, which is not in the image"),
            ("#!/etc/passwd\n", 126, "names /etc/passwd, which cannot be executed"),
            ("#!/etc\n", 126, "names /etc, which cannot be executed"),
        ],
    )
    def test_not_executable(self, play: Play, text: str, code: int, words: str) -> None:
        """The output says in words what the kernel would not."""
        end = play(command(text), "echo next")
        assert end.codes == [code, 0]
        assert words in end.outputs[0].decode()
        assert end.outputs[0].count(b"\n") == 1

    def test_a_program_instead_of_a_script(self, play: Play) -> None:
        """An ELF file needs no #! line."""
        end = play(command(BUSYBOX.read_bytes()), find_iso=False)
        assert b"applet not found" in end.outputs[0]

    @pytest.mark.parametrize(
        ("finder", "code", "words"),
        [
            ("#!/bin/sh\nprintf image.iso\n", 1, 'printed "image.iso", which is no absolute path'),
            ("#!/bin/sh\n", 1, "printed nothing"),
            ("#!/bin/sh\necho /nope.iso\n", 1, "names /nope.iso, but there is no such file"),
            ("#!/bin/sh\necho /etc\n", 1, "names /etc, which is no regular file"),
            ("#!/bin/sh\necho /dev/zero\n", 1, "names /dev/zero, which is no regular file"),
            (
                "#!/bin/sh\necho so >&2; exit 7\n",
                7,
                "so\n[imagepool: /toiso/iso_path.sh ended with 7",
            ),
            ("#!/bin/sh\nyes\n", 141, "printed more than a path"),
            ("#!/bin/bash\n", 127, "/bin/bash, which is not in the image"),
            ("printf /toiso/image.iso", 126, "has no #! line"),
        ],
    )
    def test_no_result(self, play: Play, finder: str, code: int, words: str) -> None:
        """The last step says why nothing was found, and the build still has its exit record."""
        image = make_image(shell_tree(**{"toiso/iso_path.sh": File(finder.encode())}))
        end = play("true", image=image, find_iso=True)
        assert end.codes == [0, code]
        assert words in end.outputs[1].decode()
        assert end.verdict is not None
        assert not end.verdict.has_result

    def test_a_finder_that_is_not_executable(self, play: Play) -> None:
        """It is said; nothing is run."""
        finder = File(b"#!/bin/sh\nprintf /toiso/image.iso\n", mode=0o644)
        end = play(image=make_image(shell_tree(**{"toiso/iso_path.sh": finder})), find_iso=True)
        assert end.codes == [126]
        assert b"is not executable" in end.outputs[0]

    def test_an_odd_result(self, play: Play) -> None:
        """Links are followed inside the container, one newline is stripped, the name may hold
        anything, and the file that the node takes is nobody's program.
        """
        tree = shell_tree(
            **{
                "toiso/iso_path.sh": File(b"#!/bin/sh\nsleep 1000 &\necho '/out/a b\n.iso'\n"),
                "out/a b\n.iso": File(link="/out/real"),
                "out/real": File(b"content", mode=0o4755),
            }
        )
        end = play(image=make_image(tree), find_iso=True)
        assert end.codes == [0]
        assert end.verdict is not None
        assert end.verdict.name == "a b_.iso"
        assert end.result == b"content"


class TestOutput:
    """All of it, and nothing else."""

    def test_dev_stderr(self, play: Play) -> None:
        """A command that opens /dev/stderr or /dev/stdout itself appends, root or not, and so does
        one that writes where Docker's logs would be.
        """
        end = play(
            "echo a; echo b >/dev/stderr; echo c >/dev/stdout; echo d >/proc/1/fd/1; echo e",
            "echo x; su nobody -c 'echo y >/dev/stderr; echo z >/dev/stdout'",
        )
        assert end.outputs == (b"a\nb\nc\nd\ne\n", b"x\ny\nz\n")

    def test_bytes_that_are_no_text(self, play: Play) -> None:
        """They come out as they went in."""
        end = play("printf '\\377\\376\\000\\001\\r'")
        assert end.outputs[0] == b"\xff\xfe\x00\x01\r"

    def test_300_megabytes(self, play: Play, figures: Figures) -> None:
        """All of them are there, at a speed that is printed."""
        size = 300 << 20
        begun = time.monotonic()
        play("true")
        idle = time.monotonic()
        end = play(f"dd if=/dev/zero bs=64k count={size >> 16} 2>/dev/null; echo end")
        took = (time.monotonic() - idle) - (idle - begun)
        assert len(end.outputs[0]) == size + 4
        assert end.outputs[0].endswith(b"\0end\n")
        figures(f"output of a command: {size / 1e6 / max(took, 0.01):.0f} MB/s")

    def test_the_log_limit(self, play: Play) -> None:
        """What goes over is not kept, a line says so, and the command goes on undisturbed; so for
        each command from there on.
        """
        end = play("head -c 3000 /dev/zero; echo rest; exit 2", "echo more", "true", log_limit=2048)
        line = b"\n[imagepool: the log has reached its limit of 2048 bytes]\n"
        assert end.codes == [2, 0, 0]
        assert end.outputs == (bytes(2048) + line, line, b"")

    def test_a_limit_between_blocks(self, play: Play) -> None:
        """The limit is kept to the block of 512 bytes."""
        end = play("head -c 3000 /dev/zero", log_limit=1100)
        assert end.outputs[0].count(0) == 1024


class TestWhatIsLeftBehind:
    """A command ends with its own process."""

    def test_a_background_process(self, play: Play) -> None:
        """It holds the pipe and would go on; the build does not wait for it, and the next command
        does not find it.
        """
        begun = time.monotonic()
        end = play(
            "sleep 1000 & echo started",
            "setsid sh -c 'touch /up; while :; do sleep 1; done' & until [ -e /up ]; do :; done",
            "ps | grep -c -E 'slee[p]|whil[e]'",
        )
        assert end.outputs == (b"started\n", b"", b"0\n")
        assert end.codes == [0, 0, 1]
        assert time.monotonic() - begun < 20

    def test_output_of_what_is_killed(self, play: Play) -> None:
        """What it had written before the command ended is there."""
        end = play("(echo early; touch /w; exec sleep 1000) & until [ -e /w ]; do :; done")
        assert end.outputs[0] == b"early\n"

    def test_a_fork_bomb(self, play: Play) -> None:
        """Within the limit on processes it goes off; then the next command has the place to
        itself.
        """
        end = play("b() { b & b & wait; }; b 2>/dev/null & sleep 1", "ps | wc -l", processes=200)
        assert end.codes[0] in (0, 2), "2: its own shell could not start `sleep`"
        assert end.codes[1] == 0
        assert int(end.outputs[1]) <= 8

    def test_what_may_not_be_killed(self, play: Play) -> None:
        """Without the right to kill others' processes they stay, which is said, and the build
        comes to its end.
        """
        rights = [name for name in CAPABILITIES if name != "KILL"]
        end = play("su nobody -c 'sleep 1000 & exit 0'; echo done", capabilities=rights)
        assert end.codes == [0]
        assert end.outputs[0].startswith(b"done\n")
        assert b"processes that it left behind could not be ended" in end.outputs[0]

    def test_signals_to_everything(self, play: Play) -> None:
        """PID 1 survives all of them, the copier all that can be survived; `kill 0` reaches
        neither.
        """
        end = play(
            "n=1; while [ $n -le 64 ]; do kill -$n 1; n=$((n + 1)); done 2>/dev/null",
            "for signal in HUP INT QUIT TERM USR1 USR2 ALRM; do trap '' $signal;"
            " kill -$signal -1; kill -$signal 0; done; echo alive; exit 4",
            "kill -STOP -1; echo stopped",
            "echo before; kill -9 0",
            "echo next",
        )
        assert end.codes == [0, 4, 0, 137, 0]
        assert end.outputs[:3] == (b"", b"alive\n", b"stopped\n")
        assert end.outputs[3:] == (b"before\nKilled\n", b"next\n")

    def test_killing_everything(self, play: Play) -> None:
        """`kill -9 -1` takes the copier too: it is said, and the next command is not affected."""
        end = play("sleep 1000 & kill -9 -1; exit 4", "echo next")
        assert end.codes == [4, 0]
        assert b"output may be missing" in end.outputs[0]
        assert end.outputs[1] == b"next\n"


class TestEnds:
    """How a command ended, told as it was."""

    def test_signals(self, play: Play) -> None:
        """128 + n."""
        end = play("kill -9 $$", "kill -TERM $$", "kill -SEGV $$", "kill -INT $$", "exit 130")
        assert end.codes == [137, 143, 139, 130, 130]

    def test_the_memory_limit(self, play: Play) -> None:
        """The command is killed, not the supervisor, and the output says why; also where it was a
        child of the command.
        """
        end = play("exec tail /dev/zero", "tail /dev/zero; echo $?", "echo next", memory=32 << 20)
        said = b"[imagepool: the memory limit was reached; processes killed for it: 1]\n"
        assert end.codes == [137, 0, 0]
        assert end.outputs[0].endswith(said)
        assert b"137\n" in end.outputs[1]
        assert end.outputs[1].endswith(said)
        assert end.outputs[2] == b"next\n"

    def test_killed_from_outside(self, engine: DockerEngine, image: str, tmp_path: Path) -> None:
        """What had ended is recorded, what had not is not, and there is no exit record."""
        hang = plan(script("echo one"), script("echo two; exec sleep 1000"), script("echo three"))
        folder = WorkFolder.create(tmp_path / "run", hang, BUSYBOX)
        with started(engine, folder, image) as container:
            until(lambda: folder.log_size() == 8)
            threading.Thread(target=engine.kill, args=(container,)).start()
            end = engine.wait(container)
        after = outcome(folder, end)
        assert after.exit.code == 137
        assert after.codes == [0, None, None]
        assert [step.start for step in after.steps] == [0, 4, None]
        assert after.verdict is None


class TestWhatIsDoneToTheWorkFolder:
    """Commands are root in out/; how they went is told all the same."""

    @pytest.mark.parametrize(
        "harm",
        [
            f"rm -rf {OUT}/*",
            f"rm {OUT}/log; mkfifo {OUT}/log",
            f"rm {OUT}/log; mkdir -p {OUT}/log/x {OUT}/progress {OUT}/.progress {OUT}/exit/x",
            f"rm {OUT}/log; ln -s /etc/passwd {OUT}/log; ln -sf /etc {OUT}/.exit",
            f": >{OUT}/log",
            "rm -rf /* 2>/dev/null",
        ],
    )
    def test_harm_to_its_files(self, play: Play, harm: str) -> None:
        """A line says that output may be missing, and offsets never move back; what follows is
        complete.
        """
        last = command("#!/toiso/.imagepool/in/busybox echo\n", "after")
        end = play("echo before", harm, last)
        assert (end.codes[0], end.codes[2]) == (0, 0)
        assert end.outputs[1:] == (CUT, b"/tmp/command after\n")
        assert end.verdict is not None

    def test_harm_done_first(self, play: Play) -> None:
        """Before anything was in the log that could be missing."""
        end = play(f"rm {OUT}/log; echo unseen", "echo next")
        assert end.outputs == (CUT, b"next\n")

    def test_a_result_put_there_by_a_command(self, play: Play) -> None:
        """It is replaced by what the image names."""
        end = play(f"ln -s /etc/passwd {OUT}/result; mkfifo {OUT}/answer", "true", find_iso=True)
        assert end.result == ISO

    def test_tmp_command_turned_into_a_link(self, play: Play) -> None:
        """The next command is not written through it."""
        end = play("ln -sf /etc/passwd /tmp/command", "grep -c root /etc/passwd")
        assert end.outputs[1] == b"1\n"

    @pytest.mark.parametrize("there", [File(link="/etc/passwd"), File()])
    def test_an_image_with_a_tmp_command(self, play: Play, there: File) -> None:
        """Whatever it is, the command takes its place and nothing is written through it."""
        image = make_image(shell_tree(**{"tmp/command": there}))
        end = play("grep -c root /etc/passwd", image=image)
        assert end.outputs[0] == b"1\n"

    def test_no_place_for_a_command(self, play: Play) -> None:
        """/tmp cannot be made: the command is not executed, and the output says why."""
        end = play("rm -rf /tmp; ln -s /nowhere /tmp", "echo hi")
        assert end.codes == [0, 126]
        assert b"could not be saved to /tmp/command" in end.outputs[1]


class TestFullDisk:
    """The work folder's file system is full; what happened is written down all the same."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        place = tmp_path / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], check=True)
        yield place
        subprocess.run(["umount", place], check=True)

    def test_by_a_command(self, engine: DockerEngine, image: str, small: Path) -> None:
        """It fails by itself; every step is recorded."""
        written = f"echo begun; until [ -s {OUT}/log ]; do :; done"
        fill = f"{written}; dd if=/dev/zero of={OUT}/a bs=4k; dd if=/dev/zero of={OUT}/b bs=1"
        end = run(
            engine, small / "run", plan(script(f"{fill}; exit 3"), script("echo next")), image
        )
        assert end.codes == [3, 0]
        assert b"No space left on device" in end.outputs[0]
        assert end.verdict is not None

    def test_by_output(self, engine: DockerEngine, image: str, small: Path) -> None:
        """The command goes on; its output ends with a line that says why it is not whole."""
        flood = plan(script("yes | head -c 20000000; exit 2"))
        end = run(engine, small / "run", flood, image)
        assert end.codes == [2]
        assert end.outputs[0].endswith(b"could not be written; is the disk full?]\n")

    def test_by_the_result(self, engine: DockerEngine, small: Path) -> None:
        """Half a result is none."""
        image = make_image(shell_tree(**{"toiso/image.iso": File(bytes(8 << 20))}))
        folder = WorkFolder.create(small / "run", plan(find_iso=True), BUSYBOX)
        with started(engine, folder, image) as container:
            last = engine.wait(container)
        assert not (folder.root / "out" / "result").exists()
        end = outcome(folder, last)
        assert end.codes == [1]
        assert b"could not be copied; is the disk full?" in end.outputs[0]
        assert end.verdict is not None
        assert not end.verdict.has_result

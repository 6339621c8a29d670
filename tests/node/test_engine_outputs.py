"""What every container engine leaves of a build's outputs, tried on each as the contract is."""

import os
import threading

import pytest
from msgspec.structs import replace

from node.core.plan import Plan
from node.files.workfolder import WorkFolder
from tests.node import test_engine_contract as contract
from tests.node.test_engine_contract import Playground
from tests.system import engine as tools

docker_under_test, engine, play = contract.docker_under_test, contract.engine, contract.play
under = contract.under


def planned(*scripts: str, **outputs: object) -> Plan:
    """A plan of these scripts with these outputs."""
    return replace(tools.plan(*(tools.script(text) for text in scripts)), **outputs)


def ended(play: Playground, plan: Plan) -> WorkFolder:
    """The work folder when the container has ended."""
    folder = play.folder_of(plan)
    with tools.started(play.engine, folder, play.image) as container:
        play.engine.wait(container)
    return folder


class TestPaths:
    """Files that are named by paths."""

    def test_files(self, play: Playground) -> None:
        """Each once, in the order of the paths, with its name and size."""
        paths = ("/a/x", "/a/*")
        plan = planned("file /a/x 10\nfile /a/y 3000000", paths=paths, file_limit=10)
        folder = ended(play, plan)
        assert folder.steps()[1].exit_code == 0
        assert folder.verdict() is not None
        assert folder.result_names() == ("x", "y")
        assert folder.take_file(0, folder.root / "taken") == 10
        assert folder.take_file(1, folder.root / "taken") == 3_000_000
        with pytest.raises(FileNotFoundError):
            folder.take_file(2, folder.root / "other")

    def test_a_path_that_names_nothing(self, play: Playground) -> None:
        """Said in the step's output, and by its number."""
        paths = ("/a/x", "/none", "/a/*.iso")
        folder = ended(play, planned("file /a/x 10", paths=paths, file_limit=10))
        step = folder.steps()[1]
        assert (step.exit_code, folder.unmatched()) == (1, ("/none", "/a/*.iso"))
        assert b"[imagepool: no regular file matches /none]\n" in folder.read_log(0, 10_000)
        verdict = folder.verdict()
        assert verdict is not None
        assert not verdict.has_result


def test_an_outbox(play: Playground) -> None:
    """The container's /outbox is a folder of the work folder."""
    folder = ended(play, planned("file /outbox/a/b 1000\nfile /c 1", outbox=True))
    files = [path for path in (folder.root / "outbox").rglob("*") if path.is_file()]
    assert [(path.name, path.stat().st_size) for path in files] == [("b", 1000)]
    assert folder.usage() >= 1000
    folder.remove()
    assert not folder.root.exists()


class TestStream:
    """Standard output of the last command."""

    def test_a_file(self, play: Playground) -> None:
        """Alone is in it; standard error and the earlier commands are in the log."""
        scripts = ("print one", "print two\nwarn three\nbytes 300000")
        folder = ended(play, planned(*scripts, stream="s"))
        assert folder.read_log(0, 100) == b"one\nthree\n"
        target = folder.root / "taken"
        assert folder.take_stream(target) == 300_004
        assert target.read_bytes().startswith(b"two\n")

    def test_a_pipe(self, play: Playground) -> None:
        """Whoever reads has it, and the command waits until somebody does."""
        folder = play.folder_of(planned("print two\nbytes 300000", stream="s", pipe=True))
        received = bytearray()
        with tools.started(play.engine, folder, play.image) as container:
            tools.until((folder.root / "out" / "stream").exists)
            descriptor = folder.open_pipe()
            os.set_blocking(descriptor, True)
            over = threading.Thread(target=play.engine.wait, args=(container,))
            over.start()
            while True:
                if data := os.read(descriptor, 1 << 16):
                    received += data
                elif not over.is_alive():
                    break
            os.close(descriptor)
        assert received.startswith(b"two\n")
        assert len(received) == 300_004

    def test_a_pipe_whose_reader_goes_away(self, play: Playground) -> None:
        """The command ends as with a broken pipe."""
        folder = play.folder_of(planned("bytes 3000000", stream="s", pipe=True))
        with tools.started(play.engine, folder, play.image) as container:
            tools.until((folder.root / "out" / "stream").exists)
            descriptor = folder.open_pipe()
            os.set_blocking(descriptor, True)
            while not os.read(descriptor, 10):  # nobody writes yet
                os.sched_yield()
            os.close(descriptor)
            play.engine.wait(container)
        assert folder.steps()[0].exit_code

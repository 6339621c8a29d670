"""Where secrets lie while a build runs: a folder that others on the machine may write to, below
which is one of the node's own.
"""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import pytest

from node.files.secrets_folder import SecretsFolder
from protocol.errors import Unavailable

NODE = "a" * 40


@pytest.fixture
def home() -> Iterator[Path]:
    """In memory, as it has to be."""
    with TemporaryDirectory(dir="/dev/shm", prefix=f"imagepool-test-{token_hex(4)}-") as name:
        yield Path(name)


def test_what_is_there_while_it_is_needed(home: Path) -> None:
    """Files that the node's user reads, below a folder that nobody else enters."""
    folder = SecretsFolder(home, NODE)
    folder.put("1", {"key": "hush"})
    (root,) = home.iterdir()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert (root / "1" / "key").read_text() == "hush"
    folder.put("2", {"key": "hush"})
    assert sorted(folder.attempts()) == ["1", "2"]
    for attempt in ("1", "2"):
        folder.remove(attempt)
    assert list(home.iterdir()) == []


def _open_to_others(root: Path) -> None:
    (root / "0").mkdir(parents=True)
    root.chmod(0o777)


def _elsewhere(root: Path) -> None:
    other = root.parent / "other"
    other.mkdir(mode=0o700)
    root.symlink_to(other)


def _a_file(root: Path) -> None:
    root.touch(mode=0o600)


@pytest.mark.parametrize("made", [_open_to_others, _elsewhere, _a_file])
def test_one_that_somebody_else_made(home: Path, made: Callable[[Path], None]) -> None:
    """Takes no secret: who owns it could put another folder in place of ours, which a container
    would then be shown. The words say what is wrong.
    """
    root = home / f"imagepool-{NODE[:32]}"
    made(root)
    with pytest.raises(Unavailable, match="was made by somebody else"):
        SecretsFolder(home, NODE).put("1", {"key": "hush"})
    assert not [path for path in home.rglob("*") if path.name == "key"]

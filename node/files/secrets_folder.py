"""The values of secrets, as files that a build's container sees: on a file system in memory only,
and only while the build runs.
"""

import contextlib
import os
import shutil
import stat
import threading
from pathlib import Path

from node.engines.base import Mount
from protocol.errors import Unavailable
from protocol.model.request import Secrets

SECRETS = "/toiso/.imagepool/secrets"
"""Where a container sees them."""
VARIABLE = "IMAGEPOOL_SECRETS"
"""What names that folder in a container."""
_MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = ("tmpfs", "ramfs")


class SecretsFolder:
    """One folder for each attempt that has secrets. Every method may be called from any thread."""

    def __init__(self, home: Path, node: str) -> None:
        """`home`: of all nodes on this machine; `node`: the id of this one."""
        self._home = home
        self._lock = threading.Lock()
        self._root = home / f"imagepool-{node[:32]}"

    def problem(self) -> str:
        """Why no build with secrets can be taken; empty where it can."""
        kind = _file_system(self._home.absolute())
        if not self._home.is_dir():
            return f"it has no folder {self._home} for secrets"
        if kind not in _IN_MEMORY:
            return f"its folder for secrets, {self._home}, is on a disk ({kind}), not in memory"
        return ""

    def put(self, attempt: str, secrets: Secrets) -> None:
        """Make the attempt's folder; one that an earlier life left there is replaced. Raises
        Unavailable, OSError.
        """
        if problem := self.problem():
            raise Unavailable(problem)
        self.remove(attempt)
        folder = self._root / attempt
        with self._lock:
            with contextlib.suppress(FileExistsError):
                self._root.mkdir(mode=0o700)
            self._check_own()
            folder.mkdir(mode=0o755)
        folder.chmod(0o755)  # root/ is closed; the container's root may be another user here
        for name, value in secrets.items():
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with open(file, "wb") as target:
                target.write(value.encode("utf-8", "surrogatepass"))

    def _check_own(self) -> None:
        """Raises Unavailable where the root is not ours alone: others may write beside it, and who
        made it could put something else in place of what is below.
        """
        seen = self._root.lstat()
        mine = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid()
        if not mine or seen.st_mode & 0o077:
            raise Unavailable(f"the folder for secrets, {self._root}, was made by somebody else")

    def mounts(self, attempt: str) -> tuple[Mount, ...]:
        """What the attempt's container has to see; nothing where it has no secrets."""
        folder = self._root / attempt
        return (Mount(folder.absolute(), SECRETS, read_only=True),) if folder.is_dir() else ()

    def remove(self, attempt: str) -> None:
        """Delete the attempt's. Raises OSError."""
        folder = self._root / attempt
        if folder.is_dir():
            shutil.rmtree(folder)
        with self._lock, contextlib.suppress(OSError):  # others have theirs there
            self._root.rmdir()

    def attempts(self) -> tuple[str, ...]:
        """Those that have a folder. Raises OSError."""
        return tuple(os.listdir(self._root)) if self._root.is_dir() else ()


def _file_system(path: Path) -> str:
    """Which kind of file system a path is on; empty where that cannot be seen."""
    best, kind = -1, ""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = Path(_unescaped(fields.split(" ")[4]))
        depth = len(point.parts)
        if depth >= best and path.resolve().is_relative_to(point):  # later mounts cover earlier
            best, kind = depth, rest.split(" ")[0]
    return kind


def _unescaped(text: str) -> str:
    """A path as /proc writes it: some characters as a backslash and three octal digits."""
    return text.encode().decode("unicode_escape") if "\\" in text else text

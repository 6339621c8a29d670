"""What a played build makes beside its log: the files that the supervisor would leave, and what it
streams. What the lines of its script mean is told in `node/engines/player.py`.
"""

import contextlib
import errno
import fnmatch
import hashlib
import os
import re
import secrets
import select
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from node.core.plan import IN, OUT, OUTBOX, Plan, format_names

RESULT = "image.iso"
"""What every played image is called."""
_SIZE = 1024  # bytes of a result that the script does not mention
_PIECE = 1 << 20
_LOOK = 0.05  # seconds between looks whether it is to end, or somebody reads
_WILD = re.compile(r"[*?\[\]]+")


class Results:
    """Of one container. `pause` sleeps so many seconds; it raises where the container is to end."""

    def __init__(
        self, plan: Plan, folders: Mapping[str, Path], pause: Callable[[float], None]
    ) -> None:
        """`folders`: by where a container would see them."""
        self._plan = plan
        self._folders = folders
        self._out = folders[OUT]
        self._pause = pause
        self._files: dict[str, int] = {}  # that the commands made, and their sizes
        self._stream = -1

    @property
    def found(self) -> bool:
        """Whether there is a result."""
        return any((self._out / name).exists() for name in ("result", "names"))

    def image(self, count: int) -> None:
        """The image has so many bytes."""
        if self._plan.find_iso:
            self._fill(self._out / "result", count)

    def find_image(self) -> int:
        """Its size; without a word of the script there is one all the same."""
        result = self._out / "result"
        if not result.exists():
            self.image(_SIZE)
        return result.stat().st_size

    def file(self, path: str, count: int) -> None:
        """The container has a file of so many bytes."""
        self._files[path] = count
        if self._plan.outbox and path.startswith(f"{OUTBOX}/"):
            target = self._folders[OUTBOX] / PurePosixPath(path).relative_to(OUTBOX)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fill(target, count)

    def find_files(self, put: Callable[[str, bytes], None]) -> tuple[str, ...]:
        """Leave the files that the plan's paths name, or the numbers of the paths that name none;
        those paths. `put` writes a small file.
        """
        made = self._files or {_WILD.sub("x", path): _SIZE for path in self._plan.paths}
        matches = {path: fnmatch.filter(made, path) for path in self._plan.paths}
        found = tuple(dict.fromkeys(path for matched in matches.values() for path in matched))
        missing = [number for number, path in enumerate(self._plan.paths) if not matches[path]]
        put("unmatched", "".join(f"{number}\n" for number in missing).encode())
        if not missing:
            (self._out / "results").mkdir()
            for number, path in enumerate(found):
                self._fill(self._out / "results" / str(number), made[path])
            put("names", format_names([PurePosixPath(path).name.encode() for path in found]))
        return tuple(self._plan.paths[number] for number in missing)

    # The stream

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """What is written meanwhile is the result. Raises BrokenPipeError where who read it is
        gone.
        """
        (self._out / "stream").touch()
        self._stream = self._reader() if self._plan.pipe else self._file()
        try:
            yield
        finally:
            os.close(self._stream)
            self._stream = -1

    def write(self, data: bytes) -> bool:
        """To the stream, if there is one now."""
        if self._stream < 0:
            return False
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._stream, left) :]
            except BlockingIOError:
                self._pause(0)
                select.select((), (self._stream,), (), _LOOK)
        return True

    def _file(self) -> int:
        return os.open(self._out / "stream", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _reader(self) -> int:
        """The FIFO's writing end, as soon as somebody reads."""
        while True:
            try:
                return os.open(
                    self._folders[IN] / "stream", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                self._pause(_LOOK)

    def pieces(self, count: int) -> Iterator[bytes]:
        """Random bytes, drawn from a random key: os.urandom is many times slower."""
        key = secrets.token_bytes(32)
        for start in range(0, count, _PIECE):
            self._pause(0)
            source = hashlib.shake_128(key + start.to_bytes(8, "big"))
            yield source.digest(min(_PIECE, count - start))

    def _fill(self, path: Path, count: int) -> None:
        with path.open("wb", buffering=0) as file:
            for piece in self.pieces(count):
                file.write(piece)

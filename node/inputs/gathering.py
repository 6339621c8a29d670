"""Gathers the files that a build needs from elsewhere, before anything of it is started: what it
finds under /inbox/, what its Dockerfile can copy, what its base is made of.

They lie in a folder of the attempt's own, of which containers see `inbox/`, read-only.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from node.config import NodeSettings
from node.engines.base import Mount
from node.engines.errors import Interrupt
from node.files import untrusted
from node.files.workfolder import remove_folder
from node.inputs.fetch import fetch_file
from protocol.errors import Unavailable
from protocol.model.networks import reach
from protocol.model.recipe import BuiltBase, Content, FetchedContent, InputFile, TextContent
from protocol.storage.blob_folder import BlobFolder

INBOX = "/inbox"
_PIECE = 1 << 20

T = TypeVar("T")


class InputFolder:
    """The folder of one attempt's inputs. Every method may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def inbox(self) -> Path:
        """What containers see."""
        return self.root / "inbox"

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What the container has to see: nothing where the build has no inputs."""
        return (Mount(self.inbox.absolute(), INBOX, read_only=True),) if self.inbox.is_dir() else ()

    def begin(self) -> None:
        """Make it; what an earlier life left there is replaced."""
        self.remove()
        self.root.mkdir(mode=0o700, parents=True)

    def usage(self) -> int:
        """Bytes of what is in it."""
        try:
            with untrusted.opened(self.root) as folder:
                return untrusted.usage(folder)
        except OSError:
            return 0

    def remove(self) -> None:
        """Delete it, when no container sees it any more. Raises OSError."""
        remove_folder(self.root)


class Gathering:
    """Brings files into an attempt's folder. What the user is to mend is FetchFailed, what another
    node may have is Unavailable.
    """

    def __init__(
        self,
        folder: InputFolder,
        blobs: BlobFolder,
        settings: NodeSettings,
        say: Callable[[str], None],
        interrupt: Interrupt,
    ) -> None:
        """`say` is given lines for the log."""
        self._folder = folder
        self._blobs = blobs
        self._settings = settings
        self._say = say
        self._interrupt = interrupt

    async def inputs(self, files: tuple[InputFile, ...]) -> None:
        """What the build finds under /inbox/. Raises FetchFailed, Unavailable, OSError."""
        if files:
            await self.files(files, self._folder.inbox)

    async def disk(self, content: Content, name: str) -> None:
        """A disk that the build finds under /inbox/. Raises as `inputs` does."""
        file = InputFile(name, content)
        await self.files((file,), self._folder.inbox)

    async def files(self, files: tuple[InputFile, ...], home: Path) -> None:
        """All of them, by their names below `home`. Raises as `inputs` does."""
        for file in files:
            target = home.joinpath(*file.name.split("/"))
            await self._placed(file.content, target, home, 0o755 if file.executable else 0o644)

    async def file(self, content: Content | BuiltBase, name: str) -> Path:
        """One file beside the inbox. Raises as `inputs` does."""
        target = self._folder.root / name
        await self._placed(content, target, self._folder.root, 0o644)
        return target

    async def _placed(
        self, content: Content | BuiltBase, target: Path, home: Path, mode: int
    ) -> None:
        await in_thread(self._interrupt, _make_folders, target.parent, home, self._folder.root)
        if isinstance(content, FetchedContent):
            await self._fetched(content, target)
        else:
            await in_thread(self._interrupt, self._written, content, target, mode)
        target.chmod(mode)  # whatever the umask is: the container's root may be another user

    async def _fetched(self, content: FetchedContent, target: Path) -> None:
        await fetch_file(
            content.url,
            target,
            allowed=reach(self._settings.fetch_networks, "fetch_networks"),
            limit=self._settings.download_limit,
            seconds=self._settings.download_timeout,
            sha256=content.sha256,
            say=self._say,
        )

    def _written(self, content: Content | BuiltBase, target: Path, mode: int) -> None:
        if isinstance(content, TextContent):
            target.write_bytes(content.text.encode("utf-8", "surrogatepass"))
            return
        assert not isinstance(content, FetchedContent)
        blob = self._blobs.path(content.sha256) if content.sha256 else None
        if blob is None:
            raise Unavailable(f"the bytes {content.sha256 or content} are not on this node")
        if blob.stat().st_mode & 0o777 == mode:
            try:
                os.link(blob, target)  # the mount is read-only
            except OSError:
                self._copy(blob, target)
        else:
            self._copy(blob, target)

    def _copy(self, source: Path, target: Path) -> None:
        # Not unbuffered: that writes short on a full disk, and says nothing.
        with source.open("rb", buffering=0) as reader, target.open("wb") as writer:
            while piece := reader.read(_PIECE):
                self._interrupt.check()
                writer.write(piece)
        shutil.copymode(source, target)


async def in_thread(
    interrupt: Interrupt,
    work: Callable[..., T],
    *arguments: object,
    pool: Executor | None = None,
) -> T:
    """The work's value. Cancelled, it interrupts the work and waits for its end: nothing writes to
    the attempt's folders any more when they are removed.
    """
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(pool, lambda: work(*arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        interrupt.set()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()
        raise


def _make_folders(folder: Path, home: Path, root: Path) -> None:
    """All between root and folder, such that any user can look into them."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(home)]
    for path in reversed(missing):
        if path != root and not path.is_dir():
            path.mkdir()
            path.chmod(0o755)

"""Provides the image that a build's container is of, from whichever base the build has; and makes
an artifact of it where that is what the build is for.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from node.container import BUILD_IMAGE, Place, image_of, labels, limits
from node.core import dockerfile
from node.engines.base import ContextFile, ImageSpec, Login
from node.engines.errors import ImageFailed, Interrupt
from node.files.logs import ServedLog
from node.inputs.gathering import Gathering, in_thread
from node.inputs.provisions import Provisions
from protocol.errors import PoolError
from protocol.model.build import Artifact, Build, CommandStatus, built_image
from protocol.model.checks import check_image
from protocol.model.recipe import (
    BuiltBase,
    Content,
    DockerfileBase,
    DownloadBase,
    ImageBase,
    ImageOutput,
)

T = TypeVar("T")


class ImageWork:
    """Of one attempt. `note` is told how far the added step is."""

    def __init__(
        self,
        place: Place,
        build: Build,
        provisions: Provisions,
        log: ServedLog,
        interrupt: Interrupt,
        note: Callable[[CommandStatus], None],
    ) -> None:
        self._place = place
        self._engine = place.engine
        self._build = build
        self._provisions = provisions
        self._log = log
        self._interrupt = interrupt
        self._note = note
        self._image = image_of(place, build)
        self._labels = labels(place.node.id, build.id, build.attempt)

    async def provide(self, gathering: Gathering) -> None:
        """Make sure that the image is on the engine. Raises EngineError, FetchFailed, PoolError,
        OSError.
        """
        match self._build.request.recipe.base:
            case ImageBase() as base:
                await self._obtain(base)
            case DockerfileBase() as base:
                await self._build_image(base, gathering)
            case DownloadBase(format="rootfs") as base:
                await self._import(await gathering.file(base.content, "base"))
            case DownloadBase() as base:
                await gathering.disk(base.content, base.name)
                await self._obtain(ImageBase())
            case BuiltBase() as base:
                await self._load(base, gathering)

    async def artifact(self) -> Artifact:
        """The image as the build's output wants it. Raises EngineError, OSError."""
        output = self._build.request.recipe.output
        assert isinstance(output, ImageOutput)
        place, build = self._place, self._build.id
        take = place.artifacts.take
        made = await self._long(take, build, self._write, self._interrupt, output.name)
        if output.format == "docker":
            name = built_image(build, made.sha256)
            await self._long(self._engine.name_image, self._image, name)
            await place.used_image(name, True)
        return made

    def _write(self, target: Path) -> int:
        """Whole or not at all; its size."""
        output = self._build.request.recipe.output
        part = target.with_name(f"{target.name}.making")
        if isinstance(output, ImageOutput) and output.format == "rootfs":
            self._engine.export(self._image, part, self._labels, self._interrupt)
        else:
            self._engine.save(self._image, part, self._interrupt)
        return part.rename(target).stat().st_size

    async def _obtain(self, base: ImageBase) -> None:
        pulled = threading.Event()

        def say(line: str) -> None:
            pulled.set()
            self._log.say(line)

        login = self._login(base.credentials) if base.credentials is not None else None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(
            self._place.long, self._engine.obtain, self._image, say, base.pull, login
        )
        await self._place.used_image(self._image, pulled.is_set())

    def _login(self, name: str) -> Login:
        user, _, password = self._provisions.secret(name).rstrip("\r\n").partition(":")
        return Login(user, password)

    async def _build_image(self, base: DockerfileBase, gathering: Gathering) -> None:
        """The step is the build's own: what it prints is in the log, and its code is known."""
        spec = await self._spec(base, gathering)
        await asyncio.to_thread(check_dockerfile, spec.dockerfile, self._place.settings.images)
        if spec.limits.network:
            await asyncio.to_thread(self._place.outlet.hold)
        step = CommandStatus(BUILD_IMAGE, start=self._log.size, added=True)
        self._note(step)
        code = 1
        try:
            output = _Output(self._log, self._provisions.mask.whole, self._place.settings.log_limit)
            await self._long(self._engine.build, spec, output, self._interrupt)
            code = 0
        except ImageFailed as error:
            code = error.code
            self._log.say(str(error))
            raise
        finally:
            self._note(replace(step, end=self._log.size, exit_code=code))
        await self._place.used_image(self._image, True)

    async def _spec(self, base: DockerfileBase, gathering: Gathering) -> ImageSpec:
        folder = self._provisions.inputs.root / "context"
        await gathering.files(base.context, folder)
        return ImageSpec(
            image=self._image,
            dockerfile=await _file(gathering, base.dockerfile, "Dockerfile"),
            archive=await _file(gathering, base.archive, "archive"),
            path=base.path,
            context=tuple(
                ContextFile(file.name, folder / file.name, file.executable) for file in base.context
            ),
            labels=self._labels,
            limits=limits(
                self._build.request.guidance.needs, self._place.settings, self._place.outlet.bridge
            ),
            made=self._build.created,
            no_cache=base.no_cache,
            pull=base.pull,
        )

    async def _import(self, file: Path) -> None:
        self._log.say("importing the file system")
        await self._long(
            self._engine.import_rootfs, file, self._image, self._labels, self._interrupt
        )
        await self._place.used_image(self._image, True)
        file.unlink()

    async def _load(self, base: BuiltBase, gathering: Gathering) -> None:
        """An image that is here under the name of the very bytes needs no loading."""
        if self._image not in await asyncio.to_thread(self._engine.images):
            file = await gathering.file(base, "base")
            self._log.say(f"loading the image of build {base.build}")
            if await asyncio.to_thread(self._engine.is_saved, file):
                await self._long(self._engine.load, file, self._image, self._interrupt)
            else:
                await self._import(file)
        await self._place.used_image(self._image, True)

    async def _long(self, work: Callable[..., T], *arguments: object) -> T:
        return await in_thread(self._interrupt, work, *arguments, pool=self._place.long)


def check_dockerfile(file: Path | None, patterns: tuple[str, ...]) -> None:
    """Raises ImageFailed where a Dockerfile takes an image that the operator's patterns do not
    allow, or where that cannot be told; None: it is in an archive.
    """
    if "*" in patterns:
        return
    hint = f"; allowed are images with a name like one of: {', '.join(patterns) or 'none'}"
    if file is None:
        raise ImageFailed("its Dockerfile is in an archive, where its images are not seen" + hint)
    try:
        for name in dockerfile.images(file.read_text("utf-8")):
            check_image(name, patterns, "FROM")
    except (UnicodeDecodeError, dockerfile.Unclear) as error:
        raise ImageFailed(f"{error}{hint}") from error
    except PoolError as error:
        raise ImageFailed(f"{error.detail}{hint}") from error


async def _file(gathering: Gathering, content: Content | None, name: str) -> Path | None:
    return None if content is None else await gathering.file(content, name)


class _Output:
    """The log, as steps of a Dockerfile write to it: no further than the limit."""

    def __init__(self, log: ServedLog, mask: Callable[[bytes], bytes], limit: int) -> None:
        self._log = log
        self._mask = mask
        self._limit = limit
        self._full = False

    def __call__(self, data: bytes) -> None:
        room = max(0, self._limit - self._log.size)
        if not self._full:
            self._log.append(self._mask(data)[:room])
        if len(data) > room and not self._full:
            self._full = True
            self._log.say(f"the log has reached its limit of {self._limit} bytes")

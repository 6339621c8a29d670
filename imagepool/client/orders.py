"""What may be submitted, made into an order: typed values, or plain ones as a file has them."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from protocol import wire
from protocol.api.image_creator.specification import Specification, to_request
from protocol.errors import Invalid
from protocol.model.recipe import InputFile, Recipe, TextContent
from protocol.model.request import BuildRequest, Order, Secrets

Wanted: TypeAlias = Order | BuildRequest | Recipe | Mapping[str, Any]
"""What may be submitted. A mapping is what a build file has: with `recipe` an order of the native
API, else a specification of the image-creator API.
"""

INLINE = 64 << 10
"""Bytes up to which a text goes with the request itself."""
_PIECE = 1 << 20


def order_of(wanted: Wanted, secrets: Secrets | None = None) -> Order:
    """The order, with these secrets beside its own. Raises Invalid, naming the field, also for what
    is nothing of the kind.
    """
    match wanted:
        case Order():
            order = wanted
        case BuildRequest():
            order = Order(wanted.recipe, wanted.guidance)
            _require_values(wanted, secrets or {})
        case Recipe():
            order = Order(wanted)
        case Mapping():
            order = _order_of_plain(dict(wanted))
        case _:
            raise Invalid(
                f"what is to be built is {type(wanted).__name__}",
                field="wanted",
                expected="an Order, a BuildRequest, a Recipe, or a mapping as a file has it",
            )
    return msgspec.structs.replace(order, secrets={**order.secrets, **(secrets or {})})


def text_of(source: Path | bytes) -> TextContent | None:
    """The content itself, where it is a text and small enough to go with the request."""
    data = source if isinstance(source, bytes) else _beginning(source)
    if len(data) > INLINE:
        return None
    with contextlib.suppress(UnicodeDecodeError):
        return TextContent(data.decode())
    return None


def digest_of(source: Path | bytes) -> tuple[str, int]:
    """SHA-256 and size in bytes."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest(), len(source)
    with _opened(source) as file, _readable(source):
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def with_inputs(order: Order, files: tuple[InputFile, ...]) -> Order:
    """The order with these inputs after its own."""
    recipe = msgspec.structs.replace(order.recipe, inputs=(*order.recipe.inputs, *files))
    return msgspec.structs.replace(order, recipe=recipe)


def stand_ins(files: Mapping[str, Path | bytes]) -> tuple[InputFile, ...]:
    """Inputs of a request that is only looked at. Raises Invalid for a file that cannot be
    read.
    """
    return tuple(
        InputFile(name, text_of(source) or TextContent("")) for name, source in files.items()
    )


def is_program(source: Path | bytes) -> bool:
    """Whether the file may be executed here, and so is to be in the build."""
    return isinstance(source, Path) and os.access(source, os.X_OK)


class SourceStream:
    """A local file, or bytes, as a byte stream of this size. Raises Invalid where the file cannot
    be read, or has another size by now.
    """

    def __init__(self, source: Path | bytes, size: int) -> None:
        self._source = source
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._source, bytes):
            yield self._source
            return
        sent = 0
        async with _in_a_thread(self._source) as file:
            while piece := await asyncio.to_thread(_read, file, _PIECE):
                sent += len(piece)
                if sent > self._size:
                    break
                yield piece
        if sent != self._size:
            raise Invalid(
                f"{self._source} changed while it was sent",
                field="inputs",
                expected=f"{self._size} bytes, as when it was begun",
            )

    async def close(self) -> None:
        """Nothing is open beyond the iteration."""


def _order_of_plain(plain: dict[str, Any]) -> Order:
    if "recipe" in plain or "commands" not in plain:
        return wire.convert(plain, Order)
    specification = wire.convert({"redirect": "", **plain}, Specification)
    request = to_request(specification, ("*",))
    return Order(request.recipe, request.guidance)


def _require_values(request: BuildRequest, secrets: Secrets) -> None:
    for name in request.secrets:
        if name not in secrets:
            raise Invalid(
                f"the value of the secret {name!r} is missing",
                field=f"secrets.{name}",
                expected="a value for each secret that the request names",
            )


def _beginning(path: Path) -> bytes:
    with _opened(path) as file:
        return _read(file, INLINE + 1)


def _opened(path: Path) -> BufferedReader:
    with _readable(path):
        return path.open("rb")


@asynccontextmanager
async def _in_a_thread(path: Path) -> AsyncIterator[BufferedReader]:
    """The file, opened; a disk that is slow to answer is not waited for by the event loop."""
    file = await asyncio.to_thread(_opened, path)
    try:
        yield file
    finally:
        file.close()


def _read(file: BufferedReader, size: int) -> bytes:
    with _readable(file.name):
        return file.read(size)


@contextlib.contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    """What goes wrong with a local file is no fault of the pool's. Raises Invalid."""
    try:
        yield
    except OSError as error:
        raise Invalid(
            f"{path}: {error.strerror}", field="inputs", expected="a readable file"
        ) from error

"""A create as `multipart/form-data`: the order and the files that it needs in one request. The
files are passed on while they arrive.

Parts: `build`, the order as JSON; any number of `inputs`, whose file names are names under
`/inbox/`; any number of `context` and one `dockerfile`, for a base of kind `dockerfile`.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from protocol import wire
from protocol.api.base import Handler
from protocol.api.native.blobs import Uploading
from protocol.api.reading import DRAIN
from protocol.errors import Invalid, PoolError, TooLarge
from protocol.model.recipe import InputFile, UploadedContent
from protocol.model.request import Order

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients are told

FORM_DATA = "multipart/form-data"
_PARTS = 2050  # as many files as a recipe may have, and the order
_FILES = ("inputs", "context", "dockerfile")
_Event = tuple[str, bytes]


class Form:
    """The parts of one request as they arrive."""

    def __init__(self, handler: Handler, boundary: bytes) -> None:
        self.order = bytearray()
        self.files: dict[str, list[tuple[str, str]]] = {name: [] for name in _FILES}
        self._handler = handler
        self._events: list[_Event] = []
        self._header: list[bytes] = [b"", b""]  # name and value of the one that arrives
        self._part, self._file_name = "", ""
        self._parts = 0
        self._uploading: Uploading | None = None
        self._ended = False
        self._parser = MultipartParser(boundary, self._callbacks())

    def _callbacks(self) -> "MultipartCallbacks":
        note = self._events.append
        return {
            "on_part_begin": lambda: note(("begin", b"")),
            "on_header_field": lambda data, start, end: note(("field", data[start:end])),
            "on_header_value": lambda data, start, end: note(("value", data[start:end])),
            "on_header_end": lambda: note(("header", b"")),
            "on_headers_finished": lambda: note(("headers", b"")),
            "on_part_data": lambda data, start, end: note(("data", data[start:end])),
            "on_part_end": lambda: note(("end", b"")),
            "on_end": lambda: note(("over", b"")),
        }

    async def take(self, chunk: bytes) -> None:
        """A piece of the body. Raises Invalid, and what `Blobs.upload` does."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(str(error)) from error
        events, self._events[:] = tuple(self._events), ()
        for event, data in events:
            await self._on(event, data)

    def check_whole(self) -> None:
        """Raises Invalid where the last part has no end."""
        if not self._ended:
            raise _unreadable("its last part has no end")

    async def break_off(self) -> None:
        """There is no more; what is under way is dropped."""
        if self._uploading is not None:
            await self._uploading.break_off()

    async def _on(self, event: str, data: bytes) -> None:
        match event:
            case "begin":
                self._begin()
            case "field":
                self._header[0] += data
            case "value":
                self._header[1] += data
            case "header":
                self._take_header()
            case "headers":
                self._open()
            case "data":
                await self._take_data(data)
            case "end" if self._uploading is not None:
                uploading, self._uploading = self._uploading, None
                self.files[self._part].append((self._file_name, await uploading.end()))
            case "over":
                self._ended = True

    def _begin(self) -> None:
        self._part, self._file_name = "", ""
        self._parts += 1
        if self._parts > _PARTS:
            raise Invalid("the body has too many parts", field="body", expected=f"up to {_PARTS}")

    def _take_header(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value)
            try:
                self._part = options.get(b"name", b"").decode()
                self._file_name = options.get(b"filename", b"").decode()
            except UnicodeDecodeError as error:
                raise Invalid(
                    "a part's name is not UTF-8", field="body", expected="UTF-8"
                ) from error

    def _open(self) -> None:
        """All is known of a part but its bytes."""
        if self._part == "build":
            return
        if self._part not in _FILES:
            raise Invalid(
                f"there is a part {self._part[:80]!r}",
                field="body",
                expected="parts with the names build, inputs, context and dockerfile",
            )
        if self._part == "dockerfile" and self.files["dockerfile"]:
            raise Invalid("the part dockerfile is there twice", field="dockerfile", expected="one")
        blobs = self._handler.context.extras["blobs"]
        self._uploading = Uploading(blobs, self._handler.caller)

    async def _take_data(self, data: bytes) -> None:
        if self._uploading is not None:
            await self._uploading.put(data)
            return
        limit = self._handler.limits.body_limit
        if len(self.order) + len(data) > limit:
            raise TooLarge(
                f"the part build is over {limit} bytes", field="build", expected="less of it"
            )
        self.order += data


class Multipart(Handler):
    """A handler that takes an order as it is, or as a form with the files that belong to it."""

    def setup(self, **options: Any) -> None:
        """Nothing has arrived."""
        super().setup(**options)
        self._form: Form | None = None
        self._refusal: PoolError | None = None
        self._breaking: asyncio.Task[None] | None = None

    def bound(self) -> int:
        """Files have a limit of their own."""
        if self.media_type() == FORM_DATA:
            return self.limits.upload_limit + DRAIN
        return super().bound()

    def prepare(self) -> None:
        """See whether a form arrives."""
        super().prepare()
        if self.request.method == "POST" and self.media_type() == FORM_DATA:
            _, options = parse_options_header(self.request.headers["Content-Type"])
            try:
                self._form = Form(self, options.get(b"boundary", b""))
            except FormParserError as error:
                raise _unreadable(str(error)) from error

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        """Called for each piece of the body; what follows an error is read and dropped."""
        if self._form is None:
            super().data_received(chunk)
            return
        if self._refusal is None:
            try:
                await self._form.take(chunk)
            except PoolError as error:
                self._refusal = error
                await self._form.break_off()

    def on_connection_close(self) -> None:
        """What has arrived is dropped."""
        super().on_connection_close()
        if self._form is not None:
            self._breaking = asyncio.ensure_future(self._form.break_off())

    def order(self) -> Order:
        """The order, with the files that came along as uploads. Raises Invalid."""
        if self._form is None:
            return self.decoded(Order)
        if self._refusal is not None:
            raise self._refusal
        self._form.check_whole()
        if not self._form.order:
            raise Invalid(
                "there is no part build, or nothing in it", field="build", expected="an order, JSON"
            )
        try:
            plain = self.read(bytes(self._form.order), dict[str, Any])
        except Invalid as error:
            detail = error.detail.replace("the body", "the part build", 1)
            raise Invalid(detail, field="build", expected=error.expected) from error
        return wire.convert(_with_files(plain, self._form.files), Order)


def _with_files(plain: dict[str, Any], files: dict[str, list[tuple[str, str]]]) -> dict[str, Any]:
    """The order with the files behind those that it names itself. Raises Invalid."""
    recipe = dict(_map(plain.get("recipe", {}), "recipe"))
    base = dict(_map(recipe.get("base", {"kind": "dockerfile"}), "recipe.base"))
    for name in ("dockerfile", "context"):
        if files[name] and base.get("kind") != "dockerfile":
            raise Invalid(
                f"there is a part {name}", field=name, expected="a base of kind dockerfile for it"
            )
    if files["dockerfile"]:
        base["dockerfile"] = msgspec.to_builtins(UploadedContent(files["dockerfile"][0][1]))
        recipe["base"] = base
    if files["context"]:
        base["context"] = _longer(base.get("context", []), files["context"], "recipe.base.context")
        recipe["base"] = base
    if files["inputs"]:
        recipe["inputs"] = _longer(recipe.get("inputs", []), files["inputs"], "recipe.inputs")
    return {**plain, "recipe": recipe}


def _longer(named: Any, files: list[tuple[str, str]], field: str) -> list[Any]:
    if not isinstance(named, list):
        raise Invalid(f"{field} is no list", field=field, expected="a list of files")
    for index, (name, _) in enumerate(files, len(named)):
        if not name:
            where = f"{field}[{index}].name"
            raise Invalid("a file came without a name", field=where, expected="a file name")
    came = (InputFile(name, UploadedContent(digest)) for name, digest in files)
    return [*named, *(msgspec.to_builtins(file) for file in came)]


def _map(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{field} is no object", field=field, expected="an object")
    return value


def _unreadable(why: str) -> Invalid:
    return Invalid(
        f"the body is no {FORM_DATA}: {why[:200]}",
        field="body",
        expected=f"{FORM_DATA} with a boundary",
    )

"""The zip that `GET /source` answers: the programs' own files, and nothing that an operator put
beside them.
"""

import asyncio
import io
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGES = ("imagepool", "protocol", "node", "scheduler", "config")
_SUFFIXES = (".py", ".sh", ".html", ".css", ".js", ".svg", ".md", ".typed")
_EXAMPLES = ("node.toml", "scheduler.toml")
_RECIPE = "config/base-image"  # everything in there is the recipe
_SECRET = (".pem", ".key", ".crt", ".token")
_TIME = (1980, 1, 1, 0, 0, 0)  # the same source gives the same zip


async def source() -> bytes:
    """The zip's bytes."""
    return await asyncio.to_thread(source_zip)


def source_zip() -> bytes:
    """Every file of our packages that is source by its name; settings are only the shipped
    examples.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in PACKAGES:
            for path, file in sorted(_files(resources.files(package), package)):
                archive.writestr(zipfile.ZipInfo(path, _TIME), file.read_bytes())
    return buffer.getvalue()


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            if not entry.name.startswith((".", "__pycache__")):
                yield from _files(entry, name)
        elif _is_source(path, entry.name):
            yield name, entry


def _is_source(folder: str, name: str) -> bool:
    if name.startswith(".") or name.endswith(_SECRET):
        return False
    example = folder == "config" and name in _EXAMPLES
    return name.endswith(_SUFFIXES) or example or folder.startswith(_RECIPE)

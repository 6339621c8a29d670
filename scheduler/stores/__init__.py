"""Where the scheduler keeps its builds: by URL.

`sqlite:///var/lib/imagepool/scheduler.db` is a file; nothing at all is the file `scheduler.db` in
the data folder; `memory:` keeps nothing.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from protocol.errors import Invalid
from scheduler.stores.base import Store
from scheduler.stores.memory import MemoryStore
from scheduler.stores.sqlite import FILE, SqliteStore


def open_store(url: str, folder: Path) -> Store:
    """The store of this URL; blocking. `folder`: the data folder. Raises Invalid where there is no
    such kind of store, Conflict where it is not ours or damaged, Unavailable.
    """
    if not url:
        return SqliteStore(folder / FILE)
    opener = OPENERS.get(url.partition(":")[0])
    if opener is None:
        raise _invalid(url)
    return opener(url)


def _sqlite(url: str) -> Store:
    path = unquote(url.removeprefix("sqlite://"))
    if not path.startswith("/") or path.endswith("/") or "?" in url or "#" in url or "\0" in path:
        raise _invalid(url)
    return SqliteStore(Path(path))


def _memory(url: str) -> Store:
    if url != "memory:":
        raise _invalid(url)
    return MemoryStore()


OPENERS: dict[str, Callable[[str], Store]] = {"sqlite": _sqlite, "memory": _memory}
"""Scheme of a URL -> what opens such a store."""


def _invalid(url: str) -> Invalid:
    return Invalid(
        f"there is no store {url[:128]!r}",
        field="store",
        expected="nothing, sqlite:///ABSOLUTE/PATH, or memory:",
    )

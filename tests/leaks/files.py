"""What must not be in the files that programs leave in the folders of tests.

Databases, with their journals, and what programs note beside them: of secrets of people and
programs they have digests only. A scheduler's and a node's own databases keep the secrets of builds
until these have stopped, and the files of the authority are what it is made of.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.leaks.search import Leak, Needles, Secret

_ENDINGS = (".db", ".db-wal", ".db-journal", ".log")
_PEOPLE = ("access.db", "audit.db")
_LARGEST = 32 << 20  # bytes; larger ones are of tests of many builds, which have no secrets


def leaks_below(folder: Path, secrets: Iterable[Secret]) -> list[Leak]:
    """Every secret that a file there has, once for each file; the test is the folder's."""
    every = tuple(secrets)
    of_people = Needles(every)
    of_programs = Needles(secret for secret in every if "build secret" not in secret.what)
    found: dict[Leak, None] = {}
    for path in _files(folder):
        needles = of_people if path.name.startswith(_PEOPLE) else of_programs
        place = path.relative_to(folder)
        for _, secret in needles.within(path.read_bytes()):
            found[Leak(secret, str(place), place.parts[0])] = None
    return list(found)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        ours = path.name.endswith(_ENDINGS) and path.is_file() and not path.is_symlink()
        if ours and path.stat().st_size <= _LARGEST:
            yield path

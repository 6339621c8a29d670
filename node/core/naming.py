"""What artifacts are called whose files had any name."""

import re
from collections.abc import Iterable

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 128  # characters, as `protocol.model.recipe.FileName` has it
_NAMELESS = "file"


def artifact_names(names: Iterable[str]) -> tuple[str, ...]:
    """For each name one that is fit for a `FileName` and that no other has: `a b.iso` becomes
    `a_b.iso`, a second `a.iso` becomes `a-1.iso`.
    """
    taken: set[str] = set()
    chosen = []
    for name in names:
        fit = _fit(name)
        number = 0
        while (unique := _numbered(fit, number)) in taken:
            number += 1
        taken.add(unique)
        chosen.append(unique)
    return tuple(chosen)


def _fit(name: str) -> str:
    return _UNFIT.sub("_", name).lstrip("._-")[:_LONGEST] or _NAMELESS


def _numbered(name: str, number: int) -> str:
    """With the number before what the name ends in, as `.tar.gz`; 0 stands for none."""
    if not number:
        return name
    stem, dot, ending = name.partition(".")
    added = f"-{number}"
    room = _LONGEST - len(added) - len(dot + ending)
    if room < 1:  # it is nearly all ending
        return name[: _LONGEST - len(added)] + added
    return stem[:room] + added + dot + ending

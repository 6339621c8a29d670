"""What nodes with the dummy engine played, read from their engines' journals: the counts that no
program of the pool has a say in.

An engine without containers dies with its node. Whoever kills a node says so in its journal
(`note_death`), so that what played then is not taken for something that still runs.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.engines.dummy import JOURNAL

_DIED = "died"


class Play(Struct):
    """One container, from its start to wherever its journal leads."""

    node: str  # its data folder
    build: str
    attempt: int
    container: str
    life: int  # of its node: how often that had been killed before
    code: int | None = None  # of its end, where it came to that by itself
    ended: bool = False  # it came to its end by itself
    killed: bool = False
    removed: bool = False
    died: bool = False  # with its node, while it was there

    @property
    def left(self) -> bool:
        """Whether it is still there."""
        return not (self.removed or self.died)


def plays(*folders: Path) -> list[Play]:
    """All that the nodes with these data folders played, in the order of each journal."""
    return [play for folder in folders for play in _plays_of(folder)]


def note_death(folder: Path) -> None:
    """The node with this data folder was killed; to be called while it is dead."""
    with (folder / JOURNAL).open("a") as file:
        file.write(json.dumps({"event": _DIED}) + "\n")


def starts(played: Iterable[Play]) -> Counter[str]:
    """How often each build was started."""
    return Counter(play.build for play in played)


def ends(played: Iterable[Play]) -> Counter[str]:
    """How often each build came to its end."""
    return Counter(play.build for play in played if play.ended)


def _plays_of(folder: Path) -> list[Play]:
    path = folder / JOURNAL
    if not path.exists():
        return []
    found: dict[str, Play] = {}
    life = 0
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if line["event"] == _DIED:
            life += 1
            for play in found.values():
                play.died = play.died or not play.removed
        else:
            _note(found, line, str(folder), life)
    return list(found.values())


def _note(found: dict[str, Play], line: dict[str, Any], node: str, life: int) -> None:
    key = line["container"]
    match line["event"]:
        case "start":
            assert key not in found, f"container {key} started twice"
            found[key] = Play(node, line["build"], line["attempt"], key, life)
        case "end":
            assert not found[key].ended, f"container {key} ended twice"
            found[key].ended, found[key].code = True, line["code"]
        case "kill":
            found[key].killed = True
        case "remove":
            found[key].removed = True

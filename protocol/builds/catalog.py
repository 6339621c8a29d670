"""How builds are found among many: a page of a list costs what it shows, not what there is.

For each word that a query may ask for - a status, a result, an owner, a node, a label - the ids of
the builds that have it are kept in order; a query goes along the shortest of these, and looks at
each build for the rest.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator

from protocol.model.build import Build
from protocol.model.messages import BuildQuery

Word = tuple[str, str]
"""What a build may be asked for by, and its value there."""

Check = Callable[[Build], bool]

_ALL: Word = ("", "")


class Catalog:
    """The ids of all builds, and of those with each word, oldest first."""

    def __init__(self) -> None:
        self._ids: dict[Word, list[str]] = {_ALL: []}

    def change(self, before: Build | None, after: Build | None) -> None:
        """A build is another now; None: it is not there."""
        if before is not None and after is not None and _same(before, after):
            return
        old = set() if before is None else words(before)
        new = set() if after is None else words(after)
        for word in old - new:
            self._remove(word, before.id)  # type: ignore[union-attr]
        for word in new - old:
            insort(self._ids.setdefault(word, []), after.id)  # type: ignore[union-attr]

    def ids(self, query: BuildQuery, cursor: str, *, newest_first: bool) -> Iterator[str]:
        """Ids among which all are that the query asks for, from behind the cursor on. Builds may be
        added and dropped meanwhile.
        """
        ids = min((self._ids.get(word, []) for word in wanted(query)), key=len)
        while True:
            if newest_first:
                place = (bisect_left(ids, cursor) if cursor else len(ids)) - 1
            else:
                place = bisect_right(ids, cursor)
            if not 0 <= place < len(ids):
                return
            cursor = ids[place]
            yield cursor

    def _remove(self, word: Word, id: str) -> None:
        ids = self._ids[word]
        del ids[bisect_left(ids, id)]
        if not ids and word != _ALL:
            del self._ids[word]


def words(build: Build) -> set[Word]:
    """Everything that a build may be asked for by."""
    found = {_ALL, ("status", build.state.value), ("owner", build.owner)}
    if build.result is not None:
        found.add(("result", build.result.value))
    if build.node is not None:
        found |= {("node", build.node.id), ("node", build.node.name)}
    for name, value in build.request.guidance.labels.items():
        found |= {("label", name), ("label", f"{name}={value}")}
    return found


def wanted(query: BuildQuery) -> set[Word]:
    """The words that a build must have for this query."""
    found = {_ALL, *(("label", label) for label in query.labels)}
    if query.status is not None:
        found.add(("status", query.status.value))
    if query.result is not None:
        found.add(("result", query.result.value))
    if query.owner is not None:
        found.add(("owner", query.owner))
    if query.node is not None:
        found.add(("node", query.node))
    return found


def check(query: BuildQuery) -> Check:
    """Whether a build is one that the query asks for."""
    must = wanted(query)
    words_alone = len(must) == 1
    text = query.text.casefold()
    since = query.since if query.since is not None else float("-inf")
    until = query.until if query.until is not None else float("inf")

    def fits(build: Build) -> bool:
        return (
            since <= build.created < until
            and (not query.id or build.id.startswith(query.id) or build.id.endswith(query.id))
            and (words_alone or must <= words(build))
            and (not text or text in build.request.guidance.note.casefold())
        )

    return fits


def _same(before: Build, after: Build) -> bool:
    """Whether it has the same words; what was asked for never changes."""
    return (
        before.stage is after.stage
        and before.node == after.node
        and before.result is after.result
        and before.owner == after.owner
        and before.request is after.request
    )

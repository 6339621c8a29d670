"""Decides whether what requirements.lock names has known weaknesses, by advisories in folders:
those of the Python Packaging Authority's or GitHub's database (OSV, in YAML or JSON), or
safety-db's `insecure.json`, each as it is in its repository. Nothing is asked of any network.

    python setup/advisories.py requirements.lock FOLDER...

Ends with 0 where there are none, 1 where there are, 3 where that cannot be said: there is no
advisory in the folders, or the newest of all is older than OLD.
"""

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

OLD = 90
"""Days after which advisories say nothing of what is released today."""
_DAY = 86400.0


class Advisory(NamedTuple):
    """A known weakness of one package."""

    id: str
    package: str  # its canonical name
    affected: Mapping[str, Any]  # as OSV has it; of safety-db {"specs": [...]}
    date: float  # seconds since the epoch when it was written

    def hits(self, version: str) -> bool:
        """Whether that version has the weakness."""
        found = Version(version)
        ranges = (one["events"] for one in self._ranges)
        listed = version in self.affected.get("versions", ())
        return listed or bool(self._specs(found)) or any(_within(found, one) for one in ranges)

    def mended(self, version: str) -> str:
        """What is known of versions without it, for whoever has that one."""
        events = [event for one in self._ranges for event in one["events"]]
        fixed = [f"mended in {event['fixed']}" for event in events if "fixed" in event]
        ranges = [f"in {spec}" for spec in self._specs(Version(version))]
        return ", ".join(fixed or ranges) or "not mended"

    @property
    def _ranges(self) -> list[Mapping[str, Any]]:
        return [one for one in self.affected.get("ranges", ()) if one["type"] == "ECOSYSTEM"]

    def _specs(self, version: Version) -> list[str]:
        """Of those that safety-db has, the ones that the version is in."""
        specs = self.affected.get("specs", ())
        return [spec for spec in specs if SpecifierSet(spec, prereleases=True).contains(version)]


def locked(text: str) -> dict[str, str]:
    """Package -> version, of a file of requirements."""
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pairs}


def advisories(folder: Path) -> Iterator[Advisory]:
    """All that are in a folder and below. Raises ValueError for a file that is none."""
    for path in sorted(folder.rglob("*")):
        if path.name == "insecure.json":
            yield from _of_safety(json.loads(path.read_text()))
        elif path.suffix in (".yaml", ".yml", ".json") and path.is_file():
            text = path.read_bytes()
            said = json.loads(text) if path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader)
            if isinstance(said, dict) and "affected" in said and "withdrawn" not in said:
                yield from _of_osv(said)


def _of_osv(said: Mapping[str, Any]) -> Iterator[Advisory]:
    date = _seconds(said.get("modified") or said["published"])
    for affected in said["affected"]:
        package = affected.get("package", {})
        if package.get("ecosystem") == "PyPI":
            yield Advisory(said["id"], canonicalize_name(package["name"]), affected, date)


def _of_safety(said: Mapping[str, Any]) -> Iterator[Advisory]:
    date = float(said["$meta"]["timestamp"])
    for name, specs in said.items():
        if name != "$meta":
            yield Advisory("safety-db", canonicalize_name(name), {"specs": specs}, date)


def _seconds(said: str | datetime) -> float:
    """YAML makes a time of what is one; without a zone it is UTC."""
    made = said if isinstance(said, datetime) else datetime.fromisoformat(said)
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()


def _within(version: Version, events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether it is affected, by the events in the order of their versions."""
    inside = False
    for kind, at in sorted(
        ((kind, _version(at)) for event in events for kind, at in event.items()),
        key=lambda pair: pair[1],
    ):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _version(said: object) -> Version:
    text = str(said)
    try:
        return Version("0.dev0" if text == "0" else text)
    except InvalidVersion as error:
        raise ValueError(f"an advisory names the version {text!r}") from error


def main(lock: str, *folders: str, now: float | None = None) -> int:
    """Say what there is; the exit status."""
    packages = locked(Path(lock).read_text())
    found = [advisory for folder in folders for advisory in advisories(Path(folder))]
    if not found or not packages:
        print(f"nothing to compare: {len(found)} advisories, {len(packages)} packages")
        return 3
    ours = [advisory for advisory in found if advisory.package in packages]
    hits = [advisory for advisory in ours if advisory.hits(packages[advisory.package])]
    for hit in hits:
        version = packages[hit.package]
        print(f"{hit.package} {version}: {hit.id}, {hit.mended(version)}")
    newest = max(advisory.date for advisory in found)
    days = ((time.time() if now is None else now) - newest) / _DAY
    day = datetime.fromtimestamp(newest, UTC).date()
    about = len({advisory.package for advisory in ours})
    print(
        f"{len(packages)} packages, {len(hits)} known weaknesses: {len(ours)} advisories about"
        f" {about} of them, the newest of all {len(found)} of {day}"
    )
    if hits:
        return 1
    if days > OLD:
        print(f"that is {days:.0f} days ago: what was found since then is not in it")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

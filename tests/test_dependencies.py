"""docs/dependencies.md says of every package that we depend on why, and of no other; all are in
requirements.lock, in versions that pyproject.toml allows.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.licences import locked

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = {
    "At run time": PROJECT["dependencies"],
    "For tests": PROJECT["optional-dependencies"]["test"],
    "For development": PROJECT["optional-dependencies"]["dev"],
}
"""Section of docs/dependencies.md -> what pyproject.toml asks for."""


def explained(section: str) -> list[str]:
    """The packages of a section's table, in its order."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [row.split("|")[1].strip() for row in body.splitlines() if row.startswith("| ")]
    return [canonicalize_name(name) for name in rows[1:] if not re.fullmatch("-+", name)]


@pytest.mark.parametrize("section", ASKED)
def test_every_dependency_is_explained(section) -> None:
    """Once."""
    named = sorted(canonicalize_name(Requirement(text).name) for text in ASKED[section])
    assert sorted(explained(section)) == named


@pytest.mark.parametrize("text", [text for texts in ASKED.values() for text in texts])
def test_every_dependency_is_locked(text) -> None:
    """In a version that is asked for."""
    asked = Requirement(text)
    lock = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{re.escape(canonicalize_name(asked.name))}==(\S+)", lock, re.MULTILINE)
    assert found, asked.name
    assert asked.specifier.contains(found[1], prereleases=True)


def test_every_package_of_the_lock_is_asked_for_by_somebody() -> None:
    """By us or by another one: its comment says by whom, and whoever that is is there."""
    lock = (ROOT / "requirements.lock").read_text()
    parts = re.split(r"^(?=[A-Za-z0-9._-]+==)", lock, flags=re.MULTILINE)[1:]
    names = set(locked())
    ours = {canonicalize_name(Requirement(text).name) for texts in ASKED.values() for text in texts}
    for part in parts:
        name = part.partition("==")[0]
        comment = " ".join(re.findall(r"^ +#(.*)$", part, re.MULTILINE))
        askers = set(comment.replace("(pyproject.toml)", "").split()) - {"via"}
        assert askers, name
        assert askers <= names | {"imagepool"}, name
        assert ("imagepool" in askers) is (name in ours), name


def test_every_debian_package_is_explained() -> None:
    """Those that the set-up installs by name."""
    lists = re.findall(r'^packages_\w+="([^"]+)"', (ROOT / "setup/common.sh").read_text(), re.M)
    text = (ROOT / "docs" / "dependencies.md").read_text().partition("## From Debian")[2]
    told = {name for row in re.findall(r"^\| (.+?) \|", text, re.M) for name in row.split(", ")}
    missing = {name for names in lists for name in names.split()} - told
    # Python's own venv; parts that QEMU and every system need.
    assert missing <= {"python3-venv", "seabios", "ipxe-qemu", "procps", "ca-certificates"}

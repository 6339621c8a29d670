"""The licences of all packages that requirements.lock names, as installed: docs/licences.md.

`python -m tests.licences` writes the file; a test compares it.
"""

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "licences.md"
_HEAD = """# Licences of dependencies

Of every package in `requirements.lock`, as it states it itself. Written by
`python -m tests.licences`; a test compares.

| package | licence |
| --- | --- |
"""
_LONG = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "MPL 2.0": "MPL-2.0",
}
_IN_FILE = {"atheris": "Apache-2.0", "libpass": "BSD-3-Clause"}
"""What a package's LICENSE says, where the package itself says nothing, or not which."""


def locked() -> list[str]:
    """Names of the packages in requirements.lock."""
    text = (ROOT / "requirements.lock").read_text()
    return re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)


def stated(package: str) -> str | None:
    """The licence that a package states, by its SPDX name where it can be told; None where it is
    not installed, empty where it states none.
    """
    try:
        said = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return None
    classes = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    text = said.get("License-Expression") or said.get("License") or " AND ".join(classes)
    return _IN_FILE.get(package) or _LONG.get(text, text)


def listed() -> dict[str, str]:
    """Package -> licence, as docs/licences.md has it."""
    text = FILE.read_text().partition("| --- | --- |\n")[2]
    return dict(re.findall(r"^\| (\S+) \| (.+) \|$", text, re.MULTILINE))


def main() -> None:
    """Write docs/licences.md; what is not installed here stays as it was."""
    before = listed() if FILE.exists() else {}
    rows = [(name, stated(name)) for name in locked()]
    lines = [
        f"| {name} | {before.get(name, '') if said is None else said} |\n" for name, said in rows
    ]
    FILE.write_text(_HEAD + "".join(lines))


if __name__ == "__main__":
    main()

"""The kept corpus: for each target a text file of inputs, one in each line as a Python bytes
literal, so that it can be read, compared and merged.
"""

import ast
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
LONGEST = 1500
"""Bytes of an input that is kept."""
MOST = 60
"""Inputs that are kept of a target."""


def load(name: str) -> list[bytes]:
    """The inputs of a target; none where it has no file."""
    file = FOLDER / f"{name}.txt"
    lines = file.read_text("ascii").splitlines() if file.exists() else []
    return [ast.literal_eval(line) for line in lines]


def save(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these, without those that are too long."""
    kept = sorted({data for data in inputs if len(data) <= LONGEST}, key=lambda d: (len(d), d))
    text = "".join(f"{data!r}\n" for data in kept)
    (FOLDER / f"{name}.txt").write_text(text, "ascii")

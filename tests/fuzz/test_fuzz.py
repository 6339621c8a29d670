"""What strangers send never brings out anything but a refusal: kept inputs, and new ones that a
coverage-guided fuzzer makes (`make fuzz SECONDS=...` takes longer and keeps what it learns).
"""

import contextlib
import os
import platform

import pytest

from protocol.errors import PoolError
from tests.fuzz import corpus_file, fuzzing, planted
from tests.fuzz.targets import TARGETS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
"""For each target."""
_guided = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="atheris has wheels for x86_64 only"
)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_once_found_is_refused(name) -> None:
    """Each input of the kept corpus is read or refused; some of each are in it."""
    read = 0
    kept = corpus_file.load(name)
    for data in kept:
        with contextlib.suppress(PoolError):
            TARGETS[name](data)
            read += 1
    assert 0 < read < len(kept)


@_guided
@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_fuzzer_finds_nothing(name) -> None:
    """In some seconds and thousands of inputs, with memory and time for each bounded."""
    found = fuzzing.fuzz(name, SECONDS)
    assert found.crash is None, f"{found.crash!r}\n{found.said[-4000:]}"
    assert found.runs > 500 * min(SECONDS, 2), found.said[-4000:]


@_guided
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds", "sign"),
    [("deep", 120, "IndexError"), ("hungry", 60, "MemoryError"), ("endless", 60, "Timeout")],
)
def test_the_fuzzer_finds_what_is_planted(name, seconds, sign) -> None:
    """A bug behind five bytes that must all be right, one that takes memory as its input says, and
    one that never ends: each with the input that brings it out.
    """
    found = fuzzing.fuzz(name, seconds, module="tests.fuzz.planted")
    assert found.crash is not None, found.said[-4000:]
    assert sign in found.said
    if name == "deep":
        with pytest.raises(IndexError, match="planted"):
            planted.deep(found.crash)


def test_a_corpus_is_text(tmp_path, monkeypatch) -> None:
    """Whatever bytes an input has; the longest are left out."""
    monkeypatch.setattr(corpus_file, "FOLDER", tmp_path)
    inputs = [bytes(range(256)), b"'\"\\\n", b"", bytes(corpus_file.LONGEST + 1)]
    corpus_file.save("x", inputs)
    assert corpus_file.load("x") == sorted(inputs[:3], key=len)
    assert corpus_file.load("y") == []

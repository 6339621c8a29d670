"""Fuzzing one target for some seconds, and what it found; `python -m tests.fuzz.fuzzing SECONDS`
does so with all targets and keeps what leads to new code in the corpus.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec import Struct

from protocol.errors import PoolError
from tests.fuzz import corpus_file

ROOT = Path(__file__).parents[2]
MODULE = "tests.fuzz.targets"
_LONGEST = 4096  # bytes of an input
_PATIENCE = 5  # seconds that one input may take
_MEMORY = 640  # MiB that the process may have in all


class Found(Struct, frozen=True):
    """How fuzzing ended."""

    runs: int  # inputs tried
    crash: bytes | None  # the input that brought out a bug
    said: str  # by the worker


def fuzz(name: str, seconds: float, *, module: str = MODULE, keep: bool = False) -> Found:
    """Fuzz a target, beginning with its corpus. `keep`: write the corpus anew, with what leads to
    code that nothing in it led to before.
    """
    with tempfile.TemporaryDirectory() as scratch:
        seeds, grown = Path(scratch, "seeds"), Path(scratch, "grown")
        seeds.mkdir()
        grown.mkdir()
        for number, data in enumerate(corpus_file.load(name)):
            (seeds / f"{number:03}").write_bytes(data)
        crash = Path(scratch, "crash")
        ran = _worker(
            (module, name, str(grown), str(seeds)),
            f"-max_total_time={max(1, round(seconds))}",
            f"-exact_artifact_path={crash}",
            "-print_final_stats=1",
        )
        words = ran.stdout + ran.stderr
        if ran.returncode:
            return Found(_runs(words), crash.read_bytes() if crash.exists() else None, words)
        if keep:
            _keep(name, grown)
        return Found(_runs(words), None, words)


def _keep(name: str, grown: Path) -> None:
    """Add to the corpus what runs a step, or is refused in a way, that nothing before did."""
    from tests.fuzz.targets import TARGETS

    kept = corpus_file.load(name)
    seen: set[object] = set().union(*(_steps(TARGETS[name], data) for data in kept))
    for data in sorted((file.read_bytes() for file in grown.iterdir()), key=len):
        steps = _steps(TARGETS[name], data)
        if steps - seen:
            kept.append(data)
        seen |= steps
    corpus_file.save(name, kept[: corpus_file.MOST])


def _steps(target: Callable[[bytes], None], data: bytes) -> set[object]:
    """What an input runs: steps from line to line, in our code and in what reads forms."""
    steps: set[object] = set()
    last: dict[int, int] = {}

    def step(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if "/protocol/" not in code.co_filename and "/python_multipart/" not in code.co_filename:
            return None
        steps.add((code, last.get(id(frame), 0), frame.f_lineno))
        last[id(frame)] = frame.f_lineno
        return step

    sys.settrace(step)
    try:
        target(data)
    except PoolError as error:
        steps.add((type(error), error.expected))
    finally:
        sys.settrace(None)
    return steps


def _worker(what: tuple[str, ...], *options: str) -> "subprocess.CompletedProcess[str]":
    limits = (f"-max_len={_LONGEST}", f"-timeout={_PATIENCE}", f"-rss_limit_mb={_MEMORY}")
    module, name, *folders = what
    # By a shell that forks: the peak memory of who is started by us begins with our own.
    forked = ("sh", "-c", '"$@"; exit $?', "sh")
    worker = (sys.executable, "-m", "tests.fuzz.worker", module, name)
    return subprocess.run(
        [*forked, *worker, *options, *limits, *folders],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _runs(words: str) -> int:
    counts = [line.split()[-1] for line in words.splitlines() if "number_of_executed_units" in line]
    return int(counts[-1]) if counts else 0


def main(seconds: float) -> int:
    """Fuzz every target for its share of the time, in seconds; how many have a bug."""
    from tests.fuzz.targets import TARGETS

    bugs = 0
    for name in TARGETS:
        found = fuzz(name, seconds / len(TARGETS), keep=True)
        print(f"{name:16} {found.runs:9} inputs", flush=True)
        if found.crash is not None or not found.runs:
            bugs += 1
            print(f"{found.said[-4000:]}\ninput: {found.crash!r}", flush=True)
    return bugs


if __name__ == "__main__":
    sys.exit(min(main(float(sys.argv[1])), 1))

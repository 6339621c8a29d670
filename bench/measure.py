"""Runs the sides of a measurement in turns, and shows their medians side by side."""

import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct, to_builtins

Sample = dict[str, float]
"""One run of one side: figure -> value."""
Side = Callable[[], Awaitable[Sample]]
Samples = dict[str, list[Sample]]
"""Side -> its runs, in order."""


class Column(Struct, frozen=True):
    """How a figure is shown, as its median; with `ratio` its multiple of the first side's too."""

    figure: str
    title: str
    digits: int = 0
    ratio: bool = False
    mean: bool = False  # for what is counted in steps as large as itself
    spread: bool = False  # the lowest and the highest are shown too


class Outcome(Struct, frozen=True):
    """What a benchmark found out."""

    title: str
    columns: tuple[Column, ...]
    samples: Samples
    notes: tuple[str, ...] = ()  # sentences under the table

    def shown(self) -> str:
        """For people: a table of medians."""
        head = ["", "runs"]
        for column in self.columns:
            head += [column.title] + ["ratio"] * column.ratio
        rows = [head, *(self._row(side) for side in self.samples)]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(["", self.title, "", *lines, "", *self.notes])

    def plain(self) -> dict[str, object]:
        """For programs: every single run."""
        return {"title": self.title, "samples": to_builtins(self.samples), "notes": self.notes}

    def _row(self, side: str) -> list[str]:
        first = next(iter(self.samples))
        row = [side, str(len(self.samples[side]))]
        for column in self.columns:
            value = typical(self.samples, side, column.figure, mean=column.mean)
            base = typical(self.samples, first, column.figure, mean=column.mean)
            shown = "-" if value is None else f"{value:.{column.digits}f}"
            row.append(shown + (_spread(self.samples[side], column) if column.spread else ""))
            if column.ratio:
                row.append(f"{value / base:.2f}" if value is not None and base else "-")
        return row


def _spread(samples: list[Sample], column: Column) -> str:
    values = [sample[column.figure] for sample in samples if column.figure in sample]
    if not values:
        return ""
    low, high = (f"{value:.{column.digits}f}" for value in (min(values), max(values)))
    return f" ({low}-{high})"


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    """The first cell to the left, figures to the right."""
    cells = zip(row, widths, strict=True)
    return [
        cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(cells)
    ]


def typical(samples: Samples, side: str, figure: str, *, mean: bool = False) -> float | None:
    """The median, or the mean; None where this side has no such figure."""
    values = [sample[figure] for sample in samples[side] if figure in sample]
    if not values:
        return None
    return statistics.mean(values) if mean else statistics.median(values)


async def interleaved(sides: Mapping[str, Side], runs: int) -> Samples:
    """Each side once to warm up, then all sides in turns, so that drift hits them alike."""
    samples: Samples = {name: [] for name in sides}
    for turn in range(runs + 1):
        if sys.stderr.isatty():
            print(f"\r{turn}/{runs} ", end="", file=sys.stderr, flush=True)
        for name, side in sides.items():
            sample = await side()
            if turn:
                samples[name].append(sample)
    return samples

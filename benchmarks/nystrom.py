"""What the Nyström approximation saves, against the authors' loop and against one exact matrix product.

    python benchmarks/nystrom.py [--columns 9] [--largest 8192] [--plot FILE.svg]
    python benchmarks/nystrom.py --measured benchmarks/papers/nystrom.md --plot FILE.svg     # draws a printed table

The similarity matrix of n filters of 3x3x64 with random weights: prototypes are made first and not timed. Medians of 5
turns, taken in turns (A B C, C B A, ...), in milliseconds, on one thread.

- loop: the cosine of each pair in a Python double loop with numpy, as in the authors' code, which they compare with;
  above 1024 filters not run;
- exact: all cosines by one matrix product, N N';
- Nyström: `edgeprune.criteria.nystrom.approximate` from the first columns. (The criterion itself takes the exact
  product where there are as many columns as dimensions.)

The error is the largest difference of any cosine from the exact one. Prototypes of 3x3 kernels lie in 9 dimensions, so
that their matrix has rank 9 and 9 independent columns are exact; those of 7x7 kernels in 49.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from edgeprune.criteria import FilterView
from edgeprune.criteria.nystrom import approximate, prototypes

LOOP_UP_TO = 1024
TURNS = 5
HEAD = """\
| kernel | filters | loop, ms | exact, ms | Nyström, ms | exact / Nyström | loop / exact | largest error |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """What one number of filters took, in milliseconds; the loop None where it was not run."""

    side: int
    count: int
    loop: float | None
    exact: float
    nystrom: float
    error: float

    def __str__(self) -> str:
        by_loop = (f"{self.loop:.1f}", f"{self.loop / self.exact:.0f}x") if self.loop else ("not run", "")
        cells = (f"{self.side}x{self.side}", self.count, by_loop[0], f"{self.exact:.3f}", f"{self.nystrom:.3f}")
        more = (f"{self.exact / self.nystrom:.2f}x", by_loop[1], f"{self.error:.1e}")
        return f"| {' | '.join(map(str, (*cells, *more)))} |"

    @classmethod
    def read(cls, line: str) -> Row:
        """The row that was printed."""
        cells = [cell.strip() for cell in line.strip("| \n").split("|")]
        loop = None if cells[2] == "not run" else float(cells[2])
        return cls(int(cells[0][0]), int(cells[1]), loop, float(cells[3]), float(cells[4]), float(cells[7]))


def rows_of(count: int, side: int) -> Tensor:
    """Prototypes of random filters, float64 [count, side * side]."""
    weight = torch.randn(count, 64, side, side, generator=torch.Generator().manual_seed(count))
    return prototypes(FilterView("benchmark", count, (weight,), lambda _: iter(())))


def loop(rows: Tensor) -> np.ndarray:
    """Each pair by itself."""
    vectors = rows.numpy()
    found = np.zeros((len(vectors), len(vectors)))
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            found[i, j] = np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    return found


def timed(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median time of each, in ms, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TURNS):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            begin = perf_counter()
            works[name]()
            taken[name].append(1e3 * (perf_counter() - begin))
    return {name: statistics.median(times) for name, times in taken.items()}


def measured(largest: int, wanted: int) -> Iterator[Row]:
    """Each number of filters, for 3x3 and for 7x7 kernels."""
    torch.set_num_threads(1)
    for side in (3, 7):
        for count in (2**power for power in range(6, largest.bit_length())):
            rows, columns = rows_of(count, side), torch.arange(wanted)
            works: dict[str, Callable[[], object]] = {
                "exact": lambda rows=rows: rows @ rows.T,
                "nystrom": lambda rows=rows, columns=columns: approximate(rows, columns),
            }
            if count <= LOOP_UP_TO:
                works["loop"] = lambda rows=rows: loop(rows)
            times = timed(works)
            error = float((approximate(rows, columns) - rows @ rows.T).abs().max())
            yield Row(side, count, times.get("loop"), times["exact"], times["nystrom"], error)


def plot(rows: list[Row], path: Path) -> None:
    """Time and error against the number of filters, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "edgeprune", "font.size": 9})
    import matplotlib.pyplot as plt

    drawing, (times, errors) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for side, style in ((3, "-"), (7, "--")):
        some = [row for row in rows if row.side == side]
        for name, colour in (("loop", "tab:red"), ("exact", "tab:blue"), ("nystrom", "tab:orange")):
            points = [(row.count, value) for row in some if (value := getattr(row, name)) is not None]
            times.plot(*zip(*points, strict=True), style, color=colour, label=f"{name}, {side}x{side}")
        errors.plot([row.count for row in some], [row.error for row in some], style, color="tab:orange")
        errors.annotate(f"{side}x{side}", (some[-1].count, some[-1].error), fontsize=8)
    times.set(xscale="log", yscale="log", xlabel="filters", ylabel="ms")
    times.legend(fontsize=7, frameon=False)
    errors.set(xscale="log", yscale="log", xlabel="filters", ylabel="largest error of a cosine, 9 columns")
    drawing.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, default=9)
    parser.add_argument("--largest", type=int, default=8192)
    parser.add_argument("--measured", type=Path, help="take the rows of a printed table, and measure nothing")
    parser.add_argument("--plot", type=Path, help="an SVG file (wants matplotlib)")
    options = parser.parse_args()
    if options.measured:
        lines = options.measured.read_text().splitlines()
        rows = [Row.read(line) for line in lines if re.match(r"\| \dx\d", line)]
    else:
        print(HEAD)
        rows = []
        for row in measured(options.largest, options.columns):
            print(row, flush=True)
            rows.append(row)
    if options.plot:
        plot(rows, options.plot)


main()

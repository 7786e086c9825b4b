"""What the Nyström approximation saves, against the authors' loop and against one exact matrix product.

    python benchmarks/nystrom.py [--columns 9] [--largest 8192]

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
import statistics
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from edgeprune.criteria import FilterView
from edgeprune.criteria.nystrom import approximate, prototypes

LOOP_UP_TO = 1024
TURNS = 5


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, default=9)
    parser.add_argument("--largest", type=int, default=8192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| kernel | filters | loop, ms | exact, ms | Nyström, ms | exact / Nyström | loop / exact | largest error |")
    print("|---|---|---|---|---|---|---|---|")
    for side in (3, 7):
        for count in (2**power for power in range(6, options.largest.bit_length())):
            rows, columns = rows_of(count, side), torch.arange(options.columns)
            works: dict[str, Callable[[], object]] = {
                "exact": lambda rows=rows: rows @ rows.T,
                "nystrom": lambda rows=rows, columns=columns: approximate(rows, columns),
            }
            if count <= LOOP_UP_TO:
                works["loop"] = lambda rows=rows: loop(rows)
            times = timed(works)
            error = float((approximate(rows, columns) - rows @ rows.T).abs().max())
            pair, ratio = times.get("loop"), times["exact"] / times["nystrom"]
            by_loop = (f"{pair:.1f}", f"{pair / times['exact']:.0f}x") if pair else ("not run", "")
            cells = (f"{side}x{side}", count, by_loop[0], f"{times['exact']:.3f}", f"{times['nystrom']:.3f}")
            print(f"| {' | '.join(map(str, cells))} | {ratio:.2f}x | {by_loop[1]} | {error:.1e} |", flush=True)


main()

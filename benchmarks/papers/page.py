"""What the tables share: criteria, rows, words, numbers, and drawings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trials import Difference, Results, Trial, difference

YARDSTICKS = ("l1", "l2", "fpgm", "hrank", "random")
CRITERIA = ("qsfm", "ssm", "fscl", "nystrom", "apssf", "reconstruction", *YARDSTICKS)
"""Those of the five papers, our own one, and what they are measured by."""
BOTH_METRICS = ("qsfm", "qsfm metric=ssim", *CRITERIA[1:])
"""The same with QSFM's other measure."""
RECOVERIES = {"none": "nothing", "bn": "norms re-estimated", "reconstruct": "refitted by least squares"}
COMPARED = ("MACs", "parameters", "top-1", "difference to uncut", "paper", "against l1", "verdict")
"""Heads of what `compared` gives."""


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def table_of(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table of Markdown."""
    return [_row(heads), "|---" * len(heads) + "|", *map(_row, rows)]


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def lines_of(title: str, script: str, about: str, table: list[str]) -> str:
    """A page of Markdown with one table, its paragraphs (not its lists and drawings) filled."""
    parts = [part if part.startswith(("- ", "!")) else textwrap.fill(part, 140) for part in about.split("\n\n")]
    return "\n\n".join([f"# {title}", f"    python benchmarks/papers {script}", *parts, "\n".join(table)]) + "\n"


def not_run(results: Results, trials: list[Trial]) -> str:
    """A paragraph that names what is missing; empty where nothing is."""
    missing: dict[str, list[str]] = {}
    for trial in results.missing(trials):
        steps = f", {trial.steps} steps" if trial.steps else ""
        missing.setdefault(f"{trial.network}, {trial.recovery}{steps}, seed {trial.seed}", []).append(trial.name)
    if not missing:
        return ""
    said = (f"{', '.join(dict.fromkeys(names))} ({how})" for how, names in missing.items())
    return f"\n\n**Not run yet**, and done by the same command: {'; '.join(said)}."


def compared(results: Results, trial: Trial, paper: str, *said: str) -> list[str]:
    """A result beside the uncut network, the paper's figure and the yardsticks; `said` opens the verdict."""
    found, rivals = results[trial], () if trial.criterion == "random" else ("l1", "random")
    verdict = [*said, *(words(results, trial, name) for name in rivals)]
    return [
        share(found.macs),
        share(found.parameters),
        f"{found.top1:.1f} %",
        str(difference(found, results[trial.uncut])),
        paper,
        str(rival(results, trial, "l1") or ""),
        "; ".join(filter(None, verdict)) or "the yardstick",
    ]


def rival(results: Results, trial: Trial, name: str) -> Difference | None:
    """The difference to another criterion at the same widths and with the same recovery; None where there is none."""
    other = results.get(replace(trial, criterion=name, options=""))
    return None if other is None or name == trial.criterion else difference(results[trial], other)


def words(results: Results, trial: Trial, name: str) -> str:
    """That difference in words; empty where there is none."""
    found = rival(results, trial, name)
    if found is None:
        return ""
    if not found.sure:
        return f"no sure difference to {name}"
    return f"better than {name}" if found.points > 0 else f"**{name} is better**"


@contextmanager
def figure(path: Path, x: str, y: str) -> Iterator[Any]:
    """Axes to draw on; saved as a small SVG, the same for the same data."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "edgeprune", "font.size": 9})
    import matplotlib.pyplot as plt

    drawing, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    yield axes
    axes.set(xlabel=x, ylabel=y)
    axes.grid(linewidth=0.3)
    axes.legend(fontsize=8, frameon=False)
    drawing.savefig(path, metadata={"Date": None})
    plt.close(drawing)

"""Row 6: accuracy against MACs of every criterion, on ResNet-56."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from page import CRITERIA, YARDSTICKS, figure, lines_of, not_run, share, table_of
from trials import Results, Trial

TITLE = "Accuracy against MACs, ResNet-56"
KEPT = ("0.8", "0.65", "0.5", "0.35")
SEEDS = 3


def trials(quick: bool) -> list[Trial]:
    """What is run: seed by seed, so that each is whole before the next begins."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 2000, "calibration": 128}
    return [
        Trial("resnet56", criterion, "", f"keep {kept}", "reconstruct", seed, **size)
        for seed in range(1 if quick else SEEDS)
        for criterion in (("l1",) if quick else CRITERIA)
        for kept in KEPT
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page: the first seed; others count once they are whole."""
    return [trial for trial in trials(quick) if trial.seed == 0 and trial.criterion != "reconstruction"]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    results = _whole(results, quick)
    wanted = [trial for trial in trials(quick) if trial.seed == 0 and trial in results]
    first = results[wanted[0].uncut]
    by_kept = [[trial for trial in wanted if trial.widths == f"keep {kept}"] for kept in KEPT]
    heads = [share(results[trials_[0]].macs) for trials_ in by_kept]
    rows = []
    for row in zip(*by_kept, strict=True):
        found = [results.seeds(trial, SEEDS) for trial in row]
        cells = [_cell([one.top1 for one in some]) for some in found]
        rows.append((row[0].criterion, len(found[0]), *cells, _verdict(results, row)))
    about = f"""\
Top-1 after the refit, the mean of the seeds and their range (bars in the plot), at each share of MACs kept; every block
keeps the same share. A seed is which {wanted[0].calibration} training images calibrate, and what `random` draws. Uncut:
{first.top1:.1f} % of the same {len(first.right)} test images of the JPEG copy, second half; one standard error of a
single figure is about 0.8 points.

![accuracy against MACs](curves.svg)"""
    table = table_of(("criterion", "seeds", *heads, "verdict"), rows)
    return lines_of(TITLE, "curves", about + not_run(results, trials(quick)), table)


def plot(results: Results, quick: bool, folder: Path) -> None:
    """The curves as a drawing."""
    results = _whole(results, quick)
    wanted = [trial for trial in trials(quick) if trial.seed == 0 and trial in results]
    with figure(folder / "curves.svg", "MACs kept, %", "top-1, %") as axes:
        for place, name in enumerate(dict.fromkeys(trial.criterion for trial in wanted)):
            found = [results.seeds(trial, SEEDS) for trial in wanted if trial.criterion == name]
            means = [_mean(some) for some in found]
            below = [mean - min(one.top1 for one in some) for mean, some in zip(means, found, strict=True)]
            above = [max(one.top1 for one in some) - mean for mean, some in zip(means, found, strict=True)]
            # Side by side, so that bars do not hide each other.
            at = [100 * some[0].macs + 0.25 * (place - 4.5) for some in found]
            style = "--" if name in YARDSTICKS else "-"
            axes.errorbar(at, means, yerr=[below, above], label=name, linestyle=style, capsize=2, linewidth=1.2)
        axes.axhline(results[wanted[0].uncut].top1, color="black", linewidth=0.8, linestyle=":", label="uncut")


def _whole(results: Results, quick: bool) -> Results:
    """The results of the curves that were run to the end."""
    short = {(trial.criterion, trial.seed) for trial in results.missing(trials(quick))}
    return results.without(lambda trial: (trial.criterion, trial.seed) in short)


def _cell(top1: list[float]) -> str:
    spread = f" ({min(top1):.1f} to {max(top1):.1f})" if len(top1) > 1 else ""
    return f"{sum(top1) / len(top1):.1f} %{spread}"


def _mean(found: list) -> float:
    return sum(one.top1 for one in found) / len(found)


def _verdict(results: Results, row: tuple[Trial, ...]) -> str:
    """At how many of the points it beats l1 and random, by the means of the seeds that both were run with."""
    name, said = row[0].criterion, []
    for rival in ("l1", "random"):
        if name == rival:
            continue
        pairs = [
            zip(results.seeds(trial, SEEDS), results.seeds(replace(trial, criterion=rival), SEEDS), strict=False)
            for trial in row
        ]
        won = sum(sum(one.top1 - other.top1 for one, other in pair) > 0 for pair in pairs)
        said.append(f"above {rival} at {won} of {len(row)} points")
    return "; ".join(said)

"""Row 1: ResNet-56 on CIFAR-10 (JPEG-75 copy), cut as QSFM's table has it, without any training."""

from __future__ import annotations

from page import BOTH_METRICS, COMPARED, RECOVERIES, compared, lines_of, not_run, table_of
from trials import Results, Trial, difference

TITLE = "ResNet-56 without fine-tuning, 48.7 % of MACs and 58 % of parameters gone"
WIDTHS = "10/17/24"
CLAIM = -0.54
"""QSFM's abstract: accuracy drop 0.54 at -48.7 % FLOPs and -57.90 % parameters, without fine-tuning."""


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 5000}
    return [
        Trial("resnet56", name, options, WIDTHS, recovery, **size)
        for name, _, options in (criterion.partition(" ") for criterion in (("apssf", "l1") if quick else BOTH_METRICS))
        for recovery in RECOVERIES
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    return [trial for trial in trials(quick) if trial.criterion != "reconstruction"]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    first = results[wanted[0].uncut]
    rows = [_row(results, trial) for trial in wanted if trial in results]
    about = f"""\
Kept widths {WIDTHS} of 16/32/64 in the first convolution of each block (derived from the paper's figures, which they
meet). Uncut: {first.top1:.1f} % of the same {len(first.right)} test images, the second half of a seeded shuffle.
{wanted[0].calibration} training images calibrate, no label is used. Differences are in points, image by image, with
95 % intervals. QSFM's abstract claims {CLAIM} points at this cut, on the lossless images; ours are a JPEG copy."""
    table = table_of(("criterion", "recovery", "seed", *COMPARED), rows)
    return lines_of(TITLE, "no_training", about + not_run(results, wanted), table)


def _row(results: Results, trial: Trial) -> list[object]:
    head = (trial.name, RECOVERIES[trial.recovery], trial.seed)
    if trial.criterion != "qsfm":
        return [*head, *compared(results, trial, "not known")]
    short = CLAIM - difference(results[trial], results[trial.uncut]).high
    said = f"short of the paper's claim by {short:.1f} points at least" if short > 0 else ""
    return [*head, *compared(results, trial, f"{CLAIM}", said)]

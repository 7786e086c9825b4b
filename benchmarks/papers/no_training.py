"""Row 1: ResNet-56 on CIFAR-10 (JPEG-75 copy), cut as QSFM's table has it, without any training."""

from __future__ import annotations

from page import against, lines_of, not_run, share, words
from trials import Results, Trial, difference

TITLE = "ResNet-56 without fine-tuning, 48.7 % of MACs and 58 % of parameters gone"
WIDTHS = "10/17/24"
CLAIM = -0.54
"""QSFM's abstract: accuracy drop 0.54 at -48.7 % FLOPs and -57.90 % parameters, without fine-tuning."""
YARDSTICKS = ("l1", "l2", "fpgm", "hrank", "random")
CRITERIA = ("qsfm", "qsfm metric=ssim", "ssm", "fscl", "nystrom", "apssf", "reconstruction", *YARDSTICKS)
RECOVERIES = {"none": "nothing", "bn": "norms re-estimated", "reconstruct": "refitted by least squares"}


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 5000}
    return [
        Trial("resnet56", name, options, WIDTHS, recovery, **size)
        for name, _, options in (criterion.partition(" ") for criterion in (("apssf", "l1") if quick else CRITERIA))
        for recovery in RECOVERIES
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    return [trial for trial in trials(quick) if trial.criterion != "reconstruction"]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    first = results[wanted[0].uncut]
    table = [
        "| criterion | recovery | seed | MACs | parameters | top-1 | difference to uncut | "
        "paper | against l1 | verdict |",
        "|---" * 10 + "|",
    ]
    for trial in wanted:
        found = results.get(trial)
        if found is None:
            continue
        to_uncut = difference(found, first)
        paper = f"{CLAIM}" if trial.criterion == "qsfm" else "not known"
        table.append(
            f"| {trial.name} | {RECOVERIES[trial.recovery]} | {trial.seed} | {share(found.macs)} | "
            f"{share(found.parameters)} | {found.top1:.1f} % | {to_uncut} | {paper} | "
            f"{against(results, trial, 'l1')} | {_verdict(results, trial, to_uncut.high)} |"
        )
    about = f"""\
Kept widths {WIDTHS} of 16/32/64 in the first convolution of each block (derived from the paper's figures,
which they meet).
Uncut: {first.top1:.1f} % of the same {len(first.right)} test images, the second half of a seeded shuffle.
{wanted[0].calibration} training images calibrate, no label is used. Differences are in points, image by image,
with 95 %
intervals. QSFM's abstract claims {CLAIM} points at this cut, on the lossless images; ours are a JPEG copy."""
    return lines_of(TITLE, "no_training", about + not_run(results, wanted), table)


def _verdict(results: Results, trial: Trial, best: float) -> str:
    said = [words(results, trial, "l1"), words(results, trial, "random")] if trial.criterion != "random" else []
    if trial.criterion == "qsfm" and best < CLAIM:
        said = [f"short of the paper's claim by {CLAIM - best:.1f} points at least", *said]
    return "; ".join(filter(None, said)) or "the yardstick"

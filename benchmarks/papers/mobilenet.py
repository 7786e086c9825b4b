"""Row 3: MobileNet-V2 on ImageNet images at 1.53 times fewer MACs."""

from __future__ import annotations

from page import BOTH_METRICS, COMPARED, RECOVERIES, compared, lines_of, not_run, table_of
from trials import Results, Trial

TITLE = "MobileNet-V2 at 1.53x fewer MACs"
WIDTHS = "expand 0.6"


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 64, "calibration": 32} if quick else {"images": 650, "calibration": 64}
    return [
        Trial("mobilenet_v2_tf", name, options, WIDTHS, recovery, **size)
        for name, _, options in (criterion.partition(" ") for criterion in (("l1",) if quick else BOTH_METRICS))
        for recovery in ("none", "reconstruct")
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    names = ("qsfm", "l1", "random")
    return [trial for trial in trials(quick) if trial.recovery == "reconstruct" and trial.name in names]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    first = results[wanted[0].uncut]
    rows = [_row(results, trial) for trial in wanted if trial in results]
    about = f"""\
60 % of each expansion stays (the widths of the paper's family: stem, linear bottlenecks and last convolution are
whole), which is {1 / results[wanted[1]].macs:.2f}x fewer MACs; the paper's 1.53x is a time on a device. Uncut:
{first.top1:.1f} % of the same {len(first.right)} validation images, the second half, on which nothing was tuned; an
easier subset than the full validation set. {wanted[0].calibration} training images calibrate, no label is used.
Differences are in points, image by image, with 95 % intervals."""
    table = table_of(("criterion", "recovery", "seed", *COMPARED), rows)
    return lines_of(TITLE, "mobilenet", about + not_run(results, wanted), table)


def _row(results: Results, trial: Trial) -> list[object]:
    head = (trial.name, RECOVERIES[trial.recovery], trial.seed)
    if trial.criterion != "qsfm":
        return [*head, *compared(results, trial, "not known")]
    said = "not the paper's task: fine-tuned there"
    return [*head, *compared(results, trial, "-1.23, most likely fine-tuned", said)]

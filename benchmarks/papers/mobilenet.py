"""Row 3: MobileNet-V2 on ImageNet images at 1.53 times fewer MACs."""

from __future__ import annotations

from page import against, lines_of, not_run, share, words
from trials import Results, Trial, difference

TITLE = "MobileNet-V2 at 1.53x fewer MACs"
WIDTHS = "expand 0.6"
YARDSTICKS = ("l1", "l2", "fpgm", "hrank", "random")
CRITERIA = ("qsfm", "qsfm metric=ssim", "ssm", "fscl", "nystrom", "apssf", "reconstruction", *YARDSTICKS)
RECOVERIES = {"none": "nothing", "reconstruct": "refitted by least squares"}


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 64, "calibration": 32} if quick else {"images": 650, "calibration": 64}
    return [
        Trial("mobilenet_v2_tf", name, options, WIDTHS, recovery, **size)
        for name, _, options in (criterion.partition(" ") for criterion in (("l1",) if quick else CRITERIA))
        for recovery in RECOVERIES
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    names = ("qsfm", "l1", "random")
    return [trial for trial in trials(quick) if trial.recovery == "reconstruct" and trial.name in names]


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
        said = [words(results, trial, "l1"), words(results, trial, "random")] if trial.criterion != "random" else []
        if trial.criterion == "qsfm":
            said = ["not the paper's task: fine-tuned there", *said]
        paper = "-1.23, most likely fine-tuned" if trial.criterion == "qsfm" else "not known"
        table.append(
            f"| {trial.name} | {RECOVERIES[trial.recovery]} | {trial.seed} | {share(found.macs)} | "
            f"{share(found.parameters)} | {found.top1:.1f} % | {difference(found, first)} | {paper} | "
            f"{against(results, trial, 'l1')} | {'; '.join(filter(None, said)) or 'the yardstick'} |"
        )
    about = f"""\
60 % of each expansion stays (the widths of the paper's family: stem, linear bottlenecks and last convolution
are whole),
which is {1 / results[wanted[1]].macs:.2f}x fewer MACs; the paper's 1.53x is a time on a device. Uncut:
{first.top1:.1f} % of
the same {len(first.right)} validation images, the second half, on which nothing was tuned; an easier subset
than the full
validation set. {wanted[0].calibration} training images calibrate, no label is used. Differences are in points,
image by image,
with 95 % intervals."""
    return lines_of(TITLE, "mobilenet", about + not_run(results, wanted), table)

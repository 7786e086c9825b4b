"""Row 2: QSFM's fine-tuned rows: ResNet-56 and VGG-16 at -60 % and -75 % of MACs."""

from __future__ import annotations

from page import against, lines_of, share, words
from trials import Results, Trial, difference

TITLE = "ResNet-56 with fine-tuning, 60 % of MACs and 71 % of parameters gone"
WIDTHS = "7/18/13"
CRITERIA = ("qsfm", "l1", "random")
STEPS = 100
_NOT_RUN = "**not run**: no weights of VGG-16 for these images are there, and training it takes a GPU"


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 5000}
    return [
        Trial("resnet56", criterion, "", WIDTHS, "reconstruct", steps=steps, **size)
        for criterion in (CRITERIA[1:2] if quick else CRITERIA)
        for steps in (0, 3 if quick else STEPS)
    ]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    first = results[wanted[0].uncut]
    table = [
        "| criterion | steps | seed | MACs | parameters | top-1 | difference to uncut | paper | against l1 | verdict |",
        "|---" * 10 + "|",
    ]
    for trial in wanted:
        found = results[trial]
        paper = "-1.38 (91.88 of 93.26)" if trial.criterion == "qsfm" and trial.steps else ""
        said = [words(results, trial, "l1"), words(results, trial, "random")] if trial.criterion != "random" else []
        table.append(
            f"| {trial.name} | {trial.steps} | {trial.seed} | {share(found.macs)} | {share(found.parameters)} | "
            f"{found.top1:.1f} % | {difference(found, first)} | {paper} | {against(results, trial, 'l1')} | "
            f"{'; '.join(filter(None, said)) or 'the yardstick'} |"
        )
    vgg = "VGG-16 at -75 % (the paper: 92.17 at -74.8 % of MACs, -75.0 % of parameters)"
    table += ["", "| row | state |", "|---|---|", f"| {vgg} | {_NOT_RUN} |"]
    about = f"""\
Kept widths {WIDTHS} of 16/32/64 in the first convolution of each block (-59.7 % of MACs, -71.4 % of
parameters). Refitted by
least squares, then {wanted[-1].steps} steps of SGD with labels (batch 128, one cycle to 0.02, crops and
mirroring; a quarter of an
epoch, because this ran on a CPU), seed 0. Uncut: {first.top1:.1f} % of the same {len(first.right)} test images
of the JPEG
copy, second half. The paper's fine-tuning is not known, its figure is from tables that cite it."""
    return lines_of(TITLE, "fine_tuning", about, table)

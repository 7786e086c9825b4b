"""Row 2: QSFM's fine-tuned rows: ResNet-56 at -60 % of MACs and VGG-16 at -75 %."""

from __future__ import annotations

from page import against, lines_of, not_run, share, words
from sgd import VGG
from trials import Results, Trial, difference

TITLE = "With fine-tuning: ResNet-56 at -60 % of MACs, VGG-16 at -75 %"
WIDTHS = {"resnet56": "7/18/13", "vgg16_bn_cifar": "keep 0.5"}
CLAIMS = {"resnet56": "-1.38 (91.88 of 93.26)", "vgg16_bn_cifar": "-1.79 (92.17 of 93.96)"}
"""QSFM's figures in the tables of CORING, and that table's uncut network."""
CRITERIA = ("qsfm", "l1", "random")
STEPS = 30


def trials(quick: bool) -> list[Trial]:
    """What is run; VGG-16 only where its weights are (see sgd.py)."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 5000}
    return [
        Trial(network, criterion, "", WIDTHS[network], "reconstruct", steps=steps, **size)
        for network in WIDTHS
        if network == "resnet56" or (VGG.is_file() and not quick)
        for criterion in (CRITERIA[1:2] if quick else CRITERIA)
        for steps in (0, 3 if quick else STEPS)
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    return [trial for trial in trials(quick) if trial.network == "resnet56" and trial.criterion != "random"]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    first = results[wanted[0].uncut]
    table = [
        "| network | criterion | steps | seed | MACs | parameters | top-1 | difference to uncut "
        "| paper | against l1 | verdict |",
        "|---" * 11 + "|",
    ]
    for trial in wanted:
        found = results.get(trial)
        if found is None:
            continue
        paper = CLAIMS[trial.network] if trial.criterion == "qsfm" and trial.steps else ""
        said = [words(results, trial, "l1"), words(results, trial, "random")] if trial.criterion != "random" else []
        table.append(
            f"| {trial.network} | {trial.name} | {trial.steps} | {trial.seed} | {share(found.macs)} | "
            f"{share(found.parameters)} | {found.top1:.1f} % | {difference(found, results[trial.uncut])} | {paper} | "
            f"{against(results, trial, 'l1')} | {'; '.join(filter(None, said)) or 'the yardstick'} |"
        )
    if all(trial.network == "resnet56" for trial in wanted):
        why = "**not run**: there are no weights for these images; `python benchmarks/papers/sgd.py`, then this again"
        cells = ["vgg16_bn_cifar", "qsfm", *[""] * 6, CLAIMS["vgg16_bn_cifar"], "", why]
        table.append(f"| {' | '.join(cells)} |")
    about = f"""\
ResNet-56: kept widths {WIDTHS["resnet56"]} of 16/32/64 in the first convolution of each block (-59.7 % of MACs, -71.4 %
of parameters). VGG-16: half of the filters of every convolution. Refitted by least squares, then {wanted[-1].steps}
steps of SGD with labels (batch 128, one cycle to 0.02, crops and mirroring), seed 0: a thirteenth of an epoch, because
this ran on a CPU. ResNet-56 uncut: {first.top1:.1f} % of the same {len(first.right)} test images of the JPEG copy,
second half. The paper's fine-tuning is not known, its figures are from tables that cite it."""
    return lines_of(TITLE, "fine_tuning", about + not_run(results, wanted), table)

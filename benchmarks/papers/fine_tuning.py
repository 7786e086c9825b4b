"""Row 2: QSFM's fine-tuned rows: ResNet-56 at -60 % of MACs and VGG-16 at -75 %."""

from __future__ import annotations

from page import COMPARED, compared, lines_of, not_run, table_of
from trials import Results, Trial

TITLE = "With fine-tuning: ResNet-56 at -60 % of MACs, VGG-16 at -75 %"
WIDTHS = {"resnet56": "7/18/13", "vgg16_bn_cifar": "keep 0.5"}
CLAIMS = {"resnet56": "-1.38 (91.88 of 93.26)", "vgg16_bn_cifar": "-1.79 (92.17 of 93.96)"}
"""QSFM's figures in the tables of CORING, and that table's uncut network."""
CRITERIA = ("qsfm", "l1", "random")
STEPS = (0, 30, 390)
"""Of a batch of 128 each: the last is an epoch of the 50,000 images."""
VGG_SCHEDULE = """\
VGG-16: half of the filters of every convolution (-75 % of MACs). Its weights are our own, of a short schedule: two
epochs on a CPU (`python benchmarks/papers/sgd.py --epochs 2 --batch 64`, some 20 processor minutes), and {:.1f} %
uncut, where the paper's has 93.96 % on the lossless images. So fine-tuning is also training that the uncut network
lacks, and a difference above zero is no gain of pruning."""


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 5000}
    return [
        Trial(network, criterion, "", WIDTHS[network], "reconstruct", steps=steps, **size)
        for network in (("resnet56",) if quick else WIDTHS)
        for criterion in (CRITERIA[1:2] if quick else CRITERIA)
        for steps in ((0, 3) if quick else STEPS)
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    return [
        trial
        for trial in trials(quick)
        if trial.network == "resnet56" and trial.criterion == "l1" and trial.steps < STEPS[-1]
    ]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    first = results[wanted[0].uncut]
    rows = [
        (trial.network, trial.name, trial.steps, trial.seed, *compared(results, trial, _claim(trial)))
        for trial in wanted
        if trial in results
    ]
    vgg = results.get(Trial("vgg16_bn_cifar", images=len(first.right)))
    schedule = VGG_SCHEDULE.format(vgg.top1) if vgg else "VGG-16 was not run: its weights have to be trained first."
    about = f"""\
ResNet-56: kept widths {WIDTHS["resnet56"]} of 16/32/64 in the first convolution of each block (-59.7 % of MACs, -71.4 %
of parameters). {schedule} Refitted by least squares, then so many steps of SGD with
labels (batch 128, one cycle to 0.02, crops and mirroring), seed 0: {STEPS[-1]} are one epoch, not the hundreds that
papers train, because this ran on a CPU. ResNet-56 uncut: {first.top1:.1f} % of the same {len(first.right)} test images
of the JPEG copy, second half. The paper's fine-tuning is not known; its figures, {CLAIMS["resnet56"]} for ResNet-56 and
{CLAIMS["vgg16_bn_cifar"]} for VGG-16, are from tables that cite it."""
    table = table_of(("network", "criterion", "steps", "seed", *COMPARED), rows)
    return lines_of(TITLE, "fine_tuning", about + not_run(results, wanted), table)


def _claim(trial: Trial) -> str:
    return CLAIMS[trial.network] if trial.criterion == "qsfm" and trial.steps else ""

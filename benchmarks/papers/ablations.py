"""The choices that the papers' known text leaves open, one against the other, on ResNet-56."""

from __future__ import annotations

from dataclasses import replace

from page import lines_of
from trials import Results, Trial, difference

TITLE = "The doubtful choices, one against the other, ResNet-56"
WIDTHS = "10/17/24"
CHOICES = {
    "qsfm": ("metric=ssim", "side=before", "drop=weak", "images=32", "metric=ssim,side=before"),
    "ssm": ("ranking=area", "ranking=area,window=8", "distance=cosine"),
    "fscl": ("measure=product", "measure=cosine"),
    "nystrom": ("pick=random", "columns=3", "columns=3,pick=random", "order=greedy"),
    "apssf": ("over=layer", "distance=structure+weights", "link=complete"),
}
DEFAULTS = {
    "qsfm": "PSNR, after the activation, the redundant one goes, 128 images",
    "ssm": "greedy, Euclidean",
    "fscl": "composed",
    "nystrom": "the first 9 columns, the paper's pairs",
    "apssf": "one threshold for the network, structure, average linkage",
}


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 2000, "calibration": 128}
    chosen = {"fscl": CHOICES["fscl"][:1]} if quick else CHOICES
    return [
        Trial("resnet56", name, options, WIDTHS, recovery, **size)
        for name, variants in chosen.items()
        for options in ("", *variants)
        for recovery in ("none", "reconstruct")
    ]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    table = [
        "| criterion | choice | nothing: top-1 | less the default's | refitted: top-1 | less the default's | verdict |",
        "|---" * 7 + "|",
    ]
    for trial in (trial for trial in wanted if trial.recovery == "none"):
        pair = [results[trial], results[replace(trial, recovery="reconstruct")]]
        plain = [results[replace(one.trial, options="")] for one in pair]
        if not trial.options:
            cells = (f"{pair[0].top1:.1f} %", "", f"{pair[1].top1:.1f} %", "")
            choice, verdict = f"default: {DEFAULTS[trial.criterion]}", ""
        else:
            gains = [difference(*both) for both in zip(pair, plain, strict=True)]
            cells = (f"{pair[0].top1:.1f} %", str(gains[0]), f"{pair[1].top1:.1f} %", str(gains[1]))
            choice, verdict = trial.options, _verdict(*(gain.points if gain.sure else 0.0 for gain in gains))
        table.append(f"| {trial.criterion} | {choice} | {' | '.join(cells)} | {verdict} |")
    about = f"""\
Kept widths {WIDTHS}, seed 0, {wanted[0].images} test images of the JPEG copy, second half;
{wanted[0].calibration} training
images calibrate. Defaults were chosen before, on other images
([0003](../../docs/decisions/0003-qsfm-and-recovery.md)): this table did not choose them. Differences in
points, image by
image, with 95 % intervals."""
    return lines_of(TITLE, "ablations", about, table)


def _verdict(raw: float, refitted: float) -> str:
    said = {-1: "worse", 0: "no sure difference", 1: "better"}
    one, other = (said[(value > 0) - (value < 0)] for value in (raw, refitted))
    return one if one == other else f"{one} without recovery, {other} with it"

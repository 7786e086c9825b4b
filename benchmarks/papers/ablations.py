"""The choices that the papers' known text leaves open, one against the other, on ResNet-56."""

from __future__ import annotations

from dataclasses import replace

from page import lines_of, not_run, table_of
from trials import Difference, Results, Trial, difference

TITLE = "The doubtful choices, one against the other, ResNet-56"
WIDTHS = "10/17/24"
CHOICES = {
    "qsfm": ("metric=ssim", "side=before", "drop=weak", "images=32", "metric=ssim,side=before"),
    "ssm": ("ranking=area", "ranking=area,window=8", "distance=cosine"),
    "fscl": ("measure=product", "measure=cosine"),
    "nystrom": ("pick=random", "columns=3", "columns=3,pick=random", "order=greedy"),
    "apssf": ("over=layer", "each=0.5", "each=1", "distance=structure+weights", "link=complete"),
}
DEFAULTS = {
    "qsfm": "PSNR, after the activation, the redundant one goes, 128 images",
    "ssm": "greedy, Euclidean",
    "fscl": "composed",
    "nystrom": "the first 9 columns, the paper's pairs",
    "apssf": "one threshold for the network, of each cluster halfway to all, structure, average linkage",
}


def trials(quick: bool) -> list[Trial]:
    """What is run."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 2000, "calibration": 128}
    chosen = {"fscl": CHOICES["fscl"][:1]} if quick else CHOICES
    return [
        Trial("resnet56", name, options, WIDTHS, "reconstruct", **size)
        for name, variants in chosen.items()
        for options in ("", *variants)
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page; what was not run besides is said there."""
    return trials(quick)[:2]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown."""
    wanted = trials(quick)
    rows = []
    for trial in wanted:
        choice = trial.options or f"default: {DEFAULTS[trial.criterion]}"
        found, plain = results.get(trial), results.get(replace(trial, options=""))
        if found is None or plain is None:
            continue
        gain = difference(found, plain) if trial.options else None
        rows.append((trial.criterion, choice, f"{found.top1:.1f} %", gain or "", _verdict(gain) if gain else ""))
    about = f"""\
Kept widths {WIDTHS}, refitted by least squares, seed 0, {wanted[0].images} test images of the JPEG copy, second half;
{wanted[0].calibration} training images calibrate. Defaults were chosen before, on other images
([0003](../../docs/decisions/0003-qsfm-and-recovery.md)): this table did not choose them. Differences in points, image
by image, with 95 % intervals."""
    table = table_of(("criterion", "choice", "top-1", "less the default's", "verdict"), rows)
    return lines_of(TITLE, "ablations", about + not_run(results, wanted), table)


def _verdict(gain: Difference) -> str:
    if not gain.sure:
        return "no sure difference"
    return "better than the default" if gain.points > 0 else "worse than the default"

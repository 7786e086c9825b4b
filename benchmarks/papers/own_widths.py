"""Row 5: the widths that APSSF chooses against even widths at the same MACs, on ResNet-56."""

from __future__ import annotations

from dataclasses import replace

from page import RECOVERIES, lines_of, not_run, share, table_of
from trials import Result, Results, Trial, difference

TITLE = "APSSF's own widths against even widths at the same MACs, ResNet-56"
RATES = ("0.3", "0.5")
HEADS = (
    "rate",
    "filters chosen by",
    "recovery",
    "seed",
    "MACs own, even",
    "parameters own, even",
    "top-1 own",
    "top-1 even",
    "own less even",
    "verdict",
)


def trials(quick: bool) -> list[Trial]:
    """What is run: own and even widths one after the other."""
    size = {"images": 200, "calibration": 32} if quick else {"images": 2000, "calibration": 128}
    return [
        Trial("resnet56", criterion, f"rate={rate}" if criterion == "apssf" else "", widths, recovery, **size)
        for rate in (RATES[:1] if quick else RATES)
        for criterion in ("apssf", "l1")
        for widths in (f"apssf {rate}", f"as apssf {rate}")
        for recovery in ("none", "reconstruct")
    ]


def needed(quick: bool) -> list[Trial]:
    """Without which there is no page."""
    return [trial for trial in trials(quick) if trial.recovery == "reconstruct"]


def page(results: Results, quick: bool) -> str:
    """The table as Markdown, of the pairs that were run."""
    wanted = [trial for trial in trials(quick) if trial.widths.startswith("apssf") and trial in results]
    wanted = [trial for trial in wanted if replace(trial, widths=f"as {trial.widths}") in results]
    first = results[wanted[0].uncut]
    rows = [_row(trial, results[trial], results[replace(trial, widths=f"as {trial.widths}")]) for trial in wanted]
    kept = [
        f"- rate {trial.widths.split()[1]}: {', '.join(map(str, results[trial].kept))}"
        for trial in wanted
        if trial.criterion == "apssf" and trial.recovery == "reconstruct"
    ]
    about = f"""\
The compression rate is the share of all filters to go; one threshold for the whole network, found from it, says how
many go in each layer (`--criterion apssf --criterion-option rate=R --ratio auto`). Even widths keep the same share of
every layer. Uncut: {first.top1:.1f} % of the same {len(first.right)} test images of the JPEG copy, second half. Such a
table of the paper could not be read: its figures are not known. Filters kept in the 27 blocks, of 16 nine times, 32
nine times, 64 nine times:

{chr(10).join(kept)}"""
    return lines_of(TITLE, "own_widths", about + not_run(results, trials(quick)), table_of(HEADS, rows))


def _row(trial: Trial, own: Result, even: Result) -> list[object]:
    gain = difference(own, even)
    return [
        trial.widths.split()[1],
        trial.criterion,
        RECOVERIES[trial.recovery],
        trial.seed,
        f"{share(own.macs)}, {share(even.macs)}",
        f"{share(own.parameters)}, {share(even.parameters)}",
        f"{own.top1:.1f} %",
        f"{even.top1:.1f} %",
        gain,
        "no sure difference" if not gain.sure else "own widths win" if gain.points > 0 else "even widths win",
    ]

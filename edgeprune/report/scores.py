"""How good a model is after each step of a run, on images that none of its steps was calibrated with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.stats import paired_difference, share_interval

UNCUT, CUT, NORMS = "uncut", "cut", "norms"
RECONSTRUCTION, BLOCKS, DISTILLATION = "reconstruction", "blocks", "distillation"
RECOVERY = "recovery"
"""The last step in reports of before its parts were told."""


@dataclass(frozen=True)
class Change:
    """By how much a share moved from that of the uncut model, counted on the same images.

    Attributes:
        difference: -1 to 1.
        ci95: its paired 95 % interval, see `edgeprune.stats.paired_difference`.
    """

    difference: float
    ci95: tuple[float, float]

    @property
    def points(self) -> str:
        """This in points, hundredths of the images, with its interval: "-0.4 [-1.2, +0.3]"."""
        difference, low, high = (f"{100 * value:+.1f}" for value in (self.difference, *self.ci95))
        return f"{difference} [{low}, {high}]"


def change_between(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Change:
    """How many more images are right after than before, as a share of them; both [images]."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return Change((gained - lost) / len(after), paired_difference(gained, lost, len(after)))


@dataclass(frozen=True)
class Step:
    """What the model is worth after one step.

    Attributes:
        name: "uncut", "cut", "norms" (the cut model with its norms re-estimated, and nothing else), "reconstruction",
            "blocks", "distillation".
        share: of images, 0 to 1.
        top5: the same for the five highest classes; None where there are few classes or no labels.
        change: of `share` against the uncut model; None for that itself, and for agreement.
        kept: whether this is the model that is handed over.
    """

    name: str
    share: float
    top5: float | None = None
    change: Change | None = None
    kept: bool = False


@dataclass(frozen=True)
class Accuracy:
    """How often the model is right, or agrees with itself uncut, on images it was not calibrated with.

    Attributes:
        metric: "top1" (against labels) or "agreement" (same highest class as the uncut model).
        images: how many were scored, the same ones after each step.
        steps: as they were taken; the uncut model is the first.
    """

    metric: Literal["top1", "agreement"]
    images: int
    steps: tuple[Step, ...]

    @property
    def uncut(self) -> Step:
        """The uncut model."""
        return self.steps[0]

    @property
    def cut(self) -> Step | None:
        """The model as cut; None if it was not scored."""
        return next((step for step in self.steps if step.name == CUT), None)

    @property
    def recovered(self) -> Step | None:
        """The model that is handed over, if recovery made it."""
        return next((step for step in self.steps if step.kept and step.name not in (UNCUT, CUT)), None)

    @property
    def final(self) -> Step | None:
        """The model that is handed over; None if it was not scored."""
        return self.recovered or self.cut

    def ci95(self, share: float | None) -> tuple[float, float] | None:
        """The 95 % interval of a share of `images`, see `edgeprune.stats.share_interval`."""
        return None if share is None or self.images == 0 else share_interval(share, self.images)


def derived(accuracy: Accuracy) -> dict[str, Any]:
    """What `report.json` says of the accuracy beside its steps, for readers that do not compute; JSON values."""
    named = {"baseline": accuracy.uncut, "after_cut": accuracy.cut, "after_recovery": accuracy.recovered}
    shares = {name: step.share if step else None for name, step in named.items()}
    changes = {name: step.change for name, step in named.items() if step and step.change}
    by_definition = ("baseline",) if accuracy.metric == "agreement" else ()
    top5 = {name: step.top5 if step else None for name, step in named.items()}
    return {
        **shares,
        "ci95": {
            name: list(interval) if (interval := accuracy.ci95(share)) else None
            for name, share in shares.items()
            if name not in by_definition
        },
        "top5": None if top5["baseline"] is None else top5,
        "changes": {
            name: {"difference": one.difference, "ci95": list(one.ci95)} for name, one in changes.items() if one
        },
    }


def original(document: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy of a `report.json` without what is derived; steps are put together where a report has none."""
    fields = ("baseline", "after_cut", "after_recovery")
    rest = {name: value for name, value in document.items() if name not in (*fields, "ci95", "top5", "changes")}
    if "steps" in rest:
        return rest
    top5, changes = document.get("top5") or {}, document.get("changes") or {}
    steps = [
        {"name": step, "share": document[name], "top5": top5.get(name), "change": changes.get(name), "kept": False}
        for name, step in zip(fields, (UNCUT, CUT, RECOVERY), strict=True)
        if document.get(name) is not None
    ]
    for step in steps[1:][-1:]:
        step["kept"] = True
    return {**rest, "steps": steps}

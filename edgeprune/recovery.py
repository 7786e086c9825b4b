"""recovery: everything that is tried to make a cut model good again, and which of it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.cutting import Traced
from edgeprune.distilling import Pupil, Study, check_trainable, distilled
from edgeprune.inputs import Photos
from edgeprune.journal import Journal
from edgeprune.judge import distances
from edgeprune.model import Model, with_tensors
from edgeprune.plan import PruningPlan
from edgeprune.recover.batchnorm import norm_nodes, reestimate
from edgeprune.recover.finished import Refit
from edgeprune.recover.reconstruct import Cut, reconstruct
from edgeprune.report.parts import Method
from edgeprune.report.scores import BLOCKS, CUT, DISTILLATION, NORMS, RECONSTRUCTION
from edgeprune.request import Request
from edgeprune.resuming import finished_layers
from edgeprune.train.blocks import refine

_WORDS = {
    CUT: "the model as cut",
    NORMS: "the cut model with its norms re-estimated alone",
    RECONSTRUCTION: "the reconstructed model",
    BLOCKS: "the model after its blocks learned",
}
_METHODS = {CUT: "none", NORMS: "bn", RECONSTRUCTION: "reconstruct", BLOCKS: "blocks", DISTILLATION: "distill"}


@dataclass(frozen=True, eq=False)
class Recovery:
    """What was made of a cut model.

    Attributes:
        steps: name of each step, see `edgeprune.report.scores.Step` -> the model after it; the model as cut is first.
        kept: the step whose model is handed over.
        method: how that one was made.
        rows: what was found on the way, where it was trained.
    """

    steps: Mapping[str, Model]
    kept: str
    method: Method
    rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def model(self) -> Model:
        """The model that is handed over."""
        return self.steps[self.kept]


def recover(
    request: Request,
    plan: PruningPlan,
    uncut: Traced,
    pruned: Traced,
    photos: Photos,
    place: Path,
    journal: Journal,
    study: Study | None = None,
) -> Recovery:
    """Do what was asked for and keep what comes nearest to the uncut model's outputs.

    Args:
        request: what was asked for; "blocks" reconstructs first, "distill" lets blocks learn first, too.
        plan: which filters stayed.
        uncut: the model before the cut.
        pruned: after it.
        photos: to calibrate with.
        place: a folder for finished layers, which a crash must not cost; it is gone when the layers are refitted.
        journal: told how it goes.
        study: what to distil with where that was asked for.
    """
    if study is not None:
        check_trainable(pruned.model)
    found = _untrained(request, plan, uncut, pruned, photos, place, journal)
    return found if study is None else taught(found, study, Pupil(plan, uncut, found.model), journal)


def taught(before: Recovery, study: Study, pupil: Pupil, journal: Journal) -> Recovery:
    """Add the distillation of a recovered model; it is kept if it is nearer, on images not trained on."""
    result = distilled(study, pupil, journal)
    if not result.better:
        tried = Method(before.method.name, {**before.method.settings, "tried": _METHODS[DISTILLATION]})
        return replace(before, method=tried, rows=result.rows)
    first = {"from": before.method.name, **before.method.settings}
    return Recovery(
        {**before.steps, DISTILLATION: result.model},
        DISTILLATION,
        Method(_METHODS[DISTILLATION], {**result.settings, "before": first}),
        result.rows,
    )


def _untrained(
    request: Request, plan: PruningPlan, uncut: Traced, pruned: Traced, photos: Photos, place: Path, journal: Journal
) -> Recovery:
    """What can be done without training and without labels."""
    steps, settings = {CUT: pruned.model}, {}
    if request.recover == "none":
        return Recovery(steps, CUT, Method("none"))
    batches = photos.batches(uncut.model)
    cut = Cut(uncut.model, pruned.model, plan, uncut.channel_map, uncut.program, pruned.program)
    with finished_layers(place, cut, batches, journal) as finished:
        with journal.stage("recover") as tick:
            if norm_nodes(pruned.program):
                module = with_tensors(pruned.model.module, {})
                reestimate(pruned.program, module, batches)
                steps[NORMS] = replace(pruned.model, module=module)
            if request.recover != "bn":
                steps[RECONSTRUCTION], refits = reconstruct(cut, batches, tick=tick, finished=finished)
                _warn(refits, len(photos.calibration), journal)
                settings["held_out_error_ratio"] = _ratios(refits)
        if request.recover in ("blocks", "distill"):
            with journal.stage("blocks") as tick:
                steps[BLOCKS], refits = refine(cut, steps[RECONSTRUCTION], batches, tick=tick, finished=finished)
            settings["blocks_error_ratio"] = _ratios(refits)
    with journal.stage("compare"):
        moved = distances((uncut.program, uncut.model), pruned.program, list(steps.values()), batches)
    kept = _nearest(dict(zip(steps, moved, strict=True)), journal)
    return Recovery(steps, kept, _method(kept, list(steps)[-1], {"images": len(photos.calibration), **settings}))


def _ratios(refits: Sequence[Refit]) -> dict[str, float]:
    """Layer -> its error on images held out, as a share of what it was."""
    return {refit.layer: round(refit.error_ratio, 4) for refit in refits}


def _warn(refits: Sequence[Refit], images: int, journal: Journal) -> None:
    """Say which layers the images say too little about, and how many images would do."""
    if ill := [refit.layer for refit in refits if refit.ill]:
        journal.warn(
            f"the calibration images leave weights undetermined in {', '.join(ill)}: the smallest that fit were taken; "
            "more, and more different, images would tell (--calibration-images)"
        )
    needy = [refit for refit in refits if refit.images > images]
    if needy:
        most = max(needy, key=lambda refit: refit.images)
        others = f", and too few for {len(needy) - 1} other layers" if len(needy) > 1 else ""
        journal.warn(
            f"{images} calibration images are too few for what layer {most.layer} reads{others}: weights that they do "
            f"not tell stay as they were; {most.images} images would do (--calibration-images {most.images})"
        )


def _nearest(moved: Mapping[str, float], journal: Journal) -> str:
    """The step after which the outputs are nearest to those of the uncut model; of equal ones the last."""
    *_, last = moved
    kept = min(reversed(list(moved)), key=lambda step: moved[step] if math.isfinite(moved[step]) else math.inf)
    if kept != last:
        journal.warn(
            f"recovery made the model worse, and {_WORDS[kept]} is kept: on calibration images its outputs are "
            f"{moved[kept]:.3g} from those of the uncut model, those of {_WORDS[last]} {moved[last]:.3g} "
            "(mean divergence)"
        )
    return kept


def _method(kept: str, last: str, settings: Mapping[str, Any]) -> Method:
    """How the model that is kept was made; where that is not all that was tried, what was tried too."""
    tried = {} if kept == last else {"tried": _METHODS[last]}
    return Method(_METHODS[kept], {**tried, **settings})

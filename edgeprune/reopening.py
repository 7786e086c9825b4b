"""A finished run opened again: what it was asked for, and its uncut model, which no file of the run holds."""

from __future__ import annotations

from pathlib import Path

from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.inputs import asked_model
from edgeprune.model import Model, load_saved
from edgeprune.report.document import Report
from edgeprune.request import Request

TRAINED, TRAINING = "trained", "training.json"
"""What a training leaves in its run folder: the network before its filters were cut, by its name without ending, and
what was asked for."""


def asked_again(
    before: Report, *, weights: Path | None = None, data: str | None = None, calibration_data: str | None = None
) -> Request:
    """What a `compress` of the same model with the same images would have been asked for.

    Args:
        before: the run's report.
        weights: of the uncut model, in place of the run's.
        data: images to score with, in place of the run's; those to calibrate with are then a part of them.
        calibration_data: images to calibrate with, in place of the run's.
    """
    scored, calibrated, spec = before.data.scoring, before.data.calibration, before.model.input
    same = calibrated.source if calibrated and not data else None
    # As many were asked for as were found whole and broken; a part of one source was drawn from the whole ones.
    parts = scored is not None and calibrated is not None and scored.source == calibrated.source
    broken = len(calibrated.skipped) if calibrated and not parts else 0
    return Request(
        model=before.model.source,
        weights=weights or (Path(before.model.weights) if before.model.weights else None),
        target=before.target.name,
        data=data or (scored.source if scored else None),
        calibration_data=calibration_data or same,
        input_shape=spec.shape,
        mean=spec.mean,
        std=spec.std,
        calibration_images=calibrated.images + broken if calibrated else Request.calibration_images,
        images=scored.images + len(scored.skipped) if scored else Request.images,
        seed=before.run.seed,
    )


def uncut_again(request: Request, run: Path) -> Model:
    """The model that a run was cut from.

    Args:
        request: what `asked_again` gives.
        run: the run folder.

    Raises:
        UsageError: it cannot be had from what the run tells of it.
    """
    try:
        if request.weights is None and (run / f"{TRAINED}.json").is_file():  # it was trained there from random weights
            return load_saved(run, TRAINED)
        return asked_model(request)
    except EdgepruneError as error:
        fix = "Give its weights with --weights, and run from the folder in which its Python file is found."
        what = f"the uncut model of the run cannot be loaded again: {error.what}"
        raise UsageError(what, where=error.where or str(run), fix=fix) from error

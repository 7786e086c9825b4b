"""A finished run opened again: what it was asked for, and what no file of it holds, its uncut model and its images."""

from __future__ import annotations

from pathlib import Path

from edgeprune.data import ImageSet, load_images, split, without
from edgeprune.draw import Draw
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.inputs import Photos, apart, asked_model, named_photos, set_aside
from edgeprune.journal import Journal
from edgeprune.model import Model, load_saved
from edgeprune.report.document import Report
from edgeprune.report.parts import DataUse, Images
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
    whole = before.data.draw.loaded if before.data.draw else scored.images if scored else 0
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
        images=whole + len(scored.skipped) if scored else Request.images,
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


def data_use(photos: Photos) -> DataUse:
    """What a report keeps of its images; `photos_again` finds them by it."""
    calibration, scoring = (Images(one.source, len(one), one.skipped) for one in (photos.calibration, photos.scoring))
    return DataUse(calibration, scoring, photos.draw and photos.draw.ended(photos.scoring, photos.choosing))


def photos_again(request: Request, before: DataUse, model: Model, journal: Journal) -> Photos:
    """The images of a finished run: what is scored was scored there, and what it learnt or was chosen by is not.

    Args:
        request: what `asked_again` gives. Others to calibrate with, another seed and an accuracy to keep to change
            nothing about that; where its `data` are not the run's, its images are as `compress` takes them.
        before: what the run's report keeps of its images; where that does not tell how they were drawn, they are as
            `compress` takes as many, which is the same only if all that were loaded were used.
        model: what it wants of an image.
        journal: told of broken images, and where the source has changed, so that the same cannot be had.

    Raises:
        DataError: they cannot be read, or none is left to score with.
    """
    scored, draw = before.scoring, before.draw
    if scored is None or draw is None or request.data != scored.source:
        return named_photos(request, model, journal)
    whole = draw.calibration_images + draw.loaded
    with journal.stage("images") as tick:
        limit = whole + len(scored.skipped)
        images = load_images(scored.source, model.input, limit=limit, seed=draw.seed, tick=tick)
    if (images.total, len(images)) != (draw.total, whole):
        journal.warn(
            f"{scored.source} holds {images.total} images, and held {draw.total} when the run was made"
            f" ({len(images)} and {whole} of them whole and taken): others are scored than then, some of which it may "
            "have been calibrated with or chosen by"
        )
        return named_photos(request, model, journal)
    calibration, loaded = _parted(images, draw, request, before, model)
    choosing, scoring = draw.parts(draw.numbered(loaded))
    choosing = None if choosing is None else without(choosing, calibration)
    photos = Photos(calibration, apart(scoring, calibration, "calibration", journal), choosing, draw)
    return photos if request.max_drop is None else set_aside(photos, request.max_drop, journal)


def _parted(images: ImageSet, draw: Draw, request: Request, before: DataUse, model: Model) -> tuple[ImageSet, ImageSet]:
    """Images to calibrate with, and those that the run loaded to score with."""
    first, rest = split(images, draw.calibration_images, draw.seed) if draw.calibration_images else (None, images)
    source = request.calibration_data or (before.calibration.source if before.calibration else images.source)
    if first is None or source != images.source:
        first = load_images(source, model.input, limit=request.calibration_images, seed=draw.seed)
    return first, rest


def fresh_photos(
    request: Request, before: DataUse, data: str | None, count: int | None, model: Model, journal: Journal
) -> ImageSet:
    """Images to verify a finished run with, decoded; none that it was calibrated with or chosen by.

    Args:
        request: what `asked_again` gives.
        before: what the run's report keeps of its images.
        data: where the images are; None for those that the run was scored with.
        count: how many at most; None for as many as the run was scored with, or as `compress` would take of others.
        model: what it wants of an image.
        journal: told of broken images, and where the run's own cannot be had any more.
    """
    if data is None:
        scoring = photos_again(request, before, model, journal).scoring
        return scoring.take(range(min(count or len(scoring), len(scoring))))
    found = load_images(data, model.input, limit=count or Request.images, seed=request.seed)
    try:
        own = photos_again(request, before, model, journal)
    except EdgepruneError as error:
        journal.warn(f"whether the run was calibrated with some of {data} is not known: {error.what} ({error.where})")
        return found
    fresh = apart(found, own.calibration, "calibration", journal)
    return fresh if own.choosing is None else apart(fresh, own.choosing, "selection", journal)

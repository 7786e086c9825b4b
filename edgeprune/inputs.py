"""What a request names, found and loaded: the model, the images, the file formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeprune.cutting import Traced
from edgeprune.data import ImageSet, check_labels, load_images, split, together, without
from edgeprune.draw import Draw
from edgeprune.errors import DataError, UsageError
from edgeprune.export import EXPORTERS, PRECISIONS, available_formats
from edgeprune.journal import Journal
from edgeprune.model import Model, known_models, load_model
from edgeprune.request import Request
from edgeprune.target import Target

_BATCH = 32
_CHOOSING = 2000
"""Images to choose by at most: half a point is ten of them."""
_TESTED = 10
"""One image in so many is kept for testing where none are given for it."""


@dataclass(frozen=True, eq=False)
class Photos:
    """Images to calibrate with, to score with, and to choose by where an accuracy is asked for; they share none.

    With `draw`, how they were drawn, those to score with and to choose by keep their places.
    """

    calibration: ImageSet
    scoring: ImageSet
    choosing: ImageSet | None = None
    draw: Draw | None = None

    def batches(self, model: Model) -> list[Tensor]:
        """The calibration images as the model wants them, float32 [n, channels, height, width] each."""
        images = (torch.from_numpy(batch) for batch in self.calibration.batches(model.input, _BATCH))
        return [batch.contiguous(memory_format=torch.channels_last) for batch in images]  # convolutions run faster so

    def first(self, model: Model, count: int) -> np.ndarray:
        """The first calibration images in one array, float32 [n <= count, channels, height, width]."""
        return model.input.normalise(self.calibration.images[:count])

    def held_out(self, model: Model, count: int) -> np.ndarray:
        """The first images that nothing was calibrated with, in one array, float32 [n <= count, channels, ...]."""
        return model.input.normalise(self.scoring.images[:count])


def chosen_formats(request: Request, target: Target, journal: Journal) -> tuple[str, ...]:
    """The formats to write: those asked for, or all that can be written here and that the target runs.

    Raises:
        UsageError: one cannot be written here, or not in a precision that is asked for, or not for raw pixels.
    """
    formats = _formats(request, target, journal)
    for name in formats:
        for precision in request.precisions:
            if precision not in PRECISIONS.get(name, request.precisions):
                others = ",".join(other for other in formats if other != name) or "others"
                raise UsageError(f"{name} files cannot be written in {precision}", fix=f"Give --formats {others}.")
    strange = [name for name in formats if name not in PRECISIONS]
    if request.fold_preprocessing and strange:
        what = f"{strange[0]} files cannot be written with --fold-preprocessing: only its own exporter knows them"
        raise UsageError(what, fix=f"Give --formats {','.join(PRECISIONS)}, or leave it out.")
    idle = [precision for precision in request.precisions if precision not in target.precisions]
    if idle:
        journal.warn(f"{target.title} does not compute in {' or '.join(idle)}: that makes files smaller, not faster")
    return formats


def _formats(request: Request, target: Target, journal: Journal) -> tuple[str, ...]:
    known = available_formats()
    for name in request.formats or ():
        if name not in known:
            EXPORTERS.load(name)
        if known[name]:
            raise UsageError(f"cannot write {name}: {known[name]}")
    if request.formats is not None:
        return request.formats
    for name in target.formats:
        if known.get(name):
            journal.warn(f"no {name} file is written: {known[name]}")
    return tuple(name for name in target.formats if not known.get(name, "unknown"))


def asked_model(request: Request, *, from_scratch: bool = False) -> Model:
    """The model that a request names; see `edgeprune.model.load_model`."""
    return load_model(
        request.model,
        weights=request.weights,
        input_shape=request.input_shape,
        mean=request.mean,
        std=request.std,
        from_scratch=from_scratch,
    )


def named_model(request: Request, journal: Journal) -> Model:
    """The model, with a warning where no file of weights was read."""
    model = asked_model(request)
    if not model.weights:
        journal.warn(
            "the weights are as the model's own code leaves them, random unless it loads some: then neither similarity "
            "nor accuracy means anything (give --weights FILE)"
        )
    return model


def named_data(request: Request, purpose: str) -> str:
    """Where the images are that a request names, or that come with its model.

    Raises:
        UsageError: neither is so; says for what they are needed.
    """
    card = known_models().get(request.model)
    data = request.data or (card.data if card else None)
    if not data:
        fix = "Give --data PATH: a folder of images, a tar, an .npz file, or path/file.py:function."
        raise UsageError(f"images are needed{purpose}", fix=fix)
    return data


def named_photos(request: Request, model: Model, journal: Journal) -> Photos:
    """Images to calibrate and to score with, decoded, and where an accuracy is asked for those to choose by."""
    card = known_models().get(request.model)
    data = named_data(request, ": to compare feature maps, to refit layers, to verify the files and to time them")
    calibration = request.calibration_data or (card.calibration_data if card and not request.data else None)
    with journal.stage("images") as tick:
        if not calibration or calibration == data:
            limit = request.images + request.calibration_images
            images = load_images(data, model.input, limit=limit, seed=request.seed, tick=tick)
            first, second = split(images, request.calibration_images, request.seed)
            parted = len(first)
        else:
            first = load_images(calibration, model.input, limit=request.calibration_images, seed=request.seed)
            second = load_images(data, model.input, limit=request.images, seed=request.seed, tick=tick)
            parted = 0
    draw = Draw(request.seed, second.total, parted, len(second))
    photos = Photos(first, apart(draw.numbered(second), first, "calibration", journal), draw=draw)
    return photos if request.max_drop is None else set_aside(photos, request.max_drop, journal)


def set_aside(photos: Photos, most: float, journal: Journal) -> Photos:
    """Half of the images to score with, but no more than it takes, become those to choose by, unless there are some.

    Args:
        photos: none that is to be scored may be seen before.
        most: points of accuracy that are to be judged by them.
        journal: told where they are too few for that.

    Raises:
        DataError: there is only one.
    """
    photos = photos if photos.choosing else _halved(photos)
    number = len(photos.choosing or ())
    if 100 / number > most:
        journal.warn(
            f"--max-drop {most:g} is judged by {number} images: one of them is {100 / number:.2g} points, and to lose "
            "none says little; give more images to score with"
        )
    return photos


def _halved(photos: Photos) -> Photos:
    images = photos.scoring
    number = min(len(images) // 2, _CHOOSING)
    if not number:
        what = "one image is not enough to choose by and to score with"
        raise DataError(what, where=images.source, fix="Give more, or leave --max-drop out.")
    choosing, others = images.take(range(number)), images.take(range(number, len(images)))
    return replace(photos, scoring=without(others, choosing), choosing=choosing)


def with_classes(found: Traced, file: Path | None, *images: ImageSet) -> Traced:
    """A model that knows what its classes are called, once the images' labels are known to be among them.

    Args:
        found: the model; names that it has already stay.
        file: a text file with the name of each class, one a line; None for those that the images give, if they give
            one for each output of the model. None are made up.
        images: what it is to be scored and calibrated or trained with.

    Raises:
        DataError: a label is none of the model's classes.
        UsageError: the file cannot be read, or names more or fewer classes than the model has.
    """
    count = found.program.shapes[found.program.outputs[0].name][1]
    for each in images:
        check_labels(each, count)
    known = [each.classes for each in images if len(each.classes) == count]
    names = _names_in(file, count) if file else found.model.classes or next(iter(known), ())
    return replace(found, model=replace(found.model, classes=names))


def _names_in(file: Path, count: int) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        fix = "It is a text file in UTF-8, one name a line."
        raise UsageError(f"cannot read the names of the classes: {error}", where=str(file), fix=fix) from error
    if len(names) != count or not all(names):
        empty = f" (line {names.index('') + 1} is empty)" if "" in names else ""
        what = f"{len(names)} names of classes{empty}; the model has {count} classes"
        raise UsageError(what, where=str(file), fix="Give each class one line, in the order of the model's outputs.")
    return names


def lessons(request: Request, test_data: str | None, model: Model, journal: Journal) -> tuple[ImageSet, ImageSet]:
    """Images to train on and images to test with, decoded; they share none.

    Args:
        request: its `data` are to train on.
        test_data: images to test with; None for those that come with the model, or else a tenth of the others.
        model: what it wants of an image.
        journal: told of broken images.

    Raises:
        DataError: there are no labels to train with, or no images are left to test with.
    """
    card = known_models().get(request.model)
    data = request.data or (card.calibration_data if card else None)
    test_data = test_data or (card.data if card and not request.data else None)
    if not data:
        fix = "Give --data PATH: a folder of class folders, a tar with labels.txt, an .npz, or path/file.py:function."
        raise UsageError("images with labels are needed to train on", fix=fix)
    with journal.stage("images") as tick:
        first = load_images(data, model.input, seed=request.seed, tick=tick)
        if test_data:
            second = load_images(test_data, model.input, limit=request.images, seed=request.seed)
        else:
            # Drawn at random already: at most so many for testing, the others for training.
            second, first = split(first, min(request.images, -(-len(first) // _TESTED)), request.seed)
    if first.labels is None:
        fix = "Put each class into a sub-folder, or give a tar with labels.txt, or an .npz or a function with labels."
        raise DataError("the images have no labels, which training needs", where=data, fix=fix)
    return first, apart(second, first, "training", journal)


def food(
    sources: Sequence[str], limit: int, photos: Photos, model: Model, journal: Journal, *, labels: bool, seed: int
) -> tuple[ImageSet, Photos]:
    """Images to distil on, decoded, and the images to calibrate and score with; none that is trained on is scored.

    Args:
        sources: where they are; nothing for those to calibrate with.
        limit: how many of each at most.
        photos: to calibrate and to score with.
        model: what it wants of an image.
        journal: told of broken images.
        labels: whether their labels are wanted; else they come without.
        seed: of the choice and order.

    Raises:
        DataError: labels are wanted, and there are none.
    """
    if not sources:
        found = photos.calibration
    else:
        with journal.stage("images") as tick:
            sets = [load_images(one, model.input, limit=limit, seed=seed, tick=tick) for one in sources]
        found = together(sets, seed)
        photos = replace(photos, scoring=apart(photos.scoring, found, "training", journal))
        if photos.choosing is not None:
            photos = replace(photos, choosing=without(photos.choosing, found))
    if labels and found.labels is None:
        fix = "Leave --labels out: none are needed."
        raise DataError(
            "the images to distil on do not all have labels, which --labels wants", where=found.source, fix=fix
        )
    return (found if labels else replace(found, labels=None)), photos


def apart(scoring: ImageSet, others: ImageSet, kind: str, journal: Journal) -> ImageSet:
    """The images to score with that are not among others; what is wrong with either is told."""
    for images in {id(others.skipped): others, id(scoring.skipped): scoring}.values():
        if images.skipped:
            journal.warn(
                f"{len(images.skipped)} broken images of {images.source} were skipped, {images.skipped[0]} first"
            )
    fresh = without(scoring, others)
    if len(fresh) < len(scoring):
        journal.warn(
            f"{len(scoring) - len(fresh)} images of {scoring.source} are also {kind} images and were not scored"
        )
    return fresh

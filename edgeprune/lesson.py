"""Lesson: a training made ready, and what tells it from others."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeprune.criteria import Criterion
from edgeprune.cutting import Traced
from edgeprune.data import ImageSet
from edgeprune.files import sha256_of_arrays, sha256_of_json
from edgeprune.inputs import Photos
from edgeprune.model import Model
from edgeprune.resize import all_tensors
from edgeprune.target import Target
from edgeprune.train.order import TrainOrder
from edgeprune.train.settings import Settings

_RATE, _RATE_FROM_WEIGHTS = 0.1, 0.01


@dataclass(frozen=True, eq=False)
class Lesson:
    """A training made ready.

    Attributes:
        order: what was asked for.
        settings: how to train.
        criterion: configured.
        target: loaded.
        start: the model as the training begins.
        images: to train on.
        scoring: to test with.
    """

    order: TrainOrder
    settings: Settings
    criterion: Criterion
    target: Target
    start: Traced
    images: ImageSet
    scoring: ImageSet

    @property
    def multiple(self) -> int:
        """Widths are rounded to multiples of this."""
        return self.target.channel_multiple if self.order.multiple is None else self.order.multiple

    @property
    def photos(self) -> Photos:
        """The first of the images to train on, as calibration images, and those to test with."""
        return Photos(
            self.images.take(range(min(len(self.images), self.order.request.calibration_images))), self.scoring
        )


def settings_of(order: TrainOrder, model: Model) -> Settings:
    """What was asked for, and what follows from the model where it was not."""
    channels, height, width = model.input.shape
    rate = (_RATE_FROM_WEIGHTS if model.weights else _RATE) if order.rate is None else order.rate
    padding = min(height, width) // 8 if order.padding is None else order.padding
    flip = channels == 3 if order.flip is None else order.flip
    return replace(order.settings, rate=rate, padding=padding, flip=flip, seed=order.request.seed)


def fingerprint_of(lesson: Lesson) -> str:
    """Of all that decides what is trained: equal fingerprints, equal weights (on the CPU)."""
    order, start = lesson.order, lesson.start
    pruning = {
        "criterion": lesson.criterion.name,
        "settings": dict(lesson.criterion.settings),
        "budget": order.request.budget.to_json(),
        "scope": order.request.scope,
        "multiple": lesson.multiple,
        "freeze_last": order.freeze_last,
        "zero": order.zero,
        "calibration_images": order.request.calibration_images,
    }
    document = {
        "channels": start.channel_map.fingerprint,
        "weights": sha256_of_arrays(one.numpy(force=True) for one in all_tensors(start.model.module).values()),
        "images": sha256_of_arrays([lesson.images.images, lesson.images.labels]),
        "input": start.model.input.to_json(),
        "training": lesson.settings.decisive(),
        "pruning": pruning if order.prune else None,
    }
    return sha256_of_json(document)

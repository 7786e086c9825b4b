"""The images that show an int8 exporter which values occur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.export.goal import Goal
from edgeprune.export.race import Race

LEAST_IMAGES = 8
"""Fewer say little of the ranges that other images need."""
_HELD_OUT = 4
"""One image in so many is kept aside to choose between ways to calibrate."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images as a model wants them, in two parts that share none.

    Attributes:
        images: whose values are looked at, float32 [n >= 1, channels, height, width].
        held_out: to choose by, where there are several ways to turn these values into scales: the same.
        goal: how often the file must be right; layers that cost more stay in float. None for all in int8.
        race: where layers are timed; those that take longer in int8 stay in float. None for all in int8.
    """

    images: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.float32]
    goal: Goal | None = None
    race: Race | None = None


def calibration_of(images: npt.NDArray[np.float32], source: str = "") -> Calibration:
    """Split calibration images, once they are known to be fit for it.

    Args:
        images: normalised as the model wants them, float32 [n, channels, height, width].
        source: where they come from, for messages.

    Raises:
        DataError: there are too few, they hold NaN or infinities, all are the same or each is of one colour.
    """
    if len(images) < LEAST_IMAGES:
        what = f"int8 needs at least {LEAST_IMAGES} images to calibrate with, there are {len(images)}"
        raise DataError(what, where=source, fix="Give more images with --data or --calibration-data.")
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    if not finite.all():
        what = f"{int((~finite).sum())} of {len(images)} calibration images hold NaN or infinities"
        raise DataError(what, where=source, fix="Check --mean and --std, and the function that makes the images.")
    if not np.ptp(images, axis=0).any() or not np.ptp(images, axis=(2, 3)).any():
        what = "the calibration images are all the same, or each of one colour: they do not show which values occur"
        raise DataError(what, where=source, fix="Give images like those the model will meet: --calibration-data PATH.")
    held_out = len(images) // _HELD_OUT
    return Calibration(images[:-held_out], images[-held_out:])

"""Draw: which of a source's images a run scored, so that the very same can be scored again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprune.data import ImageSet
from edgeprune.errors import DataError


@dataclass(frozen=True)
class Draw:
    """How images to score with were drawn from their source, and what became of each.

    Attributes:
        seed: of the choice and the order.
        total: how many images the source held.
        calibration_images: how many whole ones were split off to calibrate with; 0 where others are for that.
        loaded: how many whole ones were left. The places below count these, from 0, in the order drawn.
        set_aside: the place from which on they were to be scored; those before it were to choose by, if any.
        left_out: places of those that were neither scored nor chosen by: they are also images to calibrate with, to
            choose by or to train on.
    """

    seed: int
    total: int
    calibration_images: int
    loaded: int
    set_aside: int = 0
    left_out: tuple[int, ...] = ()

    def numbered(self, images: ImageSet) -> ImageSet:
        """The loaded images, each with its place."""
        return replace(images, places=np.arange(self.loaded))

    def parts(self, images: ImageSet) -> tuple[ImageSet | None, ImageSet]:
        """The images to choose by, None if there were none, and those to score with.

        Args:
            images: the loaded ones, with their places.

        Raises:
            DataError: none is to be scored.
        """
        used = np.setdiff1d(np.arange(self.loaded), self.left_out)
        choosing, scoring = used[used < self.set_aside], used[used >= self.set_aside]
        if not len(scoring):
            what = "none of the run's images to score with is left"
            raise DataError(what, where=images.source, fix="Name others with --data.")
        return images.take(choosing) if len(choosing) else None, images.take(scoring)

    def ended(self, scoring: ImageSet, choosing: ImageSet | None) -> Draw:
        """This, once it is known which of the loaded images were scored and which were chosen by; both keep places."""
        chosen = () if choosing is None else _places(choosing)
        out = np.setdiff1d(np.arange(self.loaded), (*_places(scoring), *chosen))
        last = max(chosen, default=-1)
        return replace(self, set_aside=last + 1, left_out=tuple(int(place) for place in out))


def _places(images: ImageSet) -> tuple[int, ...]:
    assert images.places is not None
    return tuple(int(place) for place in images.places)

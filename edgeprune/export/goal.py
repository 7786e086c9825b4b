"""How often an int8 file must be right at least, and the images that tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeprune.data import ImageSet, InputSpec
from edgeprune.export.execute import Array, Run
from edgeprune.export.quiet import quiet
from edgeprune.progress import Tick, silent

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Goal:
    """What a file may lose against the uncut model.

    Attributes:
        images: to judge by; nothing is calibrated with them, and nothing that is reported is counted on them.
        spec: what the model wants of an image.
        truth: the right class of each image, int64 [n].
        right: for how many of them the uncut model gives it.
        most: how many points may be lost, a point being a hundredth of the images.
        metric: "top1", where `truth` are labels, or "agreement", where they are the uncut model's own classes.
        in_float: the largest share of an int8 file's layers that may stay in float, 0 to 1.
        tick: told how far a search is.
    """

    images: ImageSet
    spec: InputSpec
    truth: npt.NDArray[np.int64]
    right: int
    most: float
    metric: Literal["top1", "agreement"]
    in_float: float = 1.0
    tick: Tick = silent

    def lost(self, run: Run) -> float:
        """How many points a file loses."""
        found = np.concatenate([outputs[0].argmax(axis=1) for outputs in self._outputs(run, self.images)])
        return 100 * (self.right - int((found == self.truth).sum())) / len(self.truth)

    def met(self, lost: float) -> bool:
        """Whether so many points may be lost."""
        return lost <= self.most + _ROUNDING

    def outputs(self, run: Run, count: int) -> list[tuple[Array, ...]]:
        """A file's outputs for the first images, image by image, float32 [1, ...] each."""
        return list(self._outputs(run, self.images.take(range(min(count, len(self.images))))))

    def _outputs(self, run: Run, images: ImageSet) -> Iterator[tuple[Array, ...]]:
        with quiet():
            for batch in images.batches(self.spec):
                yield from (tuple(run(np.ascontiguousarray(batch[at : at + 1]))) for at in range(len(batch)))

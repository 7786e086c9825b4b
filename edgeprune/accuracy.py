"""How often a model is right, or agrees with the uncut one, on images it was not calibrated with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.data import ImageSet
from edgeprune.errors import ModelError
from edgeprune.inference import Inference
from edgeprune.model import Model
from edgeprune.program import Program
from edgeprune.progress import Tick, silent

TOP5_FROM_CLASSES = 20
"""Top-5 is told from this many classes up; with fewer it says little (issue: report schema 1)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The classes a model thinks most likely for each image.

    Attributes:
        ranked: int64 [images, 5 or the number of classes], most likely first.
        classes: how many there are.
    """

    ranked: NDArray[np.int64]
    classes: int

    def top(self, k: int, truth: NDArray[np.int64]) -> float:
        """Share of images, 0 to 1, whose true class is among the first `k`."""
        return float((self.ranked[:, :k] == truth[:, None]).any(axis=1).mean())


def predict(model: Model, program: Program, images: ImageSet, tick: Tick = silent, batch: int = 32) -> Predictions:
    """Run a model over images.

    Args:
        model: what to run.
        program: its program, or that of a model of the same shapes.
        images: what to run it on.
        tick: progress, in images.
        batch: how many images at a time.

    Raises:
        ModelError: an output is not a finite number.
    """
    ranked, done, classes = [], 0, 0
    infer = Inference(program, model.module)
    with torch.inference_mode():
        for inputs in images.batches(model.input, batch):
            logits = infer(torch.from_numpy(inputs))
            if not bool(torch.isfinite(logits).all()):
                raise ModelError(
                    "the model's output is not finite", where=f"{model.name}, image {done} of {images.source}"
                )
            classes = logits.shape[1]
            ranked.append(logits.topk(min(5, classes), dim=1).indices.numpy())
            done += len(inputs)
            tick(done, len(images))
    return Predictions(np.concatenate(ranked), classes)

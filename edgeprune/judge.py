"""judge: how good the models of a run are, step by step: the uncut one, the cut one and the recovered one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.accuracy import TOP5_FROM_CLASSES, predict
from edgeprune.data import ImageSet
from edgeprune.distance import distance
from edgeprune.inference import Inference
from edgeprune.model import Model
from edgeprune.program import Program
from edgeprune.progress import Tick
from edgeprune.report.parts import Accuracy, Change, Shares
from edgeprune.stats import paired_difference

_BATCHES = 4
"""Calibration batches on which outputs are compared: a model that recovery has spoiled shows on 128 images."""


def accuracy_of(models: Sequence[tuple[Model, Program]], images: ImageSet, tick: Tick) -> Accuracy:
    """Accuracy of the uncut, the cut and any recovered model; without labels, agreement with the uncut one.

    Args:
        models: these two or three, each with its program.
        images: that none of them was calibrated with.
        tick: progress.
    """
    ticks = (_part(tick, place, len(models)) for place in range(len(models)))
    found = [predict(*one, images, its) for one, its in zip(models, ticks, strict=True)]
    truth = found[0].ranked[:, 0] if images.labels is None else images.labels

    def shares(k: int) -> Shares:
        after = [one.top(k, truth) for one in found[1:]]
        return Shares(found[0].top(k, truth), after[0], after[1] if len(after) > 1 else None)

    top1 = shares(1)
    top5 = shares(5) if images.labels is not None and found[0].classes >= TOP5_FROM_CLASSES else None
    metric: Literal["top1", "agreement"] = "agreement" if images.labels is None else "top1"
    changes = {} if images.labels is None else _changes([one.ranked[:, 0] == truth for one in found])
    return Accuracy(top1.baseline, top1.after_cut, top1.after_recovery, metric, len(images), top5, changes)


def _changes(right: Sequence[NDArray[np.bool_]]) -> dict[str, Change]:
    """For the cut and any recovered model, how many more images it has right than the uncut one, the first."""
    changes = {}
    for step, after in zip(("after_cut", "after_recovery"), right[1:], strict=False):
        gained, lost = int((after & ~right[0]).sum()), int((right[0] & ~after).sum())
        difference = (gained - lost) / len(after)
        changes[step] = Change(difference, paired_difference(gained, lost, len(after)))
    return changes


def _part(tick: Tick, place: int, count: int) -> Callable[[int, int], None]:
    """Progress of one of several equal parts."""
    return lambda done, total: tick(place * total + done, count * total)


def distances(
    uncut: tuple[Program, Model], program: Program, models: Sequence[Model], batches: Sequence[Tensor]
) -> list[float]:
    """How far the outputs of models are from those of the uncut one, without labels; see `edgeprune.distance`.

    Args:
        uncut: its program and the model.
        program: of the models, which have the same shapes.
        models: to compare with it.
        batches: images, float32 [n, channels, height, width] each; the first few are looked at.
    """

    def outputs(of: Program, model: Model) -> list[tuple[Tensor, ...]]:
        run = Inference(of, model.module)
        return [(run(batch),) for batch in batches[:_BATCHES]]

    with torch.inference_mode():
        wanted = outputs(*uncut)
        return [distance(wanted, outputs(program, model)) for model in models]

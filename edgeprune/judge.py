"""judge: how good the models of a run are, step by step: the uncut one, the cut one, and each step of recovery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edgeprune.accuracy import TOP5_FROM_CLASSES, Predictions, predict
from edgeprune.data import ImageSet
from edgeprune.distance import distance
from edgeprune.inference import Inference
from edgeprune.model import Model
from edgeprune.program import Program
from edgeprune.progress import Tick
from edgeprune.report.scores import UNCUT, Accuracy, Step, change_between

_BATCHES = 4
"""Calibration batches on which outputs are compared: a model that recovery has spoiled shows on 128 images."""


def accuracy_of(
    uncut: tuple[Program, Model], program: Program, steps: Mapping[str, Model], kept: str, images: ImageSet, tick: Tick
) -> Accuracy:
    """Accuracy of the uncut model and after each step; without labels, agreement with the uncut one.

    Args:
        uncut: its program and the model.
        program: of the other models.
        steps: step -> model.
        kept: the step whose model is handed over.
        images: that none of them was calibrated with.
        tick: progress.
    """
    models = {UNCUT: (uncut[1], uncut[0]), **{name: (model, program) for name, model in steps.items()}}
    ticks = (_part(tick, place, len(models)) for place in range(len(models)))
    found = {name: predict(*one, images, its) for (name, one), its in zip(models.items(), ticks, strict=True)}
    labelled = images.labels is not None
    truth = found[UNCUT].ranked[:, 0] if images.labels is None else images.labels
    several = labelled and found[UNCUT].classes >= TOP5_FROM_CLASSES
    before = found[UNCUT].ranked[:, 0] == truth

    def step(name: str, told: Predictions) -> Step:
        after = told.ranked[:, 0] == truth
        change = change_between(before, after) if labelled and name != UNCUT else None
        return Step(name, told.top(1, truth), told.top(5, truth) if several else None, change, name == kept)

    judged = tuple(step(name, told) for name, told in found.items())
    return Accuracy("top1" if labelled else "agreement", len(images), judged)


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

"""Distilling: what a corridor does to let a cut model learn from the uncut one, and what it tells the user."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.cutting import Traced
from edgeprune.data import ImageSet, check_labels
from edgeprune.errors import DataError, ModelError
from edgeprune.files import sha256_of_arrays, sha256_of_json
from edgeprune.graph import GraphNetwork
from edgeprune.journal import Journal
from edgeprune.model import Model
from edgeprune.plan import PruningPlan
from edgeprune.resize import all_tensors
from edgeprune.train.checkpoint import NAME
from edgeprune.train.distil import Distillation, answers, comparable, cut_blocks, nearness, teacher_of
from edgeprune.train.job import Alone, Job
from edgeprune.train.loop import Trained, fit
from edgeprune.train.recipe import DistilOrder
from edgeprune.train.settings import Clock, Settings

_HELD_OUT, _HELD_OUT_MOST = 10, 500
"""One image in so many judges the training instead of being trained on, and so many at most."""
_FEWEST = 10
_CHANCE = 2.0
"""Labels that the uncut model meets less than so many times as often as by chance are not its own."""


@dataclass(frozen=True, eq=False)
class Study:
    """What a distillation was asked for, with its images at hand.

    Attributes:
        order: how.
        images: to train on.
        place: a folder for checkpoints.
        seed: of everything random.
        clock: what minutes are counted by, in seconds.
    """

    order: DistilOrder
    images: ImageSet
    place: Path
    seed: int
    clock: Clock = time.monotonic


@dataclass(frozen=True, eq=False)
class Pupil:
    """A model about to learn.

    Attributes:
        plan: which filters stayed.
        uncut: the model to learn from.
        start: the cut model as it begins, recovered without training.
    """

    plan: PruningPlan
    uncut: Traced
    start: Model


@dataclass(frozen=True, eq=False)
class Distilled:
    """What became of it.

    Attributes:
        model: after the distillation; the one that was given if nothing better was found.
        better: whether it is better than that, on images it was not trained on.
        settings: how it was done, JSON values.
        rows: what was found on the way.
    """

    model: Model
    better: bool
    settings: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]


def distilled(study: Study, pupil: Pupil, journal: Journal) -> Distilled:
    """Let a cut model learn from the uncut one, or go on where that was interrupted.

    Args:
        study: what was asked for.
        pupil: the two models.
        journal: told how it goes.

    Raises:
        ModelError: the cut model knows no training mode.
        DataError: there are too few images, or labels that are none of the model's classes.
        TrainingError: see `edgeprune.train.loop.fit`.
    """
    check_trainable(pupil.start)
    uncut, spec, recipe = pupil.uncut.model, pupil.uncut.model.input, study.order.recipe
    settings = study.order.settings_for(spec.shape, study.seed)
    lesson, held_out = _parts(study.images)
    check_labels(study.images, pupil.uncut.program.shapes[pupil.uncut.program.outputs[0].name][1])
    teacher = teacher_of(uncut.module, settings)
    wanted = answers(teacher, held_out, spec, settings.mixed)
    _check_meant(wanted, held_out, journal)
    blocks = _blocks(pupil)
    job = Job(
        module=pupil.start.module,
        input=spec,
        images=lesson,
        settings=settings,
        objective=Distillation(teacher, blocks, recipe),
        fingerprint=_fingerprint(study, pupil, settings),
        companion=Alone(),
        evaluate=nearness(wanted, held_out, spec, settings.mixed),
        keep="distance",
    )
    trained = _fit(job, study, journal)
    if not trained.kept:
        journal.warn(
            f"distillation found nothing better than the model before it, which is kept: judged by {len(held_out)} "
            "images that were not trained on, its outputs are nearest to those of the uncut model"
        )
    told = {key: value for key, value in settings.decisive().items() if value is not None}
    found = {"images": len(lesson), "held_out": len(held_out), "blocks": len(blocks), **recipe.to_json(), **told}
    model = replace(pupil.start, module=trained.module) if trained.kept else pupil.start
    return Distilled(model, bool(trained.kept), found, trained.rows)


def check_trainable(cut: Model) -> None:
    """Refuse a model that knows no training mode.

    Raises:
        ModelError: it is a graph of operators.
    """
    if isinstance(cut.module, GraphNetwork):
        raise ModelError(
            "this network cannot be distilled: it is cut as a graph of operators, which knows no training mode",
            where=cut.rewritten or cut.name,
            fix="Recover it without training: --recover reconstruct.",
        )


def _parts(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Images to train on, and images to judge with."""
    if len(images) < _FEWEST:
        what = f"{len(images)} images are too few to distil with: {_FEWEST} at least are needed, thousands are better"
        raise DataError(what, where=images.source, fix="Name more, labels are not needed: --train-data PATH.")
    held_out = min(len(images) // _HELD_OUT, _HELD_OUT_MOST)
    return images.take(range(held_out, len(images))), images.take(range(held_out))


def _check_meant(wanted: list[tuple[torch.Tensor]], images: ImageSet, journal: Journal) -> None:
    """Warn of labels that contradict the uncut model."""
    if images.labels is None or wanted[0][0].ndim != 2:
        return
    found = torch.cat([one for (one,) in wanted])
    right = float((found.argmax(1).numpy() == images.labels).mean())
    if right * found.shape[1] < _CHANCE:
        journal.warn(
            f"the uncut model is right on {right:.1%} of the images with labels, hardly more than by chance: they may "
            "count the classes in another order, and then --labels does harm"
        )


def _blocks(pupil: Pupil) -> tuple[str, ...]:
    """The blocks whose outputs are compared."""
    keep = pupil.plan.keep
    spaces = [
        space for space in pupil.uncut.channel_map.spaces if len(keep.get(space.name, range(space.size))) < space.size
    ]
    image = torch.zeros(1, *pupil.start.input.shape)
    return comparable(pupil.uncut.model.module, pupil.start.module, cut_blocks(spaces), image)


def _fingerprint(study: Study, pupil: Pupil, settings: Settings) -> str:
    """Of all that decides what is trained: equal fingerprints, equal weights (on the CPU)."""
    tensors = all_tensors(pupil.uncut.model.module).values()
    document = {
        "plan": pupil.plan.fingerprint,
        "uncut": sha256_of_arrays(one.numpy(force=True) for one in tensors),
        "images": sha256_of_arrays([study.images.images, study.images.labels]),
        "input": pupil.uncut.model.input.to_json(),
        "training": settings.decisive(),
        "recipe": study.order.recipe.to_json(),
    }
    return sha256_of_json(document)


def _fit(job: Job, study: Study, journal: Journal) -> Trained:
    place = study.place
    if study.order.restart:
        (place / NAME).unlink(missing_ok=True)
    elif (place / NAME).is_file():
        journal.say(f"an interrupted distillation is in {place}: it goes on from there")

    def say(row: Mapping[str, Any]) -> None:
        journal.say(
            f"{row['share']:4.0%}: epoch {row['epoch']}, loss {row['loss']:.4f}, {row['distance']:.4g} from the uncut "
            f"model on {row['images']} other images"
        )

    try:
        with journal.stage("distil") as tick:
            return fit(job, place, tick=tick, say=say, clock=study.clock)
    except KeyboardInterrupt:
        if (place / NAME).is_file():
            journal.say(f"the distillation so far is in {place}: the same command goes on from there")
        raise

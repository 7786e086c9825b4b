"""The corridor of `train`: a model is trained and pruned in one run, cut, and handed to what `compress` ends with."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune import __version__
from edgeprune.criteria import configure
from edgeprune.cutting import Traced, cut, traced
from edgeprune.data import ImageSet, InputSpec
from edgeprune.errors import ModelError
from edgeprune.export.write import check_size
from edgeprune.files import write_json, write_lines
from edgeprune.graph import GraphNetwork
from edgeprune.inputs import asked_model, chosen_formats, lessons, with_classes
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.lesson import Lesson, fingerprint_of, settings_of
from edgeprune.model import Model, save_model
from edgeprune.pipeline import ROWS, UNSAFE, Result, conclude
from edgeprune.plan import PruningPlan
from edgeprune.prune.allocate import allocate, left_whole
from edgeprune.prune.score import Scorer
from edgeprune.racing import race_of
from edgeprune.recovery import Recovery
from edgeprune.reopening import TRAINED, TRAINING
from edgeprune.report.document import Report
from edgeprune.report.parts import Method
from edgeprune.report.scores import CUT
from edgeprune.resize import copy_tensors
from edgeprune.runfolder import check_free, staged
from edgeprune.target import load_target
from edgeprune.train.checkpoint import NAME
from edgeprune.train.device import chosen
from edgeprune.train.evaluate import top1
from edgeprune.train.job import Alone, Job, cross_entropy
from edgeprune.train.loop import Trained, fit
from edgeprune.train.order import TrainOrder
from edgeprune.train.soft_prune import SoftPruning

SCHEMA = 1
_SCORED = 2000
"""Images that are scored after each epoch, at most."""


@dataclass(frozen=True, eq=False)
class Finished:
    """What a training came to.

    Attributes:
        document: what `training.json` holds.
        rows: what is known of each epoch.
        folder: the run folder.
        report: of the cut model; None if nothing was pruned.
    """

    document: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    folder: Path
    report: Report | None

    def to_json(self) -> dict[str, Any]:
        """This as a JSON document."""
        report = None if self.report is None else self.report.to_json()
        return {
            "schema": SCHEMA,
            "training": dict(self.document),
            "epochs": [dict(row) for row in self.rows],
            "report": report,
        }


def train(order: TrainOrder, listener: Listener | None = None) -> Finished:
    """Train a model and prune it meanwhile; cut it, export it, verify and measure the files, and report.

    An interrupted training is kept in `<out>.training`; the same order goes on from there.

    Raises:
        EdgepruneError: see `edgeprune.errors`.
        KeyboardInterrupt: a signal asked for the end.
    """
    order.check()
    journal, request = Journal(listener or Nobody()), order.request
    target = load_target(request.target)
    criterion = configure(request.criterion, request.criterion_options)
    formats = chosen_formats(request, target, journal) if order.prune else ()
    race = race_of(request, target, journal) if order.prune else None
    chosen(order.settings.device)
    model = _model(order, journal)
    check_size(model, formats)
    out = request.out or Path("runs") / f"{UNSAFE.sub('-', model.name)}-trained"
    check_free(out, request.overwrite, TRAINING)
    images, scoring = lessons(request, order.test_data, model, journal)
    start = with_classes(_trainable(model, journal), request.class_names, scoring, images)
    lesson = Lesson(order, settings_of(order, model), criterion, target, start, images, scoring)
    pruning = _soft_pruning(lesson) if order.prune else None
    place = out.with_name(f"{out.name}.training")
    trained = _fit(lesson, pruning, place, journal)
    with staged(out) as folder:
        document = _document(lesson, trained)
        write_json(folder / TRAINING, document)
        write_lines(folder / ROWS, trained.rows)
        ended = replace(start.model, module=trained.module)
        save_model(ended, folder, TRAINED)
        report = None
        if pruning is not None and pruning.plan is not None:
            result = _result(lesson, pruning.plan, replace(start, model=ended), journal)
            report = conclude(request, result, lesson.photos, target, formats, folder, journal, race=race)
    shutil.rmtree(place, ignore_errors=True)
    return Finished(document, trained.rows, out, report)


def _model(order: TrainOrder, journal: Journal) -> Model:
    """The model, with random weights that the seed decides where it is not given any."""
    request = order.request
    with journal.stage("load"), torch.random.fork_rng(devices=()):
        torch.manual_seed(request.seed)
        return asked_model(request, from_scratch=order.from_scratch)


def _trainable(model: Model, journal: Journal) -> Traced:
    """The model and its channels.

    Raises:
        ModelError: it can only be cut as a graph of operators, which stands for a network in eval mode.
    """
    found = traced(model, journal)
    if isinstance(found.model.module, GraphNetwork):
        raise ModelError(
            "this network cannot be trained here: it is cut as a graph of operators, which knows no training mode",
            where=found.model.rewritten or model.name,
            fix="Train it with your own code, then `edgeprune compress` it.",
        )
    return found


def _soft_pruning(lesson: Lesson) -> SoftPruning:
    """The schedule; a budget that cannot be reached is an error before the training, not after its first epoch."""
    order, start = lesson.order, lesson.start
    request, channel_map = order.request, start.channel_map
    whole = left_whole(channel_map, request.scope)
    names = [space.name for space in channel_map.spaces if space.name not in whole]
    batches = lesson.photos.batches(start.model) if lesson.criterion.about.needs_data else []
    scored = copy.deepcopy(start.model.module)

    def choose(module: nn.Module) -> PruningPlan:
        copy_tensors(module, scored)
        scorer = Scorer(channel_map, start.program, scored, batches)
        scores = scorer.score(lesson.criterion, names, seed=request.seed, share=request.budget.share)
        return allocate(channel_map, scores, request.budget, lesson.multiple)

    choose(start.model.module)
    return SoftPruning(choose, channel_map, start.program, order.freeze_last, order.zero)


def _fit(lesson: Lesson, pruning: SoftPruning | None, place: Path, journal: Journal) -> Trained:
    """Train, or go on with a training that was interrupted."""
    settings, model, scoring = lesson.settings, lesson.start.model, lesson.scoring
    if lesson.order.restart:
        (place / NAME).unlink(missing_ok=True)
    elif (place / NAME).is_file():
        journal.say(f"an interrupted training is in {place}: it goes on from there")
    scored = scoring.take(range(min(len(scoring), _SCORED)))
    job = Job(
        module=model.module,
        input=model.input,
        images=lesson.images,
        settings=settings,
        objective=cross_entropy(settings.smoothing),
        fingerprint=fingerprint_of(lesson),
        companion=pruning or Alone(),
        evaluate=None if scoring.labels is None else lambda module: _score(module, scored, model.input),
    )

    def say(row: Mapping[str, Any]) -> None:
        journal.say(_told(row, settings.epochs))

    try:
        with journal.stage("train") as tick:
            return fit(job, place, tick=tick, say=say)
    except KeyboardInterrupt:
        if (place / NAME).is_file():
            journal.say(f"the training so far is in {place}: the same command goes on from there")
        raise


def _score(module: nn.Module, images: ImageSet, spec: InputSpec) -> dict[str, Any]:
    return {"top1": top1(module, images, spec), "images": len(images)}


def _told(row: Mapping[str, Any], epochs: int) -> str:
    """An epoch's row as a line."""
    parts = [f"epoch {row['epoch']:3d}/{epochs}: loss {row['loss']:.3f}"]
    if "top1" in row:
        parts.append(f"top-1 {row['top1']:.1%} of {row['images']}")
    if "filters_at_zero" in row:
        state = "frozen" if row["frozen"] else f"{row['new_ones']} others than before"
        parts.append(f"{row['filters_at_zero']} filters at zero ({state})")
    return ", ".join(parts)


def _result(lesson: Lesson, plan: PruningPlan, ended: Traced, journal: Journal) -> Result:
    """The trained model, cut, beside the model it is compared with: the one it began as, or itself with all filters.

    Of random weights nothing could be said; then the filters that went were at zero, and both compute the same.
    """
    ended, pruned = cut(plan, ended, journal)
    settings = {key: value for key, value in lesson.settings.decisive().items() if value is not None}
    recovery = Method("train", {**settings, "freeze_last": lesson.order.freeze_last})
    if lesson.start.model.weights:
        before = replace(ended, model=lesson.start.model)
    else:
        before = ended
        journal.warn(
            "trained from random weights: the uncut model is the trained one before its filters at zero were cut, so "
            "its accuracy is that of the cut one; for ordinary training give --ratio 0"
        )
    return Result(plan, before, pruned, Recovery({CUT: pruned.model}, CUT, recovery))


def _document(lesson: Lesson, trained: Trained) -> dict[str, Any]:
    order, model = lesson.order, lesson.start.model
    return {
        "schema": SCHEMA,
        "edgeprune_version": __version__,
        "command": list(order.request.command),
        "model": model.source,
        "weights": model.weights,
        "images": {"source": lesson.images.source, "count": len(lesson.images)},
        "test_images": {"source": lesson.scoring.source, "count": len(lesson.scoring)},
        "settings": lesson.settings.to_json(),
        "device": str(chosen(lesson.settings.device)),
        "criterion": lesson.criterion.name if order.prune else None,
        "freeze_last": order.freeze_last if order.prune else None,
        "elapsed_s": round(trained.elapsed_s, 3),
    }

"""The corridor of `finetune`: the cut model of a finished run learns on from the uncut one, into a run of its own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeprune.cutting import Traced, cut, traced
from edgeprune.distilling import Pupil, check_trainable
from edgeprune.errors import ModelError, ParityError, UsageError
from edgeprune.export.parity import check
from edgeprune.exporting import PARITY_IMAGES
from edgeprune.inputs import Photos, chosen_formats, with_classes
from edgeprune.journal import Journal, Listener, Nobody
from edgeprune.model import Model, load_saved, with_tensors
from edgeprune.pipeline import Outcome, Result, conclude, study_of
from edgeprune.plan import PruningPlan
from edgeprune.prune.allocate import left_whole
from edgeprune.prune.surgery import check_plan
from edgeprune.racing import race_of
from edgeprune.recovery import Recovery, taught
from edgeprune.reopening import asked_again, photos_again, uncut_again
from edgeprune.report import mixed
from edgeprune.report.document import Report
from edgeprune.report.scores import BLOCKS, CUT, NORMS, RECONSTRUCTION, RECOVERY
from edgeprune.request import OnnxBatch, Request, TfliteConverter, TfliteInt8
from edgeprune.resize import all_tensors
from edgeprune.runfolder import check_free, staged
from edgeprune.target import load_target
from edgeprune.train.group import is_first, joined
from edgeprune.train.recipe import DistilOrder

_STEPS = {"none": CUT, "bn": NORMS, "reconstruct": RECONSTRUCTION, "blocks": BLOCKS}
"""How the run's model was made -> the step that it is in the new report; anything else is a recovery."""


@dataclass(frozen=True)
class FinetuneOrder:
    """Which run's model to train on, and with what; what is None is as that run has it.

    Attributes:
        run: its folder.
        order: how.
        weights: of the uncut model, which teaches.
        data: images to score with.
        calibration_data: images to train on where the order names none, and for int8 files.
        target: a board's name or the path of a board file.
        formats: file formats to write; None for all that can be written here.
        precisions: to write each of them in.
        max_drop: see `edgeprune.request.Request`; and so the next five.
        float_where_faster: whether layers of int8 files stay in float where that is timed to be faster here.
        tflite_converter: what makes TFLite files.
        tflite_int8: what int8 is in TFLite files.
        onnx_batch: how many images an ONNX file takes at once.
        fold_preprocessing: whether files take raw pixels.
        out: the new run folder; None for `<run>-finetuned`.
        seed: of everything random but which of the run's images are used.
        overwrite: replace a run folder that exists.
        bench: whether to measure time.
        command: what the user typed, for the report.
    """

    run: Path
    order: DistilOrder = field(default_factory=DistilOrder)
    weights: Path | None = None
    data: str | None = None
    calibration_data: str | None = None
    target: str | None = None
    formats: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ("fp32",)
    max_drop: float | None = None
    float_where_faster: bool = False
    tflite_converter: TfliteConverter = "auto"
    tflite_int8: TfliteInt8 = "static"
    onnx_batch: OnnxBatch = "dynamic"
    fold_preprocessing: bool = False
    out: Path | None = None
    seed: int | None = None
    overwrite: bool = False
    bench: bool = True
    command: tuple[str, ...] = ()


def finetune(asked: FinetuneOrder, listener: Listener | None = None) -> Outcome:
    """Train a finished run's cut model towards the uncut one; export it, verify and measure the files, and report.

    An interrupted training is kept in `<out>.training`; the same order goes on from there. Of several processes that
    torchrun started the first one makes the run; the others' outcome has no report.

    Raises:
        EdgepruneError: see `edgeprune.errors`; nothing is left behind then, but the checkpoint.
        KeyboardInterrupt: a signal asked for the end.
    """
    asked.order.check()
    before = Report.load(asked.run / "report.json")
    plan = PruningPlan.load(asked.run / "plan.json")
    request = _request(asked, before)
    request.check()
    journal = Journal(listener or Nobody())
    target = load_target(request.target)
    formats = chosen_formats(request, target, journal)
    out = asked.out or asked.run.with_name(f"{asked.run.resolve().name}-finetuned")
    check_free(out, asked.overwrite)
    if out.resolve() == asked.run.resolve():
        raise UsageError("the run itself is not replaced", where=str(out), fix="Name another folder with --out.")
    race = race_of(request, target, journal)
    with journal.stage("load"):
        saved = load_saved(asked.run)
        model = replace(uncut_again(request, asked.run), classes=saved.classes)
    check_trainable(saved)
    photos = photos_again(request, before.data, model, journal)
    uncut = traced(model, journal)
    check_plan(plan, uncut.channel_map)
    _check_same(uncut.model, before, asked.run, photos)
    photos, study = study_of(request, asked.order, photos, model, out, journal)
    uncut = with_classes(uncut, None, photos.scoring)
    if set(plan.keep) & set(left_whole(uncut.channel_map, "inner")):
        request = replace(request, scope="all")
    whole = left_whole(uncut.channel_map, request.scope)
    uncut, pruned = cut(plan, uncut, journal)
    start = _so_far(saved, pruned, before)
    with joined(asked.order.settings.device):
        recovery = taught(start, study, Pupil(plan, uncut, start.model), journal)
    if not is_first():
        return Outcome(plan, whole)
    with staged(out) as folder:
        result = Result(plan, uncut, pruned, recovery)
        report = conclude(request, result, photos, target, formats, folder, journal, race=race)
    shutil.rmtree(study.place, ignore_errors=True)
    return Outcome(plan, whole, report, out, mixed.missed(report.artifacts))


def _request(asked: FinetuneOrder, before: Report) -> Request:
    """What a `compress` would have been asked for."""
    again = asked_again(before, weights=asked.weights, data=asked.data, calibration_data=asked.calibration_data)
    return replace(
        again,
        target=asked.target or again.target,
        formats=asked.formats,
        precisions=asked.precisions,
        max_drop=asked.max_drop,
        float_where_faster=asked.float_where_faster,
        tflite_converter=asked.tflite_converter,
        tflite_int8=asked.tflite_int8,
        onnx_batch=asked.onnx_batch,
        fold_preprocessing=asked.fold_preprocessing,
        recover="distill",
        seed=again.seed if asked.seed is None else asked.seed,
        overwrite=asked.overwrite,
        bench=asked.bench,
        command=asked.command,
    )


def _check_same(uncut: Model, before: Report, run: Path, photos: Photos) -> None:
    """Compare the uncut model with the run's own file of it.

    Raises:
        ModelError: it computes something else.
    """
    images = photos.held_out(uncut, PARITY_IMAGES)
    for artifact in before.artifacts:
        if artifact.role == "baseline" and artifact.precision == "fp32" and (run / artifact.path).is_file():
            try:
                check(artifact, run, uncut, images)
            except ParityError as error:
                fix = "Give the weights that the run was made with: --weights FILE."
                what = "this is not the uncut model of the run: it computes something else than the run's file of it"
                raise ModelError(what, where=uncut.weights or uncut.source, fix=fix) from error
            return


def _so_far(saved: Model, pruned: Traced, before: Report) -> Recovery:
    """The run's cut model as the first step, in the shape that the plan gives it.

    Raises:
        ModelError: the plan makes another one of it.
    """
    ours, theirs = all_tensors(pruned.model.module), all_tensors(saved.module)
    if {name: one.shape for name, one in ours.items()} != {name: one.shape for name, one in theirs.items()}:
        fix = "Run compress again: plan.json and pruned.safetensors must be of one run."
        raise ModelError("the run's plan does not make its cut model", where=saved.name, fix=fix)
    model = replace(pruned.model, module=with_tensors(pruned.model.module, theirs))
    name = _STEPS.get(before.recovery.name, RECOVERY)
    return Recovery({CUT: pruned.model, name: model}, name, before.recovery)

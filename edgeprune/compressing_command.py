"""The command that does it all: prune, recover, export, verify, bench, report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edgeprune import options
from edgeprune.bench.device import parse_device
from edgeprune.bench.slots import slot
from edgeprune.errors import UsageError
from edgeprune.files import plain_name
from edgeprune.plan import Budget
from edgeprune.registry import unknown
from edgeprune.request import (
    DEFAULT_RATIO,
    DEMO,
    Request,
    parse_budget,
    parse_formats,
    parse_latency,
    parse_numbers,
    parse_precisions,
    parse_settings,
    parse_shape,
)
from edgeprune.target import load_target
from edgeprune.terminal import Talk, end_missed, print_plan, print_report
from edgeprune.train.recipe import DistilOrder, distil_order
from edgeprune.train.settings import Device as TrainDevice

if TYPE_CHECKING:
    from edgeprune.pipeline import Outcome


def requested(
    model: options.Model = DEMO,
    target: options.Target = "rpi4",
    weights: options.Weights = None,
    data: Annotated[
        str | None, typer.Option(help="Images: folder, tar, .npz, or path/file.py:function. Labels are optional.")
    ] = None,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    class_names: options.ClassNames = None,
    criterion: options.CriterionName = "qsfm",
    criterion_option: options.CriterionOption = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            help=f"Share of filters to remove in each layer that is cut; auto: what the criterion itself removes. "
            f"(default: {DEFAULT_RATIO})",
            metavar="FLOAT|auto",
        ),
    ] = None,
    macs: options.Macs = None,
    speedup: Annotated[
        float | None, typer.Option(help="Instead: how many times as fast to become on your board.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(help="Instead: the longest that a call may take there, e.g. 30ms.", metavar="TIME")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Times on that board, by `edgeprune profile`. (with --device: made, or gone on with, first)"),
    ] = None,
    device: options.Board = None,
    threads: options.TableThreads = None,
    allow_mixed: options.AllowMixed = False,
    allocation: Annotated[
        str, typer.Option(help="Where filters go: damage (where the output loses least) or uniform.")
    ] = "damage",
    scope: options.Scope = "inner",
    formats: options.Formats = None,
    precisions: options.PrecisionsOrAll = None,
    max_drop: options.MaxDrop = None,
    float_where_faster: options.FloatWhereFaster = False,
    tflite_converter: options.TfliteConverter = "auto",
    tflite_int8: options.TfliteInt8 = "static",
    onnx_batch: options.OnnxBatch = "dynamic",
    fold_preprocessing: options.FoldPreprocessing = False,
    recover: Annotated[
        str,
        typer.Option(
            help="reconstruct (refit layers, then norms), blocks (then each block learns what it put out uncut), "
            "distill (then the whole learns from the uncut model), none with labels; bn (norms only) or none."
        ),
    ] = "reconstruct",
    train_data: options.TrainData = None,
    train_images: options.TrainImages = None,
    epochs: options.Epochs = None,
    minutes: options.Minutes = None,
    lr: options.Rate = None,
    optimiser: options.Optimiser = None,
    freeze_norms: options.FreezeNorms = False,
    batch: options.Batch = None,
    ema: options.Ema = None,
    mixup: options.Mixup = None,
    labels: options.Labels = False,
    patience: options.Patience = None,
    train_device: options.TrainDevice = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew where a distillation, or --max-drop alone, was interrupted."),
    ] = False,
    calibration_data: Annotated[
        str | None,
        typer.Option(
            help="Images for scoring filters and refitting. (default: a part of --data, which is then not scored)"
        ),
    ] = None,
    calibration_images: Annotated[int, typer.Option(help="How many of them at most.")] = 256,
    images: Annotated[int, typer.Option(help="How many images to measure accuracy on at most.")] = 10_000,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/MODEL-TARGET)")] = None,
    plan: Annotated[Path | None, typer.Option(help="Start from this plan.json instead of scoring.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop at the plan and print it.")] = False,
    bench: options.Bench = True,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    overwrite: options.Overwrite = False,
) -> tuple[Request, DistilOrder, bool]:
    """Prune, recover, export, verify, bench here, report.

    With no MODEL it runs the demo: a small CNN on handwritten digits, everything real.
    """
    budget = parse_budget(ratio, macs, plan, speedup, parse_latency(latency), max_drop)
    course = {"data": train_data, "images": train_images, "epochs": epochs, "minutes": minutes, "rate": lr}
    steps = {"optimiser": optimiser, "freeze_norms": freeze_norms, "batch": batch, "ema": ema, "mixup": mixup}
    anew = restart and (recover == "distill" or budget.max_drop is None)
    lessons = {**course, **steps, "labels": labels, "patience": patience, "device": train_device, "restart": anew}
    request = Request(
        model=model,
        target=target,
        weights=weights,
        data=data,
        calibration_data=calibration_data,
        input_shape=parse_shape(input_shape),
        mean=parse_numbers("--mean", mean),
        std=parse_numbers("--std", std),
        class_names=class_names,
        criterion=criterion,
        criterion_options=parse_settings(criterion_option or []),
        budget=budget,
        allocation=allocation,  # type: ignore[arg-type]  # checked by Request.check
        scope=scope,  # type: ignore[arg-type]
        formats=parse_formats(formats),
        precisions=_precisions(precisions, budget, target, measured=bool(table or device)),
        max_drop=max_drop,
        float_where_faster=float_where_faster,
        tflite_converter=tflite_converter,  # type: ignore[arg-type]  # checked by Request.check
        tflite_int8=tflite_int8,  # type: ignore[arg-type]
        onnx_batch=onnx_batch,  # type: ignore[arg-type]
        fold_preprocessing=fold_preprocessing,
        recover=recover,  # type: ignore[arg-type]
        calibration_images=calibration_images,
        images=images,
        out=out,
        plan=plan,
        table=table,
        device=device,
        threads=threads,
        allow_mixed=allow_mixed,
        dry_run=dry_run,
        seed=seed,
        overwrite=overwrite,
        restart=restart,
        bench=bench,
        command=("edgeprune", *sys.argv[1:]),
    )
    return _checked(request), _order(recover, lessons), as_json


@wraps(requested, assigned=("__doc__", "__annotations__"))
def compress(**given: Any) -> None:
    """Do it. What is asked is read apart, for `edgeprune sweep` asks for the same."""
    _run(*requested(**given))


def _precisions(typed: str | None, budget: Budget, target: str, *, measured: bool) -> tuple[str, ...]:
    """The precisions that were asked for; else fp32, or where the fastest is looked for, all that the board computes.

    Where no board is timed, only fp32 is foretold.
    """
    if typed is None and budget.max_drop is not None and measured:
        return parse_precisions(",".join(load_target(target).precisions))
    return parse_precisions(typed or "fp32")


def _run(request: Request, order: DistilOrder, as_json: bool) -> None:
    talk = Talk()
    if request.model == DEMO and request.data is None and request.weights is None:
        _introduce(talk)
    from edgeprune.pipeline import compress as run  # torch and all that, not before it is needed

    with redirect_stdout(sys.stderr):  # a model may print in its forward pass; stdout carries the result
        _measure_table(request, talk)
        outcome = run(request, talk, order)
    _print(outcome, talk, as_json)


def _checked(request: Request) -> Request:
    """The request with all that belongs to it.

    Raises:
        UsageError: no run could do it.
    """
    request = _with_table(request)
    request.check()
    return request


def _with_table(request: Request) -> Request:
    """The request; where a budget of time names a device and no table, with a file of that device.

    Raises:
        UsageError: the device is none to measure on.
    """
    name = request.device
    if name is None:
        return request
    if name in get_args(TrainDevice):
        raise UsageError(f"--device says where to measure, not {name}", fix=f"Where to distil: --train-device {name}")
    parse_device(name)
    if request.table or not request.budget.of_time:
        return request
    several = f".{request.threads}-threads" if request.threads not in (None, 1) else ""
    return replace(request, table=Path("runs") / f"{plain_name(name)}{several}.table.json")


def _measure_table(request: Request, talk: Talk) -> None:
    """Make the table of a budget of time on the board that is named, or go on with it; nothing where it is whole."""
    if not request.device or not request.budget.of_time or request.table is None:
        return
    from edgeprune.latency import LatencyTable
    from edgeprune.profiling import ProfileOrder, profile

    with slot(request.device):  # others that want the same table then find it whole
        order = ProfileOrder(request, request.table, request.device, threads=request.threads or 1)
        if request.table.exists():
            there = LatencyTable.load(request.table).conditions
            order = replace(order, runtime=there.runtime, threads=request.threads or there.threads)
        profile(order, talk)


def _introduce(talk: Talk) -> None:
    talk.say("This is the demo: a small residual CNN on scikit-learn's handwritten digits; every number below is real.")
    talk.say("Your own: edgeprune compress path/net.py:build --weights w.safetensors --data images/ --input 3x224x224")


def _order(recover: str, lessons: Mapping[str, Any]) -> DistilOrder:
    """How to distil; options that say so where nothing is distilled are a mistake."""
    given = [name for name, value in lessons.items() if value not in (None, False)]
    if given and recover != "distill":
        names = {"data": "train-data", "images": "train-images", "rate": "lr", "device": "train-device"}
        option = names.get(given[0], given[0].replace("_", "-"))
        raise UsageError(f"--{option} is about distillation, which is not asked for", fix="Add --recover distill.")
    if lessons["device"] is not None and lessons["device"] not in get_args(TrainDevice):
        raise unknown("--train-device", lessons["device"], get_args(TrainDevice))
    order = distil_order(**lessons)
    order.check()
    return order


def _print(outcome: Outcome, talk: Talk, as_json: bool) -> None:
    if outcome.report is None:
        print_plan(outcome.plan.to_json(), outcome.whole, as_json)
    else:
        print_report(outcome.report, outcome.folder, talk, as_json)
    if outcome.failure:
        raise outcome.failure
    end_missed(outcome.missed, talk)

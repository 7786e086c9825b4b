"""The command that trains the cut model of a finished run."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from edgeprune import options
from edgeprune.request import parse_formats, parse_precisions
from edgeprune.terminal import Talk, end_missed, print_report
from edgeprune.train.recipe import distil_order


def finetune(
    run: Annotated[Path, typer.Argument(help="A finished run folder; it is not changed.")],
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
    device: options.Device = None,
    restart: options.Restart = False,
    weights: Annotated[Path | None, typer.Option(help="Of the uncut model. (default: those of the run)")] = None,
    data: Annotated[str | None, typer.Option(help="Images to score with. (default: those of the run)")] = None,
    calibration_data: Annotated[
        str | None, typer.Option(help="Images to train on if there are no --train-data. (default: those of the run)")
    ] = None,
    target: Annotated[str | None, typer.Option(help="A board, or a TOML file. (default: that of the run)")] = None,
    formats: options.Formats = None,
    precisions: options.Precisions = "fp32",
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of accuracy that cut and int8 may cost together; without labels, of agreement with uncut.",
            metavar="POINTS",
        ),
    ] = None,
    float_where_faster: options.FloatWhereFaster = False,
    tflite_converter: options.TfliteConverter = "auto",
    tflite_int8: options.TfliteInt8 = "static",
    onnx_batch: options.OnnxBatch = "dynamic",
    fold_preprocessing: options.FoldPreprocessing = False,
    out: Annotated[Path | None, typer.Option(help="The new run folder. (default: RUN-finetuned)")] = None,
    bench: options.Bench = True,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random but the choice of images. (default: that of the run)")
    ] = None,
    as_json: options.AsJson = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train the cut model of a finished run towards the uncut one, without labels; then as compress.

    Interrupted, the same command goes on where it stopped. On several GPUs: torchrun -m edgeprune finetune RUN.
    """
    order = distil_order(
        data=train_data,
        images=train_images,
        epochs=epochs,
        minutes=minutes,
        rate=lr,
        optimiser=optimiser,
        freeze_norms=freeze_norms,
        batch=batch,
        ema=ema,
        mixup=mixup,
        labels=labels,
        patience=patience,
        device=device,
        restart=restart,
    )
    order.check()
    from edgeprune.finetuning import FinetuneOrder  # torch and all that, not before it is needed
    from edgeprune.finetuning import finetune as run_on
    from edgeprune.train.group import is_first

    talk = Talk()

    with redirect_stdout(sys.stderr):  # a model may print in its forward pass; stdout carries the result
        outcome = run_on(
            FinetuneOrder(
                run=run,
                order=order,
                weights=weights,
                data=data,
                calibration_data=calibration_data,
                target=target,
                formats=parse_formats(formats),
                precisions=parse_precisions(precisions),
                max_drop=max_drop,
                float_where_faster=float_where_faster,
                tflite_converter=tflite_converter,  # type: ignore[arg-type]  # checked by Request.check
                tflite_int8=tflite_int8,  # type: ignore[arg-type]
                onnx_batch=onnx_batch,  # type: ignore[arg-type]
                fold_preprocessing=fold_preprocessing,
                out=out,
                seed=seed,
                overwrite=overwrite,
                bench=bench,
                command=("edgeprune", *sys.argv[1:]),
            ),
            talk if is_first() else None,
        )
    if outcome.report is not None:
        print_report(outcome.report, outcome.folder, talk, as_json)
    end_missed(outcome.missed, talk)

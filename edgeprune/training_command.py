"""The command that trains and prunes in one run."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune import options
from edgeprune.request import (
    DEFAULT_RATIO,
    Request,
    parse_budget,
    parse_formats,
    parse_numbers,
    parse_precisions,
    parse_settings,
    parse_shape,
)
from edgeprune.terminal import Talk, print_json

if TYPE_CHECKING:
    from edgeprune.training import Finished

_NOTHING = "0"


def train(
    model: options.Model,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images to train on, with labels: folder of class folders, tar, .npz, or path/file.py:function."
        ),
    ] = None,
    test_data: Annotated[
        str | None, typer.Option(help="Images to test with. (default: a tenth of --data, which is then not trained on)")
    ] = None,
    weights: options.Weights = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights, not from the model's own.")
    ] = False,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    class_names: options.ClassNames = None,
    criterion: options.CriterionName = "ssm",
    criterion_option: options.CriterionOption = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            help=f"Share of filters to remove in each layer that is cut; 0: only train. (default: {DEFAULT_RATIO})",
            metavar="FLOAT|auto",
        ),
    ] = None,
    macs: options.Macs = None,
    scope: options.Scope = "inner",
    multiple: Annotated[
        int | None, typer.Option(help="Round widths to multiples of this. (default: the target's)")
    ] = None,
    freeze_last: Annotated[
        float, typer.Option(help="In what last share of the training the choice of filters is frozen.")
    ] = 0.3,
    zero: Annotated[
        str, typer.Option(help="What of a filter is set to zero while it may recover: scales or weights.")
    ] = "scales",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 30,
    minutes: Annotated[float | None, typer.Option(help="End after so long at the latest.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate. (default: 0.1 from scratch, 0.01 from weights)")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    ema: Annotated[float, typer.Option(help="Decay of a running mean of the weights, e.g. 0.999; 0 for none.")] = 0.0,
    padding: Annotated[
        int | None, typer.Option(help="Pixels an image is moved by at most. (default: an eighth of it)")
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror every second image. (default: if in colour)")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    target: options.Target = "rpi4",
    formats: options.Formats = None,
    precisions: options.Precisions = "fp32",
    float_where_faster: options.FloatWhereFaster = False,
    tflite_converter: options.TfliteConverter = "auto",
    tflite_int8: options.TfliteInt8 = "static",
    onnx_batch: options.OnnxBatch = "dynamic",
    fold_preprocessing: options.FoldPreprocessing = False,
    images: Annotated[int, typer.Option(help="How many images to test with at most.")] = 10_000,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/MODEL-trained)")] = None,
    bench: options.Bench = True,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    overwrite: options.Overwrite = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew where a training was interrupted.")] = False,
) -> None:
    """Train and prune in one run, without fine-tuning afterwards; then cut, export, verify, bench, report.

    Interrupted, it goes on with the same command. --ratio 0 only trains.
    """
    from edgeprune.train.order import TrainOrder
    from edgeprune.train.settings import Settings

    request = Request(
        model=model,
        target=target,
        weights=weights,
        data=data,
        input_shape=parse_shape(input_shape),
        mean=parse_numbers("--mean", mean),
        std=parse_numbers("--std", std),
        class_names=class_names,
        criterion=criterion,
        criterion_options=parse_settings(criterion_option or []),
        budget=parse_budget(None if ratio == _NOTHING else ratio, macs, None),
        scope=scope,  # type: ignore[arg-type]  # checked by Request.check
        formats=parse_formats(formats),
        precisions=parse_precisions(precisions),
        float_where_faster=float_where_faster,
        tflite_converter=tflite_converter,  # type: ignore[arg-type]  # checked by Request.check
        tflite_int8=tflite_int8,  # type: ignore[arg-type]
        onnx_batch=onnx_batch,  # type: ignore[arg-type]
        fold_preprocessing=fold_preprocessing,
        allocation="uniform",
        recover="none",
        images=images,
        out=out,
        seed=seed,
        overwrite=overwrite,
        bench=bench,
        command=("edgeprune", *sys.argv[1:]),
    )
    settings = Settings(epochs=epochs, batch=batch, ema=ema, minutes=minutes, device=device)  # type: ignore[arg-type]
    talk = Talk()
    from edgeprune.training import train as run

    with redirect_stdout(sys.stderr):  # a model may print in its forward pass; stdout carries the result
        done = run(
            TrainOrder(
                request=request,
                settings=settings,
                rate=lr,
                padding=padding,
                flip=flip,
                test_data=test_data,
                from_scratch=from_scratch,
                prune=ratio != _NOTHING,
                multiple=multiple,
                freeze_last=freeze_last,
                zero=zero,  # type: ignore[arg-type]
                restart=restart,
            ),
            talk,
        )
    _print(done, talk, as_json)


def _print(done: Finished, talk: Talk, as_json: bool) -> None:
    if as_json:
        print_json(done.to_json())
        return
    if done.report is not None:
        from edgeprune.report.render.terminal import show

        show(done.report)
    more = ", plan.json, the files, report.json, report.md, report.html" if done.report else ""
    talk.say(f"Everything is in {done.folder}: training.jsonl, trained.safetensors{more}")

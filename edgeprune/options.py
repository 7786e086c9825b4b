"""Options that several commands have, as they are written on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="A name from `edgeprune models`, net.py:build, package.module:build, torchvision:NAME, timm:NAME."
    ),
]
Target = Annotated[str, typer.Option(help="A board from `edgeprune devices`, or a TOML file.")]
Weights = Annotated[Path | None, typer.Option(help="Safetensors or a plain state dict.")]
InputShape = Annotated[str | None, typer.Option("--input", help="Channels x height x width, e.g. 3x224x224.")]
Mean = Annotated[str | None, typer.Option(help="Per channel, of pixels scaled to 0..1, e.g. 0.485,0.456,0.406.")]
Std = Annotated[str | None, typer.Option(help="The same.")]
ClassNames = Annotated[
    Path | None, typer.Option(help="Names of the classes, one a line. (default: the folders of the images)")
]
CriterionName = Annotated[str, typer.Option(help="How filters are ranked: see `edgeprune criteria`.")]
CriterionOption = Annotated[
    list[str] | None,
    typer.Option(help="A setting of the criterion, e.g. metric=psnr; may be repeated.", metavar="KEY=VALUE"),
]
Macs = Annotated[float | None, typer.Option(help="Instead: share of the model's MACs to keep.")]
Scope = Annotated[str, typer.Option(help="inner: inside blocks; all: residual widths and bottlenecks too.")]
Formats = Annotated[str | None, typer.Option(help="Files to write, e.g. onnx,tflite. (default: all that can be)")]
Precisions = Annotated[
    str, typer.Option(help="Number formats of the files, e.g. fp16,int8; fp32 is always written, too.", metavar="LIST")
]
PrecisionsOrAll = Annotated[
    str | None,
    typer.Option(
        help="Number formats of the files, e.g. fp16,int8; fp32 is always written, too. (default: fp32; "
        "with --max-drop alone all that the board computes)",
        metavar="LIST",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Points of accuracy that cut and int8 may cost together; without labels, of agreement with uncut. With no "
        "--ratio, --macs, --speedup or --latency: the fastest on the board that keeps to it.",
        metavar="POINTS",
    ),
]
FloatWhereFaster = Annotated[
    bool,
    typer.Option(
        "--float-where-faster", help="Leave layers in float that take longer in int8 on the board, if that is faster."
    ),
]
TfliteConverter = Annotated[
    str, typer.Option(help="auto, litert or tensorflow; auto: litert where installed, tensorflow for what it cannot.")
]
TfliteInt8 = Annotated[
    str, typer.Option(help="static (float32 in and out), integer (int8 in and out) or dynamic (int8 weights only).")
]
OnnxBatch = Annotated[
    str, typer.Option(help="Images an ONNX file takes at once: dynamic (any number) or 1.", metavar="dynamic|1")
]
FoldPreprocessing = Annotated[
    bool,
    typer.Option("--fold-preprocessing", help="Files take raw pixels, uint8 NHWC, and apply mean and std themselves."),
]
Bench = Annotated[bool, typer.Option("--bench/--no-bench", help="Measure time on this machine.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON document instead.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run folder that exists.")]
TrainData = Annotated[
    list[str] | None,
    typer.Option(
        help="Images to distil on; labels are not needed; may be repeated. (default: those to calibrate with)"
    ),
]
TrainImages = Annotated[int | None, typer.Option(help="How many of each at most. (default: 50000)")]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the images to distil on. (default: 10; with --minutes as many as fit)")
]
Minutes = Annotated[float | None, typer.Option(help="End the distillation after so long at the latest.")]
Rate = Annotated[
    float | None, typer.Option("--lr", help="Highest learning rate of the distillation. (default: 0.02; adamw: 0.0001)")
]
Optimiser = Annotated[
    str | None,
    typer.Option(help="sgd or adamw, of the distillation; adamw is gentler, at --lr 0.0001. (default: sgd)"),
]
FreezeNorms = Annotated[
    bool,
    typer.Option("--freeze-norms", help="Norms keep their statistics in it: for images unlike those in use, or few."),
]
Batch = Annotated[int | None, typer.Option(help="Images a step of it. (default: 128)")]
Ema = Annotated[float | None, typer.Option(help="Decay of a running mean of the weights, e.g. 0.99. (default: none)")]
Mixup = Annotated[float | None, typer.Option(help="Mix images in pairs, in shares from Beta(x, x). (default: not)")]
Labels = Annotated[bool, typer.Option("--labels", help="Learn from the labels of the images, too, by half.")]
Patience = Annotated[
    int | None, typer.Option(help="End after so many of 10 looks without a better one; 0: never. (default: 5)")
]
Device = Annotated[str | None, typer.Option(help="Where to distil: auto, cpu or cuda. (default: auto)")]
TrainDevice = Annotated[str | None, typer.Option(help="Where to distil: auto, cpu or cuda. (default: auto)")]
Board = Annotated[
    str | None,
    typer.Option(
        help="Where to try plans and to measure: local, ssh://user@host:port, docker://IMAGE or podman://IMAGE. "
        "(default: local)"
    ),
]
TableThreads = Annotated[
    int | None,
    typer.Option(
        help="With --device and a budget of time: those that the table is made with, plans are tried with and files "
        "are timed with, among others. (default: those of the table, or 1)"
    ),
]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Also a table of another board or runtime version; marked.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew where a distillation was interrupted.")]

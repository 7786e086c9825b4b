"""Request: everything a user may ask of `compress`, checked before any work is done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edgeprune.errors import UsageError
from edgeprune.plan import Budget
from edgeprune.registry import unknown
from edgeprune.target import PRECISIONS

Recovery = Literal["reconstruct", "blocks", "distill", "bn", "none"]
Scope = Literal["inner", "all"]
Allocation = Literal["damage", "uniform"]
TfliteConverter = Literal["auto", "litert", "tensorflow"]
OnnxBatch = Literal["dynamic", "1"]
TfliteInt8 = Literal["static", "integer", "dynamic"]

DEMO = "digits"
"""The model that runs when none is named."""

DEFAULT_RATIO = 0.3

_SEEDS = 1 << 32


@dataclass(frozen=True)
class Request:
    """What to compress, and how.

    Attributes:
        model: a name from `models/`, `path/net.py:build`, `package.module:build`, `torchvision:NAME` or `timm:NAME`.
        target: a board's name or the path of a board file.
        weights: safetensors or state dict; None for those that come with the model.
        data: images to score with; None for those that come with the model.
        calibration_data: images to score filters and refit layers with; None for a part of `data`.
        class_names: a text file with the name of each class, one a line; None for the names that `data` gives.
        input_shape: (channels, height, width); None for what the model's card says.
        more_inputs: the shape of each input after the images, without the batch; only `inspect` takes them.
        mean: per channel, of pixels scaled to 0..1; None for what the card says.
        std: the same.
        criterion: its name.
        criterion_options: its settings as typed.
        budget: how much is to go; ignored where a plan is given.
        allocation: how much each space gives up: "damage", where it costs the outputs least, or "uniform".
        scope: "inner" or "all", see `edgeprune.prune.allocate.left_whole`.
        formats: file formats to write; None for all that can be written here.
        precisions: number formats to write each of them in, of `edgeprune.target.PRECISIONS`; fp32 is among them, for
            the others are judged by it.
        max_drop: how many points of accuracy (without labels, of agreement with the uncut model) the cut and int8 may
            cost together, on images that are then not reported on; layers of int8 files that cost more stay in float.
            None for all in int8. Where the budget is the same, the fastest that keeps to it is looked for, see
            `edgeprune.fastest`.
        float_where_faster: whether layers that take longer in int8 than in float, on the device that is measured on,
            stay in float where that is surely faster.
        tflite_converter: see `edgeprune.export.tflite_converters.CONVERTERS`.
        tflite_int8: see `edgeprune.export.tflite.INT8`.
        onnx_batch: how many images an ONNX file takes at once: "dynamic" or "1".
        fold_preprocessing: whether files take raw pixels and normalise them themselves.
        recover: what to do after the cut.
        calibration_images: how many at most.
        images: how many to score with at most.
        out: the run folder; None for `runs/<model>-<target>`.
        plan: start from this decision instead of making one.
        table: times of the network on a board, as `profile` measures them; what a speed-up is solved on;
            None to predict them from the target's file.
        device: where to try plans and to measure; None for this machine.
        threads: with how many the table is made on the device; None for those of a table that is there, or 1.
        allow_mixed: take a table of another board, runtime version or thread count all the same.
        dry_run: stop at the plan.
        seed: of everything random.
        overwrite: replace a run folder that exists.
        restart: where `edgeprune.fastest` was interrupted, begin anew.
        bench: whether to measure time.
        command: what the user typed, for the report.
    """

    model: str = DEMO
    target: str = "rpi4"
    weights: Path | None = None
    data: str | None = None
    calibration_data: str | None = None
    class_names: Path | None = None
    input_shape: tuple[int, int, int] | None = None
    more_inputs: tuple[tuple[int, ...], ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    criterion: str = "qsfm"
    criterion_options: Mapping[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=lambda: Budget(ratio=DEFAULT_RATIO))
    allocation: Allocation = "damage"
    scope: Scope = "inner"
    formats: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ("fp32",)
    max_drop: float | None = None
    float_where_faster: bool = False
    tflite_converter: TfliteConverter = "auto"
    tflite_int8: TfliteInt8 = "static"
    onnx_batch: OnnxBatch = "dynamic"
    fold_preprocessing: bool = False
    recover: Recovery = "reconstruct"
    calibration_images: int = 256
    images: int = 10_000
    out: Path | None = None
    plan: Path | None = None
    table: Path | None = None
    device: str | None = None
    threads: int | None = None
    allow_mixed: bool = False
    dry_run: bool = False
    seed: int = 0
    overwrite: bool = False
    restart: bool = False
    bench: bool = True
    command: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what no run could do.

        Raises:
            UsageError: which option, and what it may be.
        """
        self.budget.check()
        if self.budget.latency_ms is not None and self.table is None:
            fix = "Name the board, --device ssh://user@host (or local), or a --table by edgeprune profile."
            raise UsageError("--latency is solved on times measured on the board", fix=fix)
        if self.table is not None and not self.budget.of_time:
            what = "a --table is for --speedup, --latency or --max-drop alone"
            raise UsageError(what, fix="Give one of these, or leave it out.")
        if self.device is not None and not self.bench:
            raise UsageError("--device says where to measure, --no-bench not to", fix="Give one of them.")
        if self.threads is not None and (self.device is None or not self.budget.of_time):
            fix = "Add --device and --speedup, --latency or --max-drop alone; any files: edgeprune bench RUN --threads."
            raise UsageError("--threads is about the table that is made on a device", fix=fix)
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads must be at least 1, got {self.threads}", fix="For example: --threads 4")
        for what, value, known in (
            ("--recover", self.recover, get_args(Recovery)),
            ("--scope", self.scope, get_args(Scope)),
            ("--allocation", self.allocation, get_args(Allocation)),
            ("--tflite-converter", self.tflite_converter, get_args(TfliteConverter)),
            ("--onnx-batch", self.onnx_batch, get_args(OnnxBatch)),
            ("--tflite-int8", self.tflite_int8, get_args(TfliteInt8)),
        ):
            if value not in known:
                raise unknown(what, value, known)
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise unknown("--precisions", precision, PRECISIONS)
        Budget(max_drop=self.max_drop).check()
        if self.max_drop is not None and self.budget.max_drop is None and "int8" not in self.precisions:
            raise UsageError("--max-drop is what int8 may cost, which is not asked for", fix="Add --precisions int8.")
        if self.budget.max_drop not in (None, self.max_drop):
            raise UsageError("the budget's max_drop is not the request's", fix="Give both the same.")
        if self.float_where_faster and not ("int8" in self.precisions and self.bench):
            fix = "Add --precisions int8, and leave --no-bench out."
            raise UsageError("--float-where-faster is about the time that int8 files take", fix=fix)
        for name, number in (("--calibration-images", self.calibration_images), ("--images", self.images)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1, got {number}", fix="Give a larger one, or leave it out.")
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"--seed must lie between 0 and {_SEEDS - 1}, got {self.seed}", fix="For example 1.")


def parse_shape(text: str | None) -> tuple[int, int, int] | None:
    """`--input` as typed, "3x224x224": (channels, height, width); None if it is not given."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(
            f"--input must be channels x height x width, got {text!r}", fix="For example: --input 3x224x224"
        )
    return int(parts[0]), int(parts[1]), int(parts[2])


def parse_more_shapes(text: str | None) -> tuple[tuple[int, ...], ...]:
    """What follows the images' shape in `--input` as typed, "3x224x224,10,4x4": the shapes of further inputs."""
    shapes = [shape.lower().split("x") for shape in (text or "").split(",")[1:]]
    if not all(part.isdecimal() and int(part) for shape in shapes for part in shape):
        raise UsageError(
            f"--input must be shapes with commas between, got {text!r}", fix="For example: --input 3x224x224,10"
        )
    return tuple(tuple(map(int, shape)) for shape in shapes)


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """`--mean` or `--std` as typed, "0.485,0.456,0.406"; None if it is not given."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} must be numbers with commas between, got {text!r}",
            fix=f"For example: {option} 0.485,0.456,0.406",
        ) from None


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """`--criterion-option` as typed, "metric=psnr" each."""
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(
                f"--criterion-option must be KEY=VALUE, got {pair!r}", fix="For example: --criterion-option metric=psnr"
            )
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def parse_formats(text: str | None) -> tuple[str, ...] | None:
    """`--formats` as typed, "onnx,tflite", each once; None if it is not given."""
    return None if text is None else tuple(dict.fromkeys(text.split(",")))


def parse_precisions(text: str) -> tuple[str, ...]:
    """`--precisions` as typed, "int8,fp16", each once, the most exact first; fp32 is always among them.

    A name that is none comes last, for `Request.check` to refuse.
    """
    asked = dict.fromkeys(["fp32", *text.split(",")])
    order = {name: place for place, name in enumerate(PRECISIONS)}
    return tuple(sorted(asked, key=lambda name: order.get(name, len(order))))


def parse_latency(text: str | None) -> float | None:
    """`--latency` as typed, "30ms" or "0.2s", in milliseconds; None if it is not given.

    Raises:
        UsageError: it is no time.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)(ms|s)", text, re.ASCII)
    if not match:
        raise UsageError(f"--latency must be a time as 30ms or 0.2s, got {text!r}", fix="For example: --latency 30ms")
    return float(match[1]) * (1000 if match[2] == "s" else 1)


def parse_budget(
    ratio: str | None,
    macs: float | None,
    plan: Path | None,
    speedup: float | None = None,
    latency_ms: float | None = None,
    max_drop: float | None = None,
) -> Budget:
    """The one budget that is asked for; where none is, the accuracy that may be lost, or else the default.

    Raises:
        UsageError: several are given, or the ratio is neither a number nor "auto".
    """
    if sum(given is not None for given in (ratio, macs, plan, speedup, latency_ms)) > 1:
        raise UsageError("--ratio, --macs, --speedup, --latency and --plan exclude each other", fix="Give one of them.")
    if macs is not None:
        return Budget(macs=macs)
    if speedup is not None:
        return Budget(speedup=speedup)
    if latency_ms is not None:
        return Budget(latency_ms=latency_ms)
    if ratio is None:
        alone = max_drop is not None and plan is None
        return Budget(max_drop=max_drop) if alone else Budget(ratio=DEFAULT_RATIO)
    if ratio == "auto":
        return Budget(ratio="auto")
    try:
        return Budget(ratio=float(ratio))
    except ValueError:
        fix = "It is the share of filters to remove, for example 0.3."
        raise UsageError(f"--ratio must be a number or auto, got {ratio!r}", fix=fix) from None

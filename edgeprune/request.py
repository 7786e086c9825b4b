"""Request: everything a user may ask of `compress`, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edgeprune.errors import UsageError
from edgeprune.plan import Budget
from edgeprune.registry import unknown

Recovery = Literal["reconstruct", "bn", "none"]
Scope = Literal["inner", "all"]

DEMO = "digits"
"""The model that runs when none is named."""

DEFAULT_RATIO = 0.3


@dataclass(frozen=True)
class Request:
    """What to compress, and how.

    Attributes:
        model: a name from `models/`, `path/net.py:build`, `package.module:build`, `torchvision:NAME` or `timm:NAME`.
        target: a board's name or the path of a board file.
        weights: safetensors or state dict; None for those that come with the model.
        data: images to score with; None for those that come with the model.
        calibration_data: images to score filters and refit layers with; None for a part of `data`.
        input_shape: (channels, height, width); None for what the model's card says.
        mean: per channel, of pixels scaled to 0..1; None for what the card says.
        std: the same.
        criterion: its name.
        criterion_options: its settings as typed.
        budget: how much is to go; ignored where a plan is given.
        scope: "inner" or "all", see `edgeprune.prune.allocate.left_whole`.
        formats: file formats to write; None for all that can be written here.
        recover: what to do after the cut.
        calibration_images: how many at most.
        images: how many to score with at most.
        out: the run folder; None for `runs/<model>-<target>`.
        plan: start from this decision instead of making one.
        dry_run: stop at the plan.
        seed: of everything random.
        overwrite: replace a run folder that exists.
        bench: whether to measure time.
        command: what the user typed, for the report.
    """

    model: str = DEMO
    target: str = "rpi4"
    weights: Path | None = None
    data: str | None = None
    calibration_data: str | None = None
    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    criterion: str = "qsfm"
    criterion_options: Mapping[str, str] = field(default_factory=dict)
    budget: Budget = Budget(ratio=DEFAULT_RATIO)
    scope: Scope = "inner"
    formats: tuple[str, ...] | None = None
    recover: Recovery = "reconstruct"
    calibration_images: int = 256
    images: int = 10_000
    out: Path | None = None
    plan: Path | None = None
    dry_run: bool = False
    seed: int = 0
    overwrite: bool = False
    bench: bool = True
    command: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what no run could do.

        Raises:
            UsageError: which option, and what it may be.
        """
        self.budget.check()
        for what, value, known in (
            ("--recover", self.recover, get_args(Recovery)),
            ("--scope", self.scope, get_args(Scope)),
        ):
            if value not in known:
                raise unknown(what, value, known)
        for name, number in (("--calibration-images", self.calibration_images), ("--images", self.images)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1, got {number}")

"""TrainOrder: what `train` was asked for. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from edgeprune.errors import UsageError
from edgeprune.registry import unknown
from edgeprune.request import Request
from edgeprune.train.settings import Settings

Zero = Literal["scales", "weights"]
"""What of a filter is set to zero while it may recover, see `edgeprune.train.zeros.recoverable`."""


@dataclass(frozen=True)
class TrainOrder:
    """What to train, and how it is to be pruned meanwhile.

    Attributes:
        request: model, weights, images to train on, criterion, budget, scope, and what is to be made of the result;
            its `recover`, `allocation`, `calibration_data`, `plan` and `dry_run` are not looked at.
        settings: how to train, but for the next three.
        rate: the highest learning rate; None for 0.1 from scratch, 0.01 from weights.
        padding: see `Settings`; None for an eighth of the image.
        flip: see `Settings`; None for: if images are in colour.
        test_data: images to test with; None for those that come with the model, or else a tenth of the others.
        from_scratch: leave the weights that come with the model aside.
        prune: whether to prune at all.
        multiple: widths are rounded to multiples of this; None for the target's.
        freeze_last: in what last share of the training the choice of filters is frozen.
        zero: what of a filter is set to zero while it may recover, see `edgeprune.train.zeros`.
        restart: begin anew where a training was interrupted.
    """

    request: Request
    settings: Settings = field(default_factory=Settings)
    rate: float | None = None
    padding: int | None = None
    flip: bool | None = None
    test_data: str | None = None
    from_scratch: bool = False
    prune: bool = True
    multiple: int | None = None
    freeze_last: float = 0.3
    zero: Zero = "scales"
    restart: bool = False

    def check(self) -> None:
        """Refuse what no run could do.

        Raises:
            UsageError: which option, and what it may be.
        """
        self.request.check()
        (self.settings if self.rate is None else replace(self.settings, rate=self.rate)).check()
        if self.from_scratch and self.request.weights:
            raise UsageError("--from-scratch and --weights exclude each other", fix="Give one of them.")
        if not 0 <= self.freeze_last <= 1:
            what = f"--freeze-last must lie between 0 and 1, got {self.freeze_last}"
            raise UsageError(what, fix="It is a share of the training: 0.3 are the last three of ten epochs.")
        if self.zero not in get_args(Zero):
            raise unknown("--zero", self.zero, get_args(Zero))
        if self.multiple is not None and self.multiple < 1:
            raise UsageError(f"--multiple must be at least 1, got {self.multiple}", fix="For example: --multiple 8")

"""Recipe and DistilOrder: what a distillation was asked for. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.train.settings import MOST_EPOCHS, Settings


@dataclass(frozen=True)
class Recipe:
    """What counts how much in a distillation, see `edgeprune.train.distil`.

    Attributes:
        temperature: by which answers are divided before they are compared.
        features: weight of the cut blocks' outputs.
        labels: share of the loss that is the labels' cross entropy; 0 for none.
        mixup: images are mixed in pairs, in shares drawn from Beta(mixup, mixup) (Zhang et al. 2017,
            https://arxiv.org/abs/1710.09412); the uncut network sees the same mixture. 0 for none.
    """

    temperature: float = 2.0
    features: float = 1.0
    labels: float = 0.0
    mixup: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """This as a JSON document."""
        return asdict(self)


@dataclass(frozen=True)
class DistilOrder:
    """How a cut model is to learn from the uncut one.

    Attributes:
        data: images to train on, each as `edgeprune.data.load_images` wants it; empty for those of the calibration.
        limit: how many images of each at most.
        settings: how to train, but for the next two.
        padding: see `Settings`; None for an eighth of the image.
        flip: see `Settings`; None for: if images are in colour.
        recipe: what counts how much.
        restart: begin anew where a distillation was interrupted.
    """

    data: tuple[str, ...] = ()
    limit: int = 50_000
    settings: Settings = field(
        default_factory=lambda: Settings(epochs=10, rate=0.02, weight_decay=1e-4, looks=10, patience=5)
    )
    padding: int | None = None
    flip: bool | None = None
    recipe: Recipe = field(default_factory=Recipe)
    restart: bool = False

    def check(self) -> None:
        """Refuse what no run could do.

        Raises:
            UsageError: which option, and what it may be.
        """
        self.settings.check()
        recipe = self.recipe
        if not 0 < recipe.temperature < float("inf"):
            raise UsageError(f"the temperature must be above 0, got {recipe.temperature}", fix="For example: 2")
        for option, number in (("the features' weight", recipe.features), ("--mixup", recipe.mixup)):
            if not 0 <= number < float("inf"):
                raise UsageError(f"{option} must be at least 0, got {number}", fix="0 leaves it out.")
        if self.limit < 1:
            raise UsageError(f"--train-images must be at least 1, got {self.limit}", fix="Leave it out for all.")

    def settings_for(self, shape: tuple[int, int, int], seed: int) -> Settings:
        """What was asked for, and what follows from the images' shape (channels, height, width) where it was not."""
        channels, height, width = shape
        padding = min(height, width) // 8 if self.padding is None else self.padding
        flip = channels == 3 if self.flip is None else self.flip
        return replace(self.settings, padding=padding, flip=flip, seed=seed)


_ADAMW_RATE = 1e-4
"""MobileNet-V2 is thrown off by 3e-4 and gains with 5e-5."""

_LABELS = 0.5
"""What labels count where they are asked for."""


def distil_order(
    *,
    data: Sequence[str] | None = None,
    images: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    rate: float | None = None,
    optimiser: str | None = None,
    freeze_norms: bool = False,
    batch: int | None = None,
    ema: float | None = None,
    mixup: float | None = None,
    patience: int | None = None,
    device: str | None = None,
    labels: bool = False,
    restart: bool = False,
) -> DistilOrder:
    """The order that these options make, None for the default; minutes without epochs are as many as fit."""
    default = DistilOrder()
    if epochs is None and minutes is not None:
        epochs = MOST_EPOCHS
    if rate is None and optimiser == "adamw":
        rate = _ADAMW_RATE
    given = {
        "epochs": epochs,
        "minutes": minutes,
        "rate": rate,
        "optimiser": optimiser,
        "batch": batch,
        "ema": ema,
        "patience": patience,
        "device": device,
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(
        default,
        data=tuple(data or ()),
        limit=default.limit if images is None else images,
        settings=replace(default.settings, as_in_use=freeze_norms, **settings),
        recipe=replace(default.recipe, labels=_LABELS * labels, mixup=mixup or 0.0),
        restart=restart,
    )

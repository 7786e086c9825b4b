"""Settings: how long and how fast to train, decided before it begins. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from edgeprune.errors import UsageError
from edgeprune.registry import unknown

Device = Literal["auto", "cpu", "cuda"]
Optimiser = Literal["sgd", "adamw"]

MOST_EPOCHS = 100_000
_FREELY_CHOSEN = ("device", "checkpoint_s")
"""Where it runs and how often it saves is not what is trained."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    The learning rate rises in a line and then falls as half a cosine (Loshchilov and Hutter 2016,
    https://arxiv.org/abs/1608.03983, without restarts) to 0.

    Attributes:
        epochs: passes over the images.
        batch: images a step; all of them where there are fewer.
        rate: the highest learning rate.
        optimiser: "sgd": stochastic gradient descent with Nesterov momentum; "adamw" (Loshchilov and Hutter 2017,
            https://arxiv.org/abs/1711.05101), which takes a rate some hundred times lower.
        momentum: of the gradient, for "sgd".
        as_in_use: norms keep their statistics and dropout drops nothing while the weights learn.
        weight_decay: of all parameters.
        warm_up: share of the training in which the rate rises.
        smoothing: share of the target that is spread over all classes.
        ema: decay, a step, of a running mean of the weights, which is then the result; 0 for none.
        padding: black pixels around an image, out of which a random part of its size is cut; 0 for none.
        flip: whether to mirror every second image.
        seed: of the order of images and of all that is random.
        minutes: end after so long, if the epochs are not over by then; the rate falls to 0 all the same.
        looks: how often it is evaluated on the way from beginning to end; 0 for after each epoch.
        patience: end after so many evaluations none of which was better than one before; 0 for never. See `Job.keep`.
        mixed: compute in 16 bits what bears it, where the device is made for that.
        device: where to train; "auto": on CUDA where there is one.
        checkpoint_s: seconds between two checkpoints.
    """

    epochs: int = 30
    batch: int = 128
    rate: float = 0.1
    optimiser: Optimiser = "sgd"
    as_in_use: bool = False
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 0.05
    smoothing: float = 0.0
    ema: float = 0.0
    padding: int = 0
    flip: bool = False
    seed: int = 0
    minutes: float | None = None
    looks: int = 0
    patience: int = 0
    mixed: bool = True
    device: Device = "auto"
    checkpoint_s: float = 120.0

    def check(self) -> None:
        """Refuse what cannot be trained with.

        Raises:
            UsageError: which option, and what it may be.
        """
        if self.device not in get_args(Device):
            raise unknown("--device", self.device, get_args(Device))
        if self.optimiser not in get_args(Optimiser):
            raise unknown("--optimiser", self.optimiser, get_args(Optimiser))
        if not 1 <= self.epochs <= MOST_EPOCHS:
            raise UsageError(
                f"--epochs must lie between 1 and {MOST_EPOCHS}, got {self.epochs}", fix="For example: --epochs 30"
            )
        if self.batch < 2:
            raise UsageError(
                f"--batch must be at least 2, got {self.batch}", fix="Normalisation needs several images: --batch 64"
            )
        for option, value, fix in (("--lr", self.rate, "0.1"), ("--minutes", self.minutes, "20")):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{option} must be a number above 0, got {value}", fix=f"For example: {option} {fix}")
        if self.patience < 0:
            raise UsageError(f"--patience must be at least 0, got {self.patience}", fix="0 is: never end early.")
        if not 0 <= self.ema < 1:
            raise UsageError(f"--ema must lie between 0 and 1, got {self.ema}", fix="For example: --ema 0.999")

    def to_json(self) -> dict[str, Any]:
        """These settings as a JSON document."""
        return asdict(self)

    def decisive(self) -> dict[str, Any]:
        """Those that decide what is trained, as a JSON document."""
        return {key: value for key, value in asdict(self).items() if key not in _FREELY_CHOSEN}


@dataclass(frozen=True)
class Course:
    """How far a training is.

    Attributes:
        steps: all there are to do, one batch each.
        minutes: the time it may take; None for any.
    """

    steps: int
    minutes: float | None = None

    def share(self, done: float, elapsed_s: float) -> float:
        """What share of the training is over, 0 to 1: of its steps, or of its time if that goes faster."""
        of_time = 0.0 if self.minutes is None else elapsed_s / (60 * self.minutes)
        return min(1.0, max(done / self.steps, of_time))


def learning_rate(share: float, settings: Settings) -> float:
    """The learning rate where a share of the training, 0 to 1, is over."""
    if share < settings.warm_up:
        return settings.rate * share / settings.warm_up
    falling = (share - settings.warm_up) / (1 - settings.warm_up)
    return settings.rate * (1 + math.cos(math.pi * falling)) / 2


Clock = Callable[[], float]
"""Seconds since some moment."""

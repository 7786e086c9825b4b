"""Job: what is to be trained, and what may go along with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.data import ImageSet, InputSpec
from edgeprune.train.settings import Settings

Objective = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
"""(network in training mode, images [n, channels, height, width], labels int64 [n] or None) -> the loss, one number."""
Evaluation = Callable[[nn.Module], Mapping[str, Any]]
"""A network in eval mode, on the device -> what a row is to say of it, JSON values."""


class Companion(Protocol):
    """What goes along with a training and may change its network between steps."""

    def stepped(self, module: nn.Module, share: float, epoch_ended: bool) -> None:
        """A step is done, and with it a share of the training, 0 to 1."""

    def settle(self, module: nn.Module) -> None:
        """Make a network, which may be a mean of those before, what it would be if the training ended here."""

    def row(self) -> Mapping[str, Any]:
        """What an epoch's row is to say of it, JSON values."""

    def to_json(self) -> Mapping[str, Any]:
        """All it must know to go on from here."""

    def restore(self, document: Mapping[str, Any]) -> None:
        """Go on from what `to_json` gave."""


class Alone:
    """A `Companion` that does nothing: ordinary training."""

    def stepped(self, module: nn.Module, share: float, epoch_ended: bool) -> None:
        """Nothing is changed."""

    def settle(self, module: nn.Module) -> None:
        """Nothing is changed."""

    def row(self) -> Mapping[str, Any]:
        """There is nothing to say."""
        return {}

    def to_json(self) -> Mapping[str, Any]:
        """There is nothing to know."""
        return {}

    def restore(self, document: Mapping[str, Any]) -> None:
        """There is nothing to know."""


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be trained.

    Attributes:
        module: in eval mode, on the CPU; it is not changed.
        input: what it wants of an image.
        images: to train on.
        settings: how.
        objective: what is to become small.
        fingerprint: a checkpoint of another one is refused.
        companion: goes along.
        evaluate: asked at the end of each epoch, or as often as `Settings.looks` says.
        keep: the number among what `evaluate` says that is to become small: the weights that were best by it are the
            result, and those that were given are the first to be judged. "" for the weights of the end.
    """

    module: nn.Module
    input: InputSpec
    images: ImageSet
    settings: Settings
    objective: Objective
    fingerprint: str
    companion: Companion
    evaluate: Evaluation | None = None
    keep: str = ""


def cross_entropy(smoothing: float = 0.0) -> Objective:
    """The loss of a classifier that is trained with labels."""

    def loss(module: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return F.cross_entropy(module(images), labels, label_smoothing=smoothing)

    return loss

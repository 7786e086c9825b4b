"""What refitting a layer brought, and where finished layers are kept while a reconstruction runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Refit:
    """What refitting one layer brought.

    Attributes:
        layer: module path.
        error_ratio: squared error on held-out calibration images after the refit, over that before it; 1.0 if the
            weights were left.
        ill: whether the calibration images left the weights so undetermined that rounding decides some of them.
        images: how many calibration images would give as many samples to fit as there are unknowns for each output.
    """

    layer: str
    error_ratio: float
    ill: bool = False
    images: int = 0


class Finished(Protocol):
    """Where finished work is kept, so that an interrupted reconstruction can go on."""

    def load(self, job: int) -> tuple[Mapping[str, Tensor], Refit | None] | None:
        """What a job, counted from 0, changed: stored tensor -> its values; None if it is not finished."""

    def save(self, job: int, changed: Mapping[str, Tensor], refit: Refit | None) -> None:
        """Keep that."""


class Nowhere:
    """A `Finished` that keeps nothing."""

    def load(self, job: int) -> None:
        """Nothing is finished."""

    def save(self, job: int, changed: Mapping[str, Tensor], refit: Refit | None) -> None:
        """Nothing is kept."""

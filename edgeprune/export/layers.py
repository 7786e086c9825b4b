"""The layers inside a file: what each operator with weights put out when the file ran, and in what steps it counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeprune.export.execute import Array


@dataclass(frozen=True)
class Steps:
    """How coarse the numbers of an 8-bit layer are; all of a float layer's are 0.

    Attributes:
        input: one step of what it reads; 0 where that is not quantised in the file.
        output: one step of what it puts out.
        weights: one step of the weights, for each output channel, or one for all, or none.
    """

    input: float = 0.0
    output: float = 0.0
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class FileLayer:
    """An operator with weights, as it ran.

    Attributes:
        tensor: the name of what it put out.
        operator: its kind, as the format calls it.
        weight: the name of its weights, as it was in the model; empty where the format does not keep names.
        weights: how many there are.
        values: what it put out for each image, what the stored numbers stand for, float32 [n, ...], channels first.
        low: the least value that it can put out: an activation that is part of it, or the range of its steps.
        high: the greatest.
        steps: of its numbers.
    """

    tensor: str
    operator: str
    weight: str
    weights: int
    values: Array
    low: float = -np.inf
    high: float = np.inf
    steps: Steps = field(default_factory=Steps)

    @property
    def size(self) -> int:
        """How many values it put out for an image."""
        return int(self.values[0].size)


def span(scale: float, zero: int, kind: npt.DTypeLike) -> tuple[float, float]:
    """What the least and the greatest number that a tensor of integers can hold stand for."""
    limits = np.iinfo(kind)
    return (float(limits.min) - zero) * scale, (float(limits.max) - zero) * scale

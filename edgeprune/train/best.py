"""Best: the weights that were best so far, by a number that is to become small."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.resize import own_tensors


class Best:
    """The best weights of a training so far.

    Args:
        module: the network as it begins; not changed.

    Attributes:
        tensors: copies of its parameters and buffers, by the first of their names.
        row: after which row of the training they were found, counted from 1; 0 for those that it began with.
    """

    def __init__(self, module: nn.Module) -> None:
        self.tensors = {name: one.detach().clone() for name, one in own_tensors(module).items()}
        self.row = 0
        self._value: float | None = None

    @property
    def judged(self) -> bool:
        """Whether the weights that it began with have been judged."""
        return self._value is not None

    def offer(self, value: float, module: nn.Module, row: int) -> None:
        """Take the weights of a network if they are better; a number that is not finite is worse than any."""
        value = value if math.isfinite(value) else float("inf")
        if self._value is None or value < self._value:
            self._value, self.row = value, row
            with torch.no_grad():
                for name, one in own_tensors(module).items():
                    self.tensors[name].copy_(one)

    def into(self, module: nn.Module) -> None:
        """Give a network of the same architecture these weights, in place."""
        with torch.no_grad():
            for name, one in own_tensors(module).items():
                one.copy_(self.tensors[name])

    def to_json(self) -> dict[str, Any]:
        """All but the weights."""
        return {"value": self._value if self._value is None or math.isfinite(self._value) else None, "row": self.row}

    def restore(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Be what a checkpoint says."""
        with torch.no_grad():
            for name, one in self.tensors.items():
                one.copy_(tensors[name])
        value = document["value"]
        self._value, self.row = float("inf") if value is None else float(value), int(document["row"])

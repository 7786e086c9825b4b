"""L1 norm of the filter: the yardstick.

Li, Kadav, Durdanovic, Samet, Graf: "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710.
"""

from __future__ import annotations

from torch import Tensor

from edgeprune.criteria import FilterView


def l1(view: FilterView) -> Tensor:
    """Sum of absolute weights of each filter, float [n]; small filters go first (section 3.1 of the paper)."""
    return view.weight.abs().sum(dim=1)

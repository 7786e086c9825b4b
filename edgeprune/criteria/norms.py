"""Norms of the filter: yardsticks that look at no other filter."""

from __future__ import annotations

from torch import Tensor

from edgeprune.criteria import FilterView, about


@about("Li et al. 2017, arXiv 1608.08710", cost="n weights")
def l1(view: FilterView) -> Tensor:
    """Sum of absolute weights of each filter, float [n]; small filters go first.

    Li, Kadav, Durdanovic, Samet, Graf: "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710,
    section 3.1.
    """
    return view.weight.abs().sum(dim=1)


@about("He et al. 2018, arXiv 1808.06866", cost="n weights")
def l2(view: FilterView) -> Tensor:
    """Root of the sum of squared weights of each filter, float [n]; small filters go first.

    He, Kang, Dong, Fu, Yang: "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks",
    https://arxiv.org/abs/1808.06866, equation 2 with p = 2.
    """
    return view.weight.square().sum(dim=1).sqrt()

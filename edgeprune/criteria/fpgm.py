"""FPGM: a filter in the middle of the others can be replaced by them.

He, Liu, Wang, Hu, Yang: "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration",
https://arxiv.org/abs/1811.00250.
"""

from __future__ import annotations

from torch import Tensor

from edgeprune.criteria import FilterView, about
from edgeprune.criteria.pairs import euclidean


@about("He et al. 2019, arXiv 1811.00250", cost="n^2 weights")
def fpgm(view: FilterView) -> Tensor:
    """Sum of the Euclidean distances of each filter to all others, float64 [n]; small sums go first.

    Equation 8 of the paper: the filters nearest to the geometric median of the layer. The order stays the same where
    one filter is added to all, or all are multiplied by one number.
    """
    return euclidean(view.weight).sum(dim=1)

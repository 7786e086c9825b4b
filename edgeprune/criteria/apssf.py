"""APSSF: clusters of filters of the same structure, from each of which some go.

Geng, Niu: "APSSF: Adaptive CNN Pruning Based on Structural Similarity of Filters", International Journal of
Computational Intelligence Systems, 2024, doi 10.1007/s44196-024-00518-4.

From the abstract: the distance of filters takes in every dimension of the filter tensor, not the flattened filter;
filters are clustered at a distance threshold that follows from the compression rate; a number is deleted from each
cluster. **Our reconstruction**, because the paper's text was not available to us: the distance, the linkage of the
clusters, bisection for the threshold (the paper uses an augmented Lagrangian), and which of a cluster stay.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from edgeprune.criteria import FilterView, Outcome, about
from edgeprune.criteria.norms import l2
from edgeprune.criteria.pairs import euclidean, places

Distance = Literal["structure", "structure+weights"]
Linkage = Literal["average", "complete", "single"]


@about("Geng, Niu 2024, doi 10.1007/s44196-024-00518-4", cost="n^2 (inputs + taps)")
def apssf(
    view: FilterView,
    *,
    distance: Distance = "structure",
    link: Linkage = "average",
    rate: float = 0.0,
    threshold: float = 0.0,
) -> Outcome:
    """Score filters by whether they stay when clusters of like structure are thinned out, then by their size.

    Args:
        view: the filters.
        distance: see `structural`; "structure+weights" adds the distance of the flattened filters.
        link: how far two clusters are apart, by the distances of their filters.
        rate: the share of each cluster to delete; 0: the asked share of the filters.
        threshold: filters nearer than this are of one cluster, as a share of the mean distance in the layer; how many
            go is then an outcome. 0: the threshold at which the asked share of the filters goes.

    Returns:
        float64 [n], a permutation of 0 ... n-1; 0 goes first. Those that the clusters give up come before the others;
        among them, and among the others, those of smaller L2 norm. And how many the clusters give up.
    """
    if view.size == 1:
        return Outcome(torch.zeros(1, dtype=torch.float64), 0)
    rate = rate or view.share
    matrix = structural(view, distance == "structure+weights")
    tree = linkage(squareform(matrix.numpy(), checks=False), link)
    mean = float(matrix.sum()) / (view.size * (view.size - 1))
    clusters = _cut(tree, threshold * mean) if threshold else clustered(tree, rate)
    norms = l2(view).double()
    stays = torch.zeros(view.size, dtype=torch.float64)
    for members in clusters:
        stays[_kept(members, matrix, norms, rate)] = 1.0
    keys = stays + norms / (norms.max() * 2).clamp_min(torch.finfo(torch.float64).tiny)
    return Outcome(places(keys), view.size - int(stays.sum()))


def structural(view: FilterView, weights: bool = False) -> Tensor:
    """The distance of every two filters, float64 [n, n], from sums over each dimension of the tensor.

    d^2 = |P_i - P_j|^2 / taps + |q_i - q_j|^2 / inputs, P being a filter's sum over inputs (how its weights add up at
    each place) and q its sum over taps; a 1x1 kernel has q alone. Squares of several layers are added.

    Args:
        view: the filters.
        weights: add |F_i - F_j|^2, the flattened filters' distance, divided by their number of weights.
    """
    square = torch.zeros(view.size, view.size, dtype=torch.float64)
    for layer in view.filters:
        tensor = layer.flatten(2) if layer.ndim > 2 else layer.unsqueeze(2)
        inputs, taps = tensor.shape[1:]
        square += euclidean(tensor.sum(dim=2)).square() / inputs
        if taps > 1:
            square += euclidean(tensor.sum(dim=1)).square() / taps
        if weights:
            square += euclidean(tensor.flatten(1)).square() / (inputs * taps)
    return square.sqrt()


def clustered(tree: NDArray[np.float64], rate: float) -> list[NDArray[np.int64]]:
    """The clusters at the threshold at which thinning them out leaves a share `1 - rate` of all filters.

    At the lowest threshold each filter is a cluster of its own and stays; as it rises, more go. The one from which on
    no more than the asked number stay is taken; the largest if none does.

    Args:
        tree: what `scipy.cluster.hierarchy.linkage` made of n > 1 filters.
        rate: the share of filters to delete, 0 to 1.
    """
    heights = tree[:, 2]
    low, high = 0, len(heights) - 1
    while low < high:
        middle = (low + high) // 2
        left = sum(_stay(len(members), rate) for members in _cut(tree, heights[middle]))
        low, high = (low, middle) if left <= round((1 - rate) * (len(heights) + 1)) else (middle + 1, high)
    return _cut(tree, heights[low])


def _cut(tree: NDArray[np.float64], height: float) -> list[NDArray[np.int64]]:
    """The clusters whose filters are joined up to a distance, each as the numbers of its filters."""
    numbers = fcluster(tree, height, "distance")
    return [np.flatnonzero(numbers == number) for number in range(1, numbers.max() + 1)]


def _stay(size: int, rate: float) -> int:
    """How many of a cluster stay: at least one, and of two or more at least one goes."""
    return max(1, math.floor((1 - rate) * size + 1e-9))


def _kept(members: NDArray[np.int64], matrix: Tensor, norms: Tensor, rate: float) -> list[int]:
    """Of a cluster the filter nearest to all others (of two the larger one), then those of the largest L2 norm."""
    by_norm = members[torch.argsort(norms[members], descending=True, stable=True).numpy()]
    centre = int(by_norm[int(matrix[by_norm][:, by_norm].sum(dim=1).argmin())])
    return [centre, *(int(one) for one in by_norm if one != centre)][: _stay(len(members), rate)]

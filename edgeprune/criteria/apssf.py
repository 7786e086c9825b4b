"""APSSF: clusters of filters of the same structure, from each of which some go.

Geng, Niu: "APSSF: Adaptive CNN Pruning Based on Structural Similarity of Filters", International Journal of
Computational Intelligence Systems, 2024, doi 10.1007/s44196-024-00518-4.

From the abstract: the distance of filters takes in every dimension of the filter tensor, not the flattened filter;
filters are clustered at a distance threshold that follows from the compression rate; a number is deleted from each
cluster. **Our reconstruction**, because the paper's text was not available to us: the distance, its unit, the linkage
of the clusters, one threshold for all layers and the search for it (the paper uses an augmented Lagrangian), and how
many and which of a cluster stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
Over = Literal["network", "layer"]
"""Where the compression rate holds: over all layers together, at one threshold, or over each by itself."""

_LEAST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Tree:
    """How the n > 1 filters of a layer come together, step by step.

    Attributes:
        matrix: their distances, in units of the mean distance of the layer, float64 [n, n].
        steps: what `scipy.cluster.hierarchy.linkage` makes of them, float64 [n - 1, 4].
    """

    matrix: Tensor
    steps: NDArray[np.float64]

    def clusters(self, threshold: float) -> list[NDArray[np.int64]]:
        """The clusters whose filters are joined up to a distance, each as the numbers of its filters."""
        numbers = fcluster(self.steps, threshold, "distance")
        return [np.flatnonzero(numbers == number) for number in range(1, numbers.max() + 1)]


def _settle(
    views: Iterable[FilterView],
    *,
    distance: Distance,
    link: Linkage,
    rate: float,
    each: float,
    threshold: float,
    over: Over,
) -> dict[str, Any]:
    """The one threshold of the network at which the rate is reached."""
    if threshold or over == "layer":
        return {}
    trees, asked = [], rate
    for view in views:
        asked = rate or view.share
        if view.size > 1:
            trees.append(grown(view, distance, link))
    return {"threshold": lowest(trees, asked, each or _halfway(asked))} if trees else {}


@about("Geng, Niu 2024, doi 10.1007/s44196-024-00518-4", cost="n^2 (inputs + taps)", settle=_settle)
def apssf(
    view: FilterView,
    *,
    distance: Distance = "structure",
    link: Linkage = "average",
    rate: float = 0.0,
    each: float = 0.0,
    threshold: float = 0.0,
    over: Over = "network",  # noqa: ARG001 - what _settle looks at
) -> Outcome:
    """Score filters by whether they stay when clusters of like structure are thinned out, then by their size.

    With `--ratio auto` each layer gives up what its clusters give up, so that the numbers of the layers are an outcome
    and `rate` is what goes of all filters together; any other budget takes the order of the filters alone. The order
    stays the same where all filters are multiplied by one number.

    Args:
        view: the filters.
        distance: see `structural`; "structure+weights" adds the distance of the flattened filters.
        link: how far two clusters are apart, by the distances of their filters.
        rate: the compression rate: the share of the filters that goes; 0: the asked share.
        each: the share of each cluster that goes, rounded up, so far as one stays; 0: halfway from the rate to all (our
            choice). With no more than the rate all filters of a layer must come together before it is reached: then
            layers give up equal shares, and size alone decides. With 1 one filter of each cluster stays.
        threshold: filters nearer than this are of one cluster, as a share of the mean distance in their layer (our
            choice: what makes layers comparable). 0: the lowest at which the rate is reached.
        over: the rate is reached over all layers together, at one threshold, so that a layer of many like filters gives
            up more; or in each layer, at one of its own.

    Returns:
        float64 [n], a permutation of 0 ... n-1; 0 goes first. Those that the clusters give up come before the others;
        among them, and among the others, those of smaller L2 norm. And how many the clusters give up.
    """
    if view.size == 1:
        return Outcome(torch.zeros(1, dtype=torch.float64), 0)
    rate = rate or view.share
    each = each or _halfway(rate)
    tree = grown(view, distance, link)
    norms = l2(view).double()
    stays = torch.zeros(view.size, dtype=torch.float64)
    for members in tree.clusters(threshold or lowest([tree], rate, each)):
        stays[_kept(members, tree.matrix, norms, each)] = 1.0
    keys = stays + norms / (norms.max() * 2).clamp_min(_LEAST)
    return Outcome(places(keys), view.size - int(stays.sum()))


def grown(view: FilterView, distance: Distance, link: Linkage) -> Tree:
    """The clusters of a layer at every threshold."""
    matrix = structural(view, distance == "structure+weights")
    matrix = matrix / (matrix.sum() / (view.size * (view.size - 1))).clamp_min(_LEAST)
    return Tree(matrix, linkage(squareform(matrix.numpy(), checks=False), link))


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


def _halfway(rate: float) -> float:
    return (1 + rate) / 2


def lowest(trees: Sequence[Tree], rate: float, each: float) -> float:
    """The lowest threshold at which thinning out the clusters leaves no more than a share `1 - rate` of all filters.

    At threshold 0 each filter is a cluster of its own and stays (equal ones are of one cluster). Where two clusters
    come together, what stays of all changes by what stays of both less what stayed of each: every threshold that makes
    a difference is looked at, in one pass. Above 0, since 0 asks for this search.

    Args:
        trees: of all layers that the rate is to hold for, at least one.
        rate: the share of filters to delete, 0 to 1.
        each: the share of each cluster to delete.
    """
    heights = np.concatenate([tree.steps[:, 2] for tree in trees])
    changes = np.concatenate([_changes(tree.steps, each) for tree in trees])
    count = len(heights) + len(trees)
    goal = round((1 - rate) * count)
    if count <= goal:
        return _LEAST
    order = np.argsort(heights, kind="stable")
    stay = count + np.cumsum(changes[order])
    heights = heights[order]
    whole = np.append(heights[1:] > heights[:-1], True)  # what comes together at one distance does so at once
    reached = whole & (stay <= goal)
    return max(float(heights[np.argmax(reached)] if reached.any() else heights[-1]), _LEAST)


def _changes(steps: NDArray[np.float64], each: float) -> NDArray[np.int64]:
    """By how much each step of a tree changes the number of filters that stay."""
    sizes = np.concatenate([np.ones(len(steps) + 1, dtype=np.int64), steps[:, 3].astype(np.int64)])
    stay = np.array([_stay(int(size), each) for size in sizes])
    joined = steps[:, :2].astype(np.int64)
    changes: NDArray[np.int64] = stay[len(steps) + 1 :] - stay[joined].sum(axis=1)
    return changes


def _stay(size: int, each: float) -> int:
    """How many of a cluster stay: at least one, and of two or more at least one goes."""
    return max(1, math.floor((1 - each) * size + 1e-9))


def _kept(members: NDArray[np.int64], matrix: Tensor, norms: Tensor, each: float) -> list[int]:
    """Of a cluster the filter nearest to all others (of two the larger one), then those of the largest L2 norm."""
    by_norm = members[torch.argsort(norms[members], descending=True, stable=True).numpy()]
    centre = int(by_norm[int(matrix[by_norm][:, by_norm].sum(dim=1).argmin())])
    return [centre, *(int(one) for one in by_norm if one != centre)][: _stay(len(members), each)]

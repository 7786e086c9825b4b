"""SSM: filters that lie close together make similar maps.

Rakshith, Vachhani, Gothe, Khurana: "Self Similarity Matrix based CNN Filter Pruning",
https://arxiv.org/abs/2211.01814, CVIP 2022.

From the abstract: the self-similarity matrix of a layer's flattened filters is computed, two algorithms rank redundant
filters by it, greedy and by area, and pruning takes place while the network is trained. **Our reconstruction**, because
the paper's text was not available to us: the distance, and both algorithms beyond their names. Pruning while training
is `edgeprune train`, with this criterion or any other; its schedule is in `edgeprune.train.soft_prune`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.criteria import FilterView, about
from edgeprune.criteria.norms import l1
from edgeprune.criteria.pairs import cosine, euclidean, removal_order


@about("Rakshith et al. 2022, arXiv 2211.01814", cost="n^2 weights")
def ssm(
    view: FilterView,
    *,
    ranking: Literal["greedy", "area"] = "greedy",
    distance: Literal["euclidean", "cosine"] = "euclidean",
    window: int = 3,
) -> Tensor:
    """Score filters by how long they survive in the self-similarity matrix.

    Args:
        view: the filters.
        ranking: "greedy": of the closest pair the one closer to all other survivors goes, until one is left. "area":
            survivors are ordered by their sum of distances; of the `window` neighbours that lie closest together the
            middle one stays and the others go, until one is left.
        distance: of two flattened filters. The Euclidean one stays the same where one filter is added to all, the
            cosine where each is multiplied by a positive number of its own.
        window: how many neighbours "area" looks at together; at least 2.

    Returns:
        float64 [n], a permutation of 0 ... n-1; 0 goes first.
    """
    matrix = (euclidean if distance == "euclidean" else cosine)(view.weight)
    if ranking == "greedy":
        return removal_order(-matrix, l1(view).double())
    return _by_area(matrix.numpy(), max(2, window))


def _by_area(distances: NDArray[np.float64], window: int) -> Tensor:
    """The order in which the densest windows are thinned out."""
    order, alive, place = np.zeros(len(distances)), np.arange(len(distances)), 0
    sums = distances.sum(axis=1)
    while len(alive) > 1:
        width = min(window, len(alive))
        alive = alive[np.argsort(sums[alive], kind="stable")]
        at = int(np.argmin(_areas(distances, alive, width)))
        block = alive[at : at + width]
        inside = distances[np.ix_(block, block)].sum(axis=1)
        gone = np.delete(block, int(np.argmin(inside)))
        for one in gone[np.argsort(sums[gone], kind="stable")]:
            order[one], place = place, place + 1
        alive = np.setdiff1d(alive, gone)
        sums = sums - distances[:, gone].sum(axis=1)
    order[alive] = place
    return torch.from_numpy(order)


def _areas(distances: NDArray[np.float64], alive: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """For each window of neighbours the sum of the distances within it, diagonal by diagonal: float64 [windows]."""
    found = np.zeros(len(alive) - width + 1)
    for apart in range(1, width):
        found += sliding_window_view(distances[alive[:-apart], alive[apart:]], width - apart).sum(axis=1)
    return found

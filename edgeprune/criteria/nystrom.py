"""Nyström: filters that point the same way, their similarities worked out from a few columns.

Singh, Plumbley: "Efficient Similarity-based Passive Filter Pruning for Compressing CNNs",
https://arxiv.org/abs/2210.17416, ICASSP 2023, read with its authors' code (Efficient_similarity_Pruning_Algo).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgeprune.criteria import FilterView, Outcome, about
from edgeprune.criteria.norms import l1
from edgeprune.criteria.pairs import places, removal_order

_DECIMALS = 5
"""To which the authors' code rounds similarities, so that what the approximation leaves decides nothing."""


@about("Singh, Plumbley 2023, arXiv 2210.17416", cost="n^2 columns")
def nystrom(
    view: FilterView,
    *,
    columns: int = 9,
    pick: Literal["first", "random"] = "first",
    order: Literal["pairs", "greedy"] = "pairs",
) -> Outcome:
    """Score filters by how long they survive the pairing of filters that point the same way.

    A filter is represented by the leading left singular vector of its taps x inputs matrix: by its dominant spatial
    pattern. The cosines of all pairs are approximated from a few columns of their matrix. Each filter may be multiplied
    by a positive number of its own: only ties, such as of the last two, are decided by size.

    Args:
        view: the filters.
        columns: how many columns are worked out. The matrix of h x w kernels has a rank of h*w at most, so that 9
            independent columns are exact for 3x3.
        pick: the first columns, as in the authors' code, or random ones.
        order: "pairs": the paper's own; see `paired`: what it calls redundant goes first. "greedy": of the most similar
            surviving pair the one more similar to all others goes, until one is left.

    Returns:
        float64 [n], a permutation of 0 ... n-1; 0 goes first; and how many the pairing calls redundant.
    """
    similarity = _rounded(similarities(prototypes(view), chosen(view, columns, pick)))
    norm = l1(view).double()
    survivors = removal_order(similarity, norm)
    redundant = paired(similarity)
    count = int(redundant.sum())
    if order == "greedy":
        return Outcome(survivors, count)
    # Beyond the number that the pairing yields, and within it, the greedy order decides (ours: the paper has no ratio).
    keys = survivors + view.size * (~redundant).double()
    return Outcome(places(keys), count)


def prototypes(view: FilterView) -> Tensor:
    """The direction of each filter, float64 [n, d], of length 1; zeros for a filter of zeros.

    For each layer the leading left singular vector of the matrix taps x inputs, its sign such that the first entry of
    the right one is positive, as in the authors' code. A 1x1 kernel has one tap and thus no spatial pattern: the filter
    itself is taken, divided by its length (ours: the paper prunes no such layer). Several layers' vectors are put side
    by side.
    """
    parts = []
    for layer in view.filters:
        matrix = layer.flatten(2).transpose(1, 2).double() if layer.ndim > 2 else layer.unsqueeze(1).double()
        if matrix.shape[1] == 1:
            parts.append(_unit(matrix.squeeze(1)))
            continue
        # Left singular vectors are the eigenvectors of taps x taps: for 3x3 kernels 40 times as fast as the SVD.
        sizes, vectors = torch.linalg.eigh(matrix @ matrix.transpose(1, 2))
        left = vectors[:, :, -1]
        first = (left * matrix[:, :, 0]).sum(dim=1)
        sign = torch.where(first < 0, -1.0, 1.0) * (sizes[:, -1] > 0)
        parts.append(left * sign.unsqueeze(1))
    return _unit(torch.cat(parts, dim=1))


def _unit(rows: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / length.clamp_min(torch.finfo(rows.dtype).tiny)


def chosen(view: FilterView, columns: int, pick: str) -> Tensor:
    """The filters whose columns are worked out, int64."""
    count = min(columns, view.size)
    if pick == "first":
        return torch.arange(count)
    return torch.randperm(view.size, generator=torch.Generator().manual_seed(view.seed))[:count].sort().values


def similarities(rows: Tensor, columns: Tensor) -> Tensor:
    """The cosines of all rows, float64 [n, n], approximated where that is less work than one exact matrix product.

    Args:
        rows: float64 [n, d], of length 1.
        columns: the rows whose similarity with all is worked out; if they are d or more, the exact product of the rows
            is as good and cheaper.
    """
    return approximate(rows, columns) if len(columns) < rows.shape[1] else rows @ rows.T


def approximate(rows: Tensor, columns: Tensor) -> Tensor:
    """The cosines of all rows from those with some of them: C W+ C', float64 [n, n] (section 2.2 of the paper).

    Args:
        rows: float64 [n, d], of length 1.
        columns: the rows whose similarity with all is worked out.
    """
    some = rows @ rows[columns].T
    inverse: Tensor = torch.linalg.pinv(some[columns], hermitian=True, rtol=1e-10)
    return some @ inverse @ some.T


def _rounded(similarity: Tensor) -> Tensor:
    rounded: Tensor = ((similarity + similarity.T) / 2).round(decimals=_DECIMALS)
    return rounded


def paired(similarity: Tensor) -> Tensor:
    """Which filters the paper's pairing calls redundant, bool [n].

    Each filter and the one most similar to it, the most similar first: the filter stays, unless it was called redundant
    before, and the other is redundant, unless it was kept before (as in the authors' code). Of two that name each other
    the one less similar to all others comes first (ours: in the code it is the first one).

    Args:
        similarity: float64 [n, n], symmetric.
    """
    if len(similarity) == 1:
        return torch.zeros(1, dtype=torch.bool)
    near, nearest = similarity.clone().fill_diagonal_(-float("inf")).max(dim=1)
    kept, redundant = set[int](), set[int]()
    for one in np.lexsort((similarity.sum(dim=1).round(decimals=_DECIMALS).numpy(), -near.numpy())).tolist():
        if one not in redundant:
            kept.add(one)
            redundant.add(int(nearest[one]))
    marked = torch.zeros(len(similarity), dtype=torch.bool)
    marked[sorted(redundant - kept)] = True
    return marked

"""Distances of all pairs of filters, and the order in which similar pairs are broken up."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Drop = Literal["redundant", "weak"]
"""Which of the most similar pair goes: the one more similar to all other survivors, or the one of smaller L1 norm."""


def euclidean(rows: Tensor) -> Tensor:
    """The Euclidean distance of every two rows, float64 [n, n], symmetric, zero on the diagonal.

    By one matrix product. What its rounding leaves of the distance of equal rows is set to zero: below 1e-6 of the
    longer row, which float32 weights cannot tell apart.
    """
    rows = rows.double()
    squares = rows.square().sum(dim=1)
    sums = squares.unsqueeze(1) + squares.unsqueeze(0)
    found = sums - 2 * (rows @ rows.T)
    found = torch.where(found < 1e-12 * sums, 0.0, (found + found.T) / 2)
    return found.fill_diagonal_(0.0).sqrt()


def cosine(rows: Tensor) -> Tensor:
    """One minus the cosine of every two rows, float64 [n, n], symmetric; 1 between a row of zeros and another."""
    unit = torch.nn.functional.normalize(rows.double(), dim=1, eps=torch.finfo(torch.float64).tiny)
    found = 1 - unit @ unit.T
    return ((found + found.T) / 2).clamp_min(0.0).fill_diagonal_(0.0)


def places(keys: Tensor) -> Tensor:
    """The place of each key among all, float64 [n]: 0 for the lowest; of equal ones the first comes first."""
    return torch.argsort(torch.argsort(keys, stable=True)).double()


def removal_order(similarity: Tensor, norm: Tensor, drop: Drop = "redundant") -> Tensor:
    """The greedy loop: scores 0 (goes first) to n - 1 from a similarity matrix.

    Every filter remembers its nearest survivor, so that a step costs O(n), not O(n^2), unless that one goes.

    Args:
        similarity: float64 [n, n], symmetric.
        norm: float64 [n], the L1 norm of each filter.
        drop: see `Drop`.
    """
    pairs = np.nan_to_num(similarity.double().numpy(), nan=0.0)
    np.fill_diagonal(pairs, 0.0)
    to_others, norms = pairs.sum(axis=1), norm.double().numpy()
    np.fill_diagonal(pairs, -np.inf)
    count = len(pairs)
    nearest = pairs.argmax(axis=1)
    best = pairs[np.arange(count), nearest]
    alive = np.ones(count, dtype=bool)
    order = np.zeros(count)
    for place in range(count - 1):
        first = int(best.argmax())
        gone = _loser(first, int(nearest[first]), to_others, norms, drop)
        order[gone], alive[gone] = place, False
        to_others -= np.where(alive, pairs[gone], 0.0)
        pairs[gone], pairs[:, gone], best[gone] = -np.inf, -np.inf, -np.inf
        stale = np.flatnonzero((nearest == gone) & alive)
        nearest[stale] = pairs[stale].argmax(axis=1)
        best[stale] = pairs[stale, nearest[stale]]
    order[alive] = count - 1
    return torch.from_numpy(order)


def _loser(first: int, second: int, to_others: NDArray[np.float64], norms: NDArray[np.float64], drop: Drop) -> int:
    low, high = sorted((first, second))
    difference = to_others[low] - to_others[high] if drop == "redundant" else 0.0
    if abs(difference) > 1e-9 * max(1.0, abs(to_others[low])):
        return low if difference > 0 else high
    return low if norms[low] < norms[high] else high

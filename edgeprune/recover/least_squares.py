"""Least squares from running sums: the data are seen once, in chunks, and only their second moments are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
"""Candidate ridge penalties, as a share of the mean diagonal of the Gram matrix."""

_SMALLEST = 1e-5
"""Of a Cholesky factor's diagonal: its square, 1e-10, is what sums of float32 products leave of a difference."""


@dataclass
class Sums:
    """Sums over samples of x xᵀ, x yᵀ and yᵀ y, in float64, for each group of a layer by itself.

    Attributes:
        xx: [groups, k, k].
        xy: [groups, k, outputs].
        yy: sum of squares of all outputs.
        count: number of samples.
    """

    xx: Tensor
    xy: Tensor
    yy: float = 0.0
    count: int = 0

    @classmethod
    def zeros(cls, groups: int, inputs: int, outputs: int) -> Sums:
        """Sums over no samples."""
        xx, xy = (torch.zeros(groups, inputs, size, dtype=torch.float64) for size in (inputs, outputs))
        return cls(xx, xy)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count samples in: x float32 [groups, samples, k], y float32 [groups, samples, outputs]."""
        self.xx += (x.mT @ x).double()
        self.xy += (x.mT @ y).double()
        self.yy += float(y.double().square().sum())
        self.count += x.shape[1]

    def plus(self, other: Sums) -> Sums:
        """The sums over both sets of samples."""
        return Sums(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy, self.count + other.count)

    def error(self, weight: Tensor) -> float:
        """Sum of squared errors of y = xᵀ weight on these samples; weight float64 [groups, k, outputs]."""
        error = self.yy - 2 * float((weight * self.xy).sum()) + float((weight * (self.xx @ weight)).sum())
        return max(error, 0.0)  # rounding takes a perfect fit a little below

    @property
    def finite(self) -> bool:
        """Whether all samples were numbers."""
        return bool(torch.isfinite(self.xx).all() and torch.isfinite(self.xy).all())


@dataclass(frozen=True, eq=False)
class Solution:
    """The weights that map x to y.

    Attributes:
        weight: float64 [groups, k, outputs].
        error_ratio: the squared error on the held-out samples over that of the weights before; 1.0 if these were left.
        ill: whether the samples left the weights so undetermined that rounding decides some of them.
    """

    weight: Tensor
    error_ratio: float
    ill: bool = False


def solve(fit: Sums, held_out: Sums, start: Tensor, free: int = 0) -> Solution:
    """The weights that map x to y, pulled towards `start` as strongly as the held-out samples like.

    Minimises |y - xᵀ w|² + penalty |w - start|²; the penalty with the least error on `held_out` is used on all samples.
    If even the best is worse there than `start`, `start` is returned.

    Args:
        fit: samples to fit.
        held_out: samples to choose the penalty by.
        start: float64 [groups, k, outputs].
        free: how many of the last inputs are not penalised (a constant input for the bias).
    """
    if not float(_unit(fit).max()) > 0:
        return Solution(start, 1.0)
    before = max(held_out.error(start), 1e-12 * max(held_out.yy, 1e-30))
    found = {penalty: _ridge(fit, start, penalty, free) for penalty in PENALTIES}
    errors = {penalty: held_out.error(weight) for penalty, weight in found.items() if weight is not None}
    best = min(errors, key=lambda penalty: errors[penalty], default=PENALTIES[-1])
    if errors and not errors[best] < before:
        return Solution(start, 1.0)
    both = fit.plus(held_out)
    weight = _ridge(both, start, best, free)
    if weight is not None and errors:
        return Solution(weight, errors[best] / before)
    smallest = _least_norm(both, start, best, free)
    after = held_out.error(smallest)
    return Solution(smallest, after / before, ill=True) if after < before else Solution(start, 1.0, ill=True)


def _unit(sums: Sums) -> Tensor:
    """The mean diagonal of each group's Gram matrix, [groups]; never nothing beside that of the others."""
    units = sums.xx.diagonal(dim1=1, dim2=2).mean(dim=1)
    return units.clamp_min(1e-6 * float(units.max()))


def _ridge(sums: Sums, start: Tensor, penalty: float, free: int) -> Tensor | None:
    """The weights for one penalty; None if rounding would decide some of them.

    The smallest element of the Cholesky factor's diagonal bounds the condition from below (Higham, "Accuracy and
    Stability of Numerical Algorithms", 2002, section 10.1).
    """
    left, right, scale = _equations(sums, start, penalty, free)
    factor, info = torch.linalg.cholesky_ex(left)
    if int(info.max()) != 0 or float(factor.diagonal(dim1=1, dim2=2).min()) < _SMALLEST:
        return None
    return start + torch.cholesky_solve(right, factor) * scale


def _least_norm(sums: Sums, start: Tensor, penalty: float, free: int) -> Tensor:
    """The nearest weights to `start` that fit as well as any, by singular values."""
    left, right, scale = _equations(sums, start, penalty, free)
    step: Tensor = torch.linalg.lstsq(left, right, rcond=_SMALLEST**2, driver="gelsd").solution
    return start + step * scale


def _equations(sums: Sums, start: Tensor, penalty: float, free: int) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right side for what is added to `start`, in units in which the left one's diagonal is one, and these.

    No other choice of units makes the condition better by more than a factor of k (van der Sluis, "Condition numbers
    and equilibration of matrices", 1969).
    """
    raised = (penalty * _unit(sums)).unsqueeze(1).repeat(1, sums.xx.shape[1])
    if free:
        raised[:, -free:] *= 1e-9
    left = sums.xx + torch.diag_embed(raised)
    scale = left.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(torch.float64).tiny).rsqrt().unsqueeze(2)
    return left * scale * scale.mT, (sums.xy - sums.xx @ start) * scale, scale

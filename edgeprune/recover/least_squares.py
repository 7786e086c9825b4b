"""Least squares from running sums: the data are seen once, in chunks, and only their second moments are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
"""Candidate ridge penalties, as a share of the mean diagonal of the Gram matrix."""


@dataclass
class Sums:
    """Sums over samples of x xᵀ, x yᵀ and yᵀ y, in float64.

    Attributes:
        xx: [k, k].
        xy: [k, outputs].
        yy: sum of squares of all outputs.
        count: number of samples.
    """

    xx: Tensor
    xy: Tensor
    yy: float = 0.0
    count: int = 0

    @classmethod
    def zeros(cls, inputs: int, outputs: int) -> Sums:
        """Sums over no samples."""
        return cls(torch.zeros(inputs, inputs, dtype=torch.float64), torch.zeros(inputs, outputs, dtype=torch.float64))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count samples in: x float32 [samples, k], y float32 [samples, outputs]."""
        self.xx += (x.T @ x).double()
        self.xy += (x.T @ y).double()
        self.yy += float(y.double().square().sum())
        self.count += len(x)

    def plus(self, other: Sums) -> Sums:
        """The sums over both sets of samples."""
        return Sums(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy, self.count + other.count)

    def error(self, weight: Tensor) -> float:
        """Sum of squared errors of y = xᵀ weight on these samples."""
        error = self.yy - 2 * float((weight * self.xy).sum()) + float((weight * (self.xx @ weight)).sum())
        return max(error, 0.0)  # rounding takes a perfect fit a little below


def solve(fit: Sums, held_out: Sums, start: Tensor, free: int = 0) -> tuple[Tensor, float]:
    """The weights that map x to y, pulled towards `start` as strongly as the held-out samples like.

    Minimises |y - xᵀ w|² + penalty |w - start|²; the penalty with the least error on `held_out` is used on all samples.
    If even the best is worse there than `start`, `start` is returned.

    Args:
        fit: samples to fit.
        held_out: samples to choose the penalty by.
        start: float64 [k, outputs].
        free: how many of the last inputs are not penalised (a constant input for the bias).

    Returns:
        weights float64 [k, outputs], and the relative error on `held_out`: its squared error over that of `start`.
    """
    unit = float(fit.xx.diagonal().mean())
    if unit <= 0 or not bool(torch.isfinite(fit.xx).all()):
        return start, 1.0
    before = max(held_out.error(start), 1e-12 * max(held_out.yy, 1e-30))
    errors = {penalty: held_out.error(_ridge(fit, start, penalty * unit, free)) for penalty in PENALTIES}
    best = min(errors, key=lambda penalty: errors[penalty])
    if not errors[best] < before:
        return start, 1.0
    both = fit.plus(held_out)
    return _ridge(both, start, best * float(both.xx.diagonal().mean()), free), errors[best] / before


def _ridge(sums: Sums, start: Tensor, penalty: float, free: int) -> Tensor:
    diagonal = torch.full((len(sums.xx),), penalty, dtype=torch.float64)
    if free:
        diagonal[-free:] = 1e-9 * penalty
    left = sums.xx + torch.diag(diagonal)
    right = sums.xy - sums.xx @ start
    factor, info = torch.linalg.cholesky_ex(left)
    step = torch.cholesky_solve(right, factor) if int(info) == 0 else torch.linalg.lstsq(left, right).solution
    return start + step

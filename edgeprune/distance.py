"""How far a changed model's outputs are from those of the uncut one, without labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_NONE = 1e-12


def distance(uncut: Sequence[tuple[Tensor, ...]], cut: Sequence[tuple[Tensor, ...]]) -> float:
    """How far outputs moved, the mean over images.

    The Kullback-Leibler divergence of the classes' probabilities for an output [n, classes]; for another one the
    squared difference as a share of its mean square.

    Args:
        uncut: batch by batch, the outputs.
        cut: the same.
    """
    total, images = 0.0, 0
    for before, after in zip(uncut, cut, strict=True):
        images += len(before[0])
        for one, other in zip(before, after, strict=True):
            total += len(one) * _moved(one.double(), other.double())
    return total / max(images, 1)


def _moved(one: Tensor, other: Tensor) -> float:
    if one.ndim == 2 and one.shape[1] > 1:
        log = one.log_softmax(1)
        return float((log.exp() * (log - other.log_softmax(1))).sum(dim=1).mean())
    return float((one - other).square().mean() / one.square().mean().clamp_min(_NONE))

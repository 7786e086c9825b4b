"""FSCL: a filter that the next layer hardly takes up is of little use.

Wang, Wang, Tang, Gao, Fang, Xie: "Filter Pruning via Filters Similarity in Consecutive Layers",
https://arxiv.org/abs/2304.13397, ICASSP 2023.

From the introduction: the score of a filter is its similarity, "by convolution operation", to the channels of the
following layer that read it; small scores go. **Our reconstruction**, because the paper's formula was not available to
us: how the result of the convolution is measured, the scale of a normalisation between the two layers, and what is done
with several layers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprune.criteria import FilterView, about

Measure = Literal["composed", "product", "cosine"]

_PRODUCT_BYTES = 64 << 20
"""Most memory for the products of taps that are worked out at once."""


@about("Wang et al. 2023, arXiv 2304.13397", cost="n weights")
def fscl(view: FilterView, *, measure: Measure = "composed") -> Tensor:
    """Similarity of each filter with the channels that read it, float64 [n]; small ones go first.

    A filter K (inputs x taps) is first multiplied by the gain of a normalisation after it, and convolved with the
    filter of a depthwise layer after it. Q are the weights that a reading layer gives to it (outputs x taps). Summed
    over all layers that make the filter and all that read it. The order stays the same where all filters are multiplied
    by one number.

    Args:
        view: the filters and their readers.
        measure: "composed": the Frobenius norm of the kernels of both layers taken together, ||K_c * Q_j|| over all
            inputs c and outputs j, * being convolution; "product": the sum of |<K_c, Q_j>|; "cosine": the sum of
            |cos(K_c, Q_j)|, which does not change where filters are scaled. The last two compare sums over the taps
            where the kernels of the two layers differ in size.
    """
    made = _made(view)
    score = torch.zeros(view.size, dtype=torch.float64)
    for filters in made:
        for reader in view.readers:
            score = score + _measure(filters.double(), reader.double(), measure)
    return score


def _made(view: FilterView) -> list[Tensor]:
    """The filters of each layer, float32 [n, inputs, h, w], scaled; depthwise ones convolved with those before them."""
    gains = view.gains or tuple(torch.ones(view.size) for _ in view.filters)
    scaled = [_planes(kernel) * gain.reshape(-1, 1, 1, 1) for kernel, gain in zip(view.filters, gains, strict=True)]
    if view.residual:
        return scaled
    depthwise = [kernel for kernel in scaled if kernel.shape[1] == 1]
    mixing = [kernel for kernel in scaled if kernel.shape[1] > 1]
    if not mixing or not depthwise:
        return scaled
    for last in depthwise:
        mixing = [_convolved(kernel, last) for kernel in mixing]
    return mixing


def _planes(kernel: Tensor) -> Tensor:
    """[n, inputs, *kernel] with two axes of taps: [n, inputs, h, w]."""
    return kernel.reshape(
        *kernel.shape[:2], *(kernel.shape[2:-1].numel(), kernel.shape[-1]) if kernel.ndim > 2 else (1, 1)
    )


def _convolved(first: Tensor, second: Tensor) -> Tensor:
    """Each filter's planes convolved with its one plane of another layer: [n, c, h, w] * [n, 1, i, j]."""
    height, width = second.shape[2] - 1, second.shape[3] - 1
    channels = first.shape[1]
    kernels = second.flip(2, 3).repeat_interleave(channels, dim=0)
    found = F.conv2d(first.reshape(1, -1, *first.shape[2:]), kernels, padding=(height, width), groups=len(kernels))
    return found.reshape(len(first), channels, *found.shape[2:])


def _measure(filters: Tensor, reader: Tensor, measure: Measure) -> Tensor:
    if measure == "composed":
        # ||K * Q||^2 is the product of the autocorrelations of K and Q, summed over shifts, so that sums over inputs
        # and outputs can be taken first.
        made, read = _autocorrelation(filters), _autocorrelation(_planes(reader))
        return _overlap(made, read).clamp_min(0.0).sqrt()
    first, second = filters.flatten(2), reader.flatten(2) if reader.ndim > 2 else reader.unsqueeze(2)
    if first.shape[2] != second.shape[2]:
        first, second = first.sum(dim=2, keepdim=True), second.sum(dim=2, keepdim=True)
    if measure == "cosine":
        first, second = F.normalize(first, dim=2), F.normalize(second, dim=2)
    return torch.stack([(one @ other.T).abs().sum() for one, other in zip(first, second, strict=True)])


def _autocorrelation(kernel: Tensor) -> Tensor:
    """The autocorrelation of each plane, summed over planes: [n, c, h, w] to [n, 2h-1, 2w-1].

    The products of every two taps, summed over planes, are one matrix product a filter; those as far apart belong to
    the same shift.
    """
    rows, columns = kernel.shape[2:]
    down, right = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    shifts = (down.unsqueeze(1) - down + rows - 1) * (2 * columns - 1) + right.unsqueeze(1) - right + columns - 1
    found = kernel.new_zeros(len(kernel), (2 * rows - 1) * (2 * columns - 1))
    step = max(1, _PRODUCT_BYTES // (8 * shifts.numel()))
    for part, planes in zip(torch.split(found, step), torch.split(kernel.flatten(2), step), strict=True):
        part.index_add_(1, shifts.flatten(), (planes.transpose(1, 2) @ planes).flatten(1))
    return found.reshape(-1, 2 * rows - 1, 2 * columns - 1)


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """The sum over shifts of the product of two centred autocorrelations, of different sizes."""
    height, width = (min(first.shape[axis], second.shape[axis]) for axis in (1, 2))

    def middle(values: Tensor) -> Tensor:
        top, left = (values.shape[1] - height) // 2, (values.shape[2] - width) // 2
        return values[:, top : top + height, left : left + width]

    return (middle(first) * middle(second)).sum(dim=(1, 2))
